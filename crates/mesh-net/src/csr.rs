//! Keys of workloads, and the certificate requests (PKCS#10, RFC 2986) for them.
//!
//! A request says nothing but "I hold this key": it names nobody and asks for no extension, since
//! the CA takes names from its registry and would ignore them. That leaves a structure so fixed
//! that it is written here byte by byte.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Why there is no key or request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// The system gives no randomness, or the library refuses.
    #[error("cannot make a key or sign with it")]
    Crypto,
    /// Not such a key.
    #[error("private key is not PKCS#8 of an ECDSA key on P-256")]
    Key,
}

/// A new ECDSA P-256 key in PKCS#8 (DER), wiped when dropped, and a request for it in PEM.
///
/// # Errors
/// [`CsrError::Crypto`].
pub fn generate() -> Result<(Zeroizing<Vec<u8>>, String), CsrError> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING);
    let pair = pair.map_err(|_| CsrError::Crypto)?;
    let pkcs8 = pair.to_pkcs8v1().map_err(|_| CsrError::Crypto)?;
    Ok((Zeroizing::new(pkcs8.as_ref().to_vec()), request(&pair)?))
}

/// A request in PEM for the ECDSA P-256 key `pkcs8` (DER).
///
/// # Errors
/// [`CsrError::Key`] if it is another kind of key, [`CsrError::Crypto`].
pub fn csr_for(pkcs8: &[u8]) -> Result<String, CsrError> {
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8);
    request(&pair.map_err(|_| CsrError::Key)?)
}

fn request(pair: &EcdsaKeyPair) -> Result<String, CsrError> {
    let info = request_info(pair.public_key().as_ref());
    let signature = pair.sign(&SystemRandom::new(), &info).map_err(|_| CsrError::Crypto)?;
    let signature = bit_string(signature.as_ref());
    let der = tagged(SEQUENCE, &[&info, ECDSA_WITH_SHA256, &signature]);
    Ok(pem(&der))
}

/// CertificationRequestInfo: version 0, no name, the key, no attributes (RFC 2986 §4.1).
fn request_info(point: &[u8]) -> Vec<u8> {
    let spki = tagged(SEQUENCE, &[EC_P256, &bit_string(point)]);
    let (version, nobody, no_attributes) = ([0x02, 0x01, 0x00], [SEQUENCE, 0x00], [0xa0, 0x00]);
    tagged(SEQUENCE, &[&version, &nobody, &spki, &no_attributes])
}

/// A BIT STRING of whole bytes.
fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tagged(BIT_STRING, &[&[0], bytes])
}

/// A DER value of `tag` that holds `parts` one after another (X.690 §8.1.3 for the length).
fn tagged(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = body.len().to_be_bytes();
    let zeros = length.iter().take_while(|byte| **byte == 0).count();
    let digits = &length[zeros..];
    let mut der = vec![tag];
    match digits {
        [] => der.push(0),
        [short @ 0..=0x7f] => der.push(*short),
        // At most eight digits, so that the count fits the low bits.
        long => der.extend([&[0x80 | long.len() as u8], long].concat()),
    }
    der.extend(body);
    der
}

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE REQUEST-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE REQUEST-----\n");
    pem
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
/// AlgorithmIdentifier: id-ecPublicKey on secp256r1 (RFC 5480 §2.1.1).
const EC_P256: &[u8] =
    b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
/// AlgorithmIdentifier: ecdsa-with-SHA256, no parameters (RFC 5758 §3.2).
const ECDSA_WITH_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
    use rustls::pki_types::CertificateSigningRequestDer;
    use rustls::pki_types::pem::PemObject;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer;

    use super::*;

    fn check(pem: &str) -> Vec<u8> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (rest, csr) = X509CertificationRequest::from_der(&der).unwrap();
        assert!(rest.is_empty());
        let info = &csr.certification_request_info;
        assert_eq!(info.version.0, 0);
        assert_eq!(info.subject.iter().count(), 0);
        assert_eq!(info.attributes().len(), 0);
        let point = &info.subject_pki.subject_public_key.data;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .verify(info.raw, &csr.signature_value.data)
            .unwrap();
        info.subject_pki.raw.to_vec()
    }

    #[test]
    fn a_request_parses_elsewhere_and_proves_its_key() {
        for _ in 0..50 {
            let (pkcs8, pem) = generate().unwrap();
            let spki = check(&pem);
            assert_eq!(check(&csr_for(&pkcs8).unwrap()), spki);
        }
    }

    #[test]
    fn another_tool_reads_the_request_and_the_key() {
        let (pkcs8, pem) = generate().unwrap();
        let read = rcgen::CertificateSigningRequestParams::from_pem(&pem).unwrap();
        let key = rcgen::KeyPair::try_from(pkcs8.as_slice()).unwrap();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        assert_eq!(rcgen::PublicKeyData::subject_public_key_info(&read.public_key), spki);
    }

    #[test]
    fn other_keys_are_refused() {
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        for bad in [&b""[..], b"key", &p384.serialize_der()] {
            assert_eq!(csr_for(bad), Err(CsrError::Key));
        }
    }

    #[test]
    fn lengths_are_the_shortest_form() {
        let cases: [(usize, &[u8]); 5] = [
            (0, &[0x30, 0x00]),
            (127, &[0x30, 0x7f]),
            (128, &[0x30, 0x81, 0x80]),
            (255, &[0x30, 0x81, 0xff]),
            (256, &[0x30, 0x82, 0x01, 0x00]),
        ];
        for (len, want) in cases {
            let der = tagged(SEQUENCE, &[&vec![0; len]]);
            assert_eq!((&der[..want.len()], der.len()), (want, want.len() + len), "{len}");
        }
    }
}
