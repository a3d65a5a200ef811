//! The CA as a whole: profiles, requests, sealing, and verification by the mesh's own verifier.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod handshake;
mod keys;
mod profile;
mod request;

use std::time::Duration;

use mesh_core::identity::{SpiffeId, TrustDomain};
use mesh_core::time::UnixMillis;
use mesh_core::trust::{Bundle, CertAuthority};
use zeroize::Zeroizing;

use super::*;

/// A mesh's CA with its key-encryption key at hand.
struct Mesh {
    trust_domain: TrustDomain,
    kek: Kek,
    ca: CertAuthority,
    issuer: Issuer,
}

impl Mesh {
    fn new() -> Self {
        Self::at("td.mesh.internal", now())
    }

    fn at(trust_domain: &str, now: UnixMillis) -> Self {
        let trust_domain: TrustDomain = trust_domain.parse().unwrap();
        let kek = Kek::generate().unwrap();
        let ca = create(&trust_domain, &"dc1".parse().unwrap(), &kek, now).unwrap();
        let issuer = Issuer::open(&trust_domain, &ca, &kek).unwrap();
        Self { trust_domain, kek, ca, issuer }
    }

    fn bundle(&self) -> Bundle {
        let roots = vec![self.ca.root.clone()];
        Bundle { trust_domain: self.trust_domain.clone(), roots, revoked: Vec::new() }
    }

    fn service(&self, name: &str) -> SpiffeId {
        SpiffeId::service(&self.trust_domain, &"dc1".parse().unwrap(), &name.parse().unwrap())
    }

    fn node(&self, name: &str) -> SpiffeId {
        SpiffeId::node(&self.trust_domain, &"dc1".parse().unwrap(), &name.parse().unwrap())
    }

    fn server(&self, name: &str) -> SpiffeId {
        SpiffeId::server(&self.trust_domain, &"dc1".parse().unwrap(), &name.parse().unwrap())
    }

    /// A leaf for `id` with a fresh key, and that key.
    fn leaf(&self, id: &SpiffeId) -> (Leaf, Zeroizing<Vec<u8>>) {
        let (pkcs8, csr) = mesh_net::csr::generate().unwrap();
        let key = CsrKey::from_pem(&csr).unwrap();
        (self.issuer.issue(id, &key, LEAF_LIFETIME, now()).unwrap(), pkcs8)
    }
}

/// The wall clock: what the verifier compares with.
fn now() -> UnixMillis {
    mesh_net::clock::now()
}

fn key() -> CsrKey {
    CsrKey::from_pem(&mesh_net::csr::generate().unwrap().1).unwrap()
}

const HOUR: Duration = Duration::from_secs(3600);
