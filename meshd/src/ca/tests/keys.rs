//! Opening the CA: only with its key-encryption key, only with its own keys.

use mesh_core::identity::CaRole;

use super::super::seal::{self, KeyName, SealError};
use super::*;

#[test]
fn another_kek_opens_nothing_and_says_what_to_do() {
    let mesh = Mesh::new();
    let other = Kek::generate().unwrap();
    let error = Issuer::open(&mesh.trust_domain, &mesh.ca, &other).unwrap_err();
    assert!(matches!(error, CaError::Seal(SealError::Kek(_))), "{error}");
    assert!(error.to_string().contains("expected the one that `mesh init` made"), "{error}");
}

#[test]
fn keys_do_not_pass_for_one_another() {
    let mesh = Mesh::new();
    let mut swapped = mesh.ca.clone();
    let node = mesh.ca.intermediates[&CaRole::Node].key.clone();
    swapped.intermediates.get_mut(&CaRole::Server).unwrap().key = node;
    let error = Issuer::open(&mesh.trust_domain, &swapped, &mesh.kek).unwrap_err();
    assert!(matches!(error, CaError::Seal(SealError::Kek(_))), "role swapped: {error}");
    let elsewhere = "other.internal".parse().unwrap();
    let error = Issuer::open(&elsewhere, &mesh.ca, &mesh.kek).unwrap_err();
    assert!(matches!(error, CaError::Seal(SealError::Kek(_))), "trust domain: {error}");
}

#[test]
fn a_key_must_belong_to_its_certificate() {
    let mesh = Mesh::new();
    let name = KeyName { trust_domain: mesh.trust_domain.clone(), role: Some(CaRole::Server) };
    let open = |pkcs8: &[u8]| {
        let mut ca = mesh.ca.clone();
        let sealed = seal::seal(&mesh.kek, &name, pkcs8).unwrap();
        ca.intermediates.get_mut(&CaRole::Server).unwrap().key = sealed;
        Issuer::open(&mesh.trust_domain, &ca, &mesh.kek).unwrap_err()
    };
    let (stranger, _) = mesh_net::csr::generate().unwrap();
    assert!(matches!(open(&stranger), CaError::KeyMismatch(_)));
    assert!(matches!(open(b"no key"), CaError::KeyForm(_)));
}

#[test]
fn a_ca_that_is_not_whole_is_refused() {
    let mesh = Mesh::new();
    let mut ca = mesh.ca.clone();
    ca.intermediates.remove(&CaRole::Node);
    let error = Issuer::open(&mesh.trust_domain, &ca, &mesh.kek).unwrap_err();
    assert!(matches!(error, CaError::NoIntermediate(CaRole::Node)), "{error}");
    let mut ca = mesh.ca.clone();
    ca.intermediates.get_mut(&CaRole::Node).unwrap().cert.0.truncate(100);
    let error = Issuer::open(&mesh.trust_domain, &ca, &mesh.kek).unwrap_err();
    assert!(matches!(error, CaError::Certificate { .. }), "{error}");
}

#[test]
fn a_joined_server_opens_the_ca_with_the_wrapped_kek() {
    let mesh = Mesh::new();
    let newcomer = WrapKey::generate().unwrap();
    let kek = newcomer.unwrap(&mesh.kek.wrap(&newcomer.public_hex()).unwrap()).unwrap();
    let issuer = Issuer::open(&mesh.trust_domain, &mesh.ca, &kek).unwrap();
    issuer.issue(&mesh.node("web-7"), &key(), HOUR, now()).unwrap();
}

/// The root's key opens too, although issuing never needs it: rotation will.
#[test]
fn the_root_key_is_sealed_as_the_root() {
    let mesh = Mesh::new();
    let name = |role| KeyName { trust_domain: mesh.trust_domain.clone(), role };
    assert!(seal::open(&mesh.kek, &name(None), &mesh.ca.root_key).is_ok());
    assert!(seal::open(&mesh.kek, &name(Some(CaRole::Node)), &mesh.ca.root_key).is_err());
}

#[test]
fn no_key_is_readable_in_what_is_kept_or_printed() {
    let mesh = Mesh::new();
    let shown = format!("{:?} {:?} {}", mesh.issuer, mesh.ca, serde_json::json!(mesh.ca));
    let kept: Vec<u8> = {
        let sealed = mesh.ca.intermediates.values().map(|i| &i.key).chain([&mesh.ca.root_key]);
        sealed.flat_map(|key| key.0.clone()).collect()
    };
    let keys = CaRole::ALL.map(Some).into_iter().chain([None]).map(|role| {
        let name = KeyName { trust_domain: mesh.trust_domain.clone(), role };
        let sealed = role.map_or(&mesh.ca.root_key, |role| &mesh.ca.intermediates[&role].key);
        seal::open(&mesh.kek, &name, sealed).unwrap()
    });
    // The secret scalar stands at byte 36 of PKCS#8 of P-256; any 16 bytes of it will do.
    for key in keys {
        let secret = &key[36..52];
        assert!(!kept.windows(secret.len()).any(|part| part == secret));
        let array = secret.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        for text in [hex::encode(secret), array] {
            assert!(!shown.contains(&text), "{shown}");
        }
    }
    assert!(!shown.contains(&hex::encode(mesh.kek.bytes())));
}
