//! Certificate requests, honest and hostile: a request gives a proven key or nothing.

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequest, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SignatureAlgorithm,
};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::csr::CSR_BYTES_MAX;
use super::*;

fn generate(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

/// A request for `key` that asks for what `ask` puts in.
fn request(key: &KeyPair, ask: impl FnOnce(&mut CertificateParams)) -> CertificateSigningRequest {
    let mut params = CertificateParams::default();
    ask(&mut params);
    params.serialize_request(key).unwrap()
}

/// `der` as PEM.
fn pem(der: &[u8]) -> String {
    let as_cert = pem::certificates([&mesh_core::trust::CertDer(der.to_vec())]);
    as_cert.replace("CERTIFICATE", "CERTIFICATE REQUEST")
}

fn der(pem: &str) -> Vec<u8> {
    CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

#[test]
fn each_certified_kind_of_key_is_taken_as_it_is() {
    let kinds =
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
    let mesh = Mesh::new();
    for kind in kinds {
        let pair = generate(kind);
        let key = CsrKey::from_pem(&request(&pair, |_| {}).pem().unwrap()).unwrap();
        assert_eq!(key.spki(), pair.subject_public_key_info(), "{kind:?}");
        assert_eq!(key.hash(), mesh_net::hash::key_hash(key.spki()));
        let leaf = mesh.issuer.issue(&mesh.node("web-7"), &key, HOUR, now()).unwrap();
        let (_, cert) = X509Certificate::from_der(&leaf.chain[0].0).unwrap();
        assert_eq!(cert.public_key().raw, key.spki(), "{kind:?}");
    }
    assert!(CsrKey::from_pem(include_str!("requests/sha384.pem")).is_ok(), "P-256 with SHA-384");
    assert!(CsrKey::from_pem(&mesh_net::csr::generate().unwrap().1).is_ok(), "our own agents'");
}

#[test]
fn what_a_request_asks_for_is_not_given() {
    let mesh = Mesh::new();
    let pair = generate(&rcgen::PKCS_ECDSA_P256_SHA256);
    let greedy = request(&pair, |ask| {
        ask.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ask.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let uris = ["spiffe://td.mesh.internal/dc/dc1/server/ctl-1", "spiffe://x/ca/node"];
        let uris = uris.map(|uri| SanType::URI(uri.try_into().unwrap()));
        let dns = SanType::DnsName("meshd.example".try_into().unwrap());
        ask.subject_alt_names = uris.into_iter().chain([dns]).collect();
    });
    let key = CsrKey::from_pem(&greedy.pem().unwrap()).unwrap();
    let id = mesh.service("orders");
    let leaf = mesh.issuer.issue(&id, &key, HOUR, now()).unwrap();
    let (_, cert) = X509Certificate::from_der(&leaf.chain[0].0).unwrap();
    assert!(!cert.is_ca());
    let names = &cert.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].to_string(), format!("URI({id})"));
    let usage = cert.key_usage().unwrap().unwrap().value;
    assert!(!usage.key_cert_sign() && !usage.crl_sign());
    assert_eq!(cert.subject().iter().count(), 0);
}

#[test]
fn other_kinds_of_key_and_signature_are_refused() {
    let keys = [
        ("RSA 1024", include_str!("requests/rsa1024.pem"), "1.2.840.113549.1.1.1"),
        ("RSA 2048", include_str!("requests/rsa2048.pem"), "1.2.840.113549.1.1.1"),
        ("P-521", include_str!("requests/p521.pem"), "1.2.840.10045.2.1"),
        ("Ed448", include_str!("requests/ed448.pem"), "1.3.101.113"),
        ("compressed point", include_str!("requests/compressed.pem"), "1.2.840.10045.2.1"),
        ("explicit curve", include_str!("requests/explicit.pem"), "1.2.840.10045.2.1"),
    ];
    for (name, pem, oid) in keys {
        let want = CsrError::Key { found: oid.to_owned() };
        assert_eq!(CsrKey::from_pem(pem), Err(want), "{name}");
    }
    let sha1 = CsrKey::from_pem(include_str!("requests/sha1.pem"));
    assert_eq!(sha1, Err(CsrError::Algorithm { found: "1.2.840.10045.4.1".to_owned() }));
}

#[test]
fn someone_elses_key_is_refused() {
    let (mine, victim) =
        (generate(&rcgen::PKCS_ECDSA_P256_SHA256), generate(&rcgen::PKCS_ECDSA_P256_SHA256));
    let mut forged = request(&mine, |_| {}).der().to_vec();
    let at = forged.windows(65).position(|part| part == mine.der_bytes()).unwrap();
    forged[at..at + 65].copy_from_slice(victim.der_bytes());
    assert_eq!(CsrKey::from_pem(&pem(&forged)), Err(CsrError::Proof));
}

/// The wrapping around what is signed may vary in encodings that parsers let pass; the key never.
#[test]
fn no_changed_bit_gives_another_key_and_no_cut_passes() {
    let good = der(&mesh_net::csr::generate().unwrap().1);
    let key = CsrKey::from_pem(&pem(&good)).unwrap();
    let (_, parsed) = X509CertificationRequest::from_der(&good).unwrap();
    let (info, signature) =
        (parsed.certification_request_info.raw, &parsed.signature_value.data[..]);
    let within = |part: &[u8], at| {
        let start = good.windows(part.len()).position(|window| window == part).unwrap();
        (start..start + part.len()).contains(&at)
    };
    for bit in 0..good.len() * 8 {
        let mut changed = good.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let got = CsrKey::from_pem(&pem(&changed));
        let wrapping = !within(info, bit / 8) && !within(signature, bit / 8);
        assert!(got.is_err() || wrapping && got.as_ref() == Ok(&key), "bit {bit}: {got:?}");
    }
    for len in 0..good.len() {
        assert!(CsrKey::from_pem(&pem(&good[..len])).is_err(), "cut at {len}");
    }
    let longer = [good.as_slice(), &[0]].concat();
    assert!(matches!(CsrKey::from_pem(&pem(&longer)), Err(CsrError::Malformed(_))));
}

#[test]
fn what_is_not_one_request_in_pem_is_refused() {
    let good = mesh_net::csr::generate().unwrap().1;
    let cert = pem::certificates([&Mesh::new().ca.root]);
    let cases = [
        ("empty", String::new()),
        ("garbage", "garbage \u{0} é".to_owned()),
        ("a certificate", cert.clone()),
        ("two requests", good.repeat(2)),
        ("cut", good[..good.len() / 2].to_owned()),
        ("no base64", good.replace("MI", "--")),
    ];
    for (name, text) in cases {
        assert_eq!(CsrKey::from_pem(&text), Err(CsrError::Pem), "{name}");
    }
    let labelled = cert.replace("CERTIFICATE", "CERTIFICATE REQUEST");
    assert!(matches!(CsrKey::from_pem(&labelled), Err(CsrError::Malformed(_))));
    let large = good + &" ".repeat(CSR_BYTES_MAX);
    assert!(matches!(CsrKey::from_pem(&large), Err(CsrError::Length { .. })));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(CsrKey::from_pem(&pem(&bytes)).is_err());
        let _ = CsrKey::from_pem(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_mangled_request_panics(at in 0_usize..4000, with in any::<[u8; 3]>()) {
        let mut bytes = der(include_str!("requests/explicit.pem"));
        let at = at % (bytes.len() - 3);
        bytes[at..at + 3].copy_from_slice(&with);
        prop_assert!(CsrKey::from_pem(&pem(&bytes)).is_err());
    }
}
