//! Writing PEM (RFC 7468). Reading is the TLS library's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mesh_core::trust::CertDer;

/// Characters of one line (RFC 7468 §2).
const LINE: usize = 64;

/// `certs` one after another, as the API and TLS stacks take chains and bundles.
pub fn certificates<'a>(certs: impl IntoIterator<Item = &'a CertDer>) -> String {
    certs.into_iter().map(|cert| encode("CERTIFICATE", &cert.0)).collect()
}

/// `der` as one PEM block, ended by a newline.
fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let certs: Vec<CertDer> =
            [0, 1, 47, 48, 49, 96, 1000].map(|len| CertDer(vec![7; len])).into();
        let pem = certificates(&certs);
        assert!(pem.lines().all(|line| line.len() <= LINE));
        let back = CertificateDer::pem_slice_iter(pem.as_bytes());
        let back: Vec<CertDer> = back.map(|cert| CertDer(cert.unwrap().to_vec())).collect();
        assert_eq!(back, certs);
    }
}
