//! A CA for tests: mints a root, one intermediate per role, and leaves, good and bad ones.
//!
//! Behind the feature `testing`, for the dev-dependencies of other crates; never part of a
//! deployable.
#![expect(clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::identity::{CaRole, SpiffeId, TrustDomain};
use mesh_core::name::{Datacenter, NodeName, ServerName, ServiceName};
use mesh_core::time::UnixMillis;
use mesh_core::trust::{Bundle, CertDer, Revocation, Revoked};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;

use crate::hash;
use crate::tls::{Svid, SvidSource, TrustStore};

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// A mesh CA that lives in memory.
pub struct TestCa {
    /// The trust domain it vouches for.
    pub trust_domain: TrustDomain,
    /// The datacenter of its identities.
    pub datacenter: Datacenter,
    root: Issuer,
    intermediates: BTreeMap<CaRole, Issuer>,
}

/// A leaf with its key, before anyone looked at it.
#[derive(Clone)]
pub struct TestLeaf {
    /// Leaf, intermediate and root, in PEM.
    pub chain_pem: String,
    /// The private key in PKCS#8 DER.
    pub key_der: Vec<u8>,
}

impl TestLeaf {
    /// The leaf as an SVID; panics if it breaks the profile.
    pub fn svid(&self) -> Svid {
        Svid::from_pem(&self.chain_pem, &self.key_der).expect("a leaf that keeps the profile")
    }
}

impl TestCa {
    /// A CA for `trust_domain`, datacenter `dc1`.
    pub fn new(trust_domain: &str) -> Self {
        let trust_domain: TrustDomain = trust_domain.parse().expect("a trust domain");
        let key = KeyPair::generate().expect("a key");
        let root = CertifiedIssuer::self_signed(authority("mesh root", None), key).expect("a root");
        let intermediates = CaRole::ALL.into_iter().map(|role| {
            let id = SpiffeId::ca(&trust_domain, role);
            let params = authority(role.as_str(), Some(&id));
            let key = KeyPair::generate().expect("a key");
            (role, CertifiedIssuer::signed_by(params, key, &root).expect("an intermediate"))
        });
        let intermediates = intermediates.collect();
        let datacenter = "dc1".parse().expect("a datacenter");
        Self { trust_domain, datacenter, root, intermediates }
    }

    /// What verifiers of this mesh trust, with an empty deny list.
    pub fn bundle(&self) -> Bundle {
        let roots = vec![CertDer(self.root.der().to_vec())];
        Bundle { trust_domain: self.trust_domain.clone(), roots, revoked: Vec::new() }
    }

    /// The bundle with `what` denied.
    pub fn bundle_without(&self, what: Revoked) -> Bundle {
        let entry = Revocation { what, at: UnixMillis(0), reason: "test".to_owned() };
        Bundle { revoked: vec![entry], ..self.bundle() }
    }

    /// A store that trusts this CA.
    pub fn trust(&self) -> Arc<TrustStore> {
        TrustStore::new(&self.bundle()).expect("a bundle")
    }

    /// The root in PEM.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// SHA-256 of the root's DER: the pin of a join token.
    pub fn pin(&self) -> [u8; 32] {
        hash::sha256(self.root.der())
    }

    /// The identity of the service `name`.
    pub fn service_id(&self, name: &str) -> SpiffeId {
        let name: ServiceName = name.parse().expect("a service name");
        SpiffeId::service(&self.trust_domain, &self.datacenter, &name)
    }

    /// The identity of the node `name`.
    pub fn node_id(&self, name: &str) -> SpiffeId {
        let name: NodeName = name.parse().expect("a node name");
        SpiffeId::node(&self.trust_domain, &self.datacenter, &name)
    }

    /// The identity of the control server `name`.
    pub fn server_id(&self, name: &str) -> SpiffeId {
        let name: ServerName = name.parse().expect("a server name");
        SpiffeId::server(&self.trust_domain, &self.datacenter, &name)
    }

    /// A good SVID of `id`, valid for a day.
    pub fn svid(&self, id: &SpiffeId) -> Svid {
        self.leaf(id, |_| {}).svid()
    }

    /// The same in a cell.
    pub fn source(&self, id: &SpiffeId) -> Arc<SvidSource> {
        SvidSource::new(self.svid(id))
    }

    /// A leaf of `id` by the intermediate of its role, after `change` had its way with it.
    pub fn leaf(&self, id: &SpiffeId, change: impl FnOnce(&mut CertificateParams)) -> TestLeaf {
        self.leaf_by(id.issuer_role().expect("the id of a leaf"), id, change)
    }

    /// A leaf of `id` by the intermediate of `role`, which need not be the right one.
    pub fn leaf_by(
        &self, role: CaRole, id: &SpiffeId, change: impl FnOnce(&mut CertificateParams),
    ) -> TestLeaf {
        let issuer = &self.intermediates[&role];
        let mut params = leaf_params(id);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, issuer).expect("a leaf");
        let chain_pem = format!("{}{}{}", leaf.pem(), issuer.pem(), self.root.pem());
        TestLeaf { chain_pem, key_der: key.serialize_der() }
    }

    /// Leaf, intermediate and root in PEM: a good leaf of `id` for the key that asks in `csr_pem`.
    pub fn sign_csr(&self, csr_pem: &str, id: &SpiffeId) -> String {
        let csr = rcgen::CertificateSigningRequestParams::from_pem(csr_pem).expect("a request");
        let issuer = &self.intermediates[&id.issuer_role().expect("the id of a leaf")];
        let leaf = leaf_params(id).signed_by(&csr.public_key, issuer).expect("a leaf");
        format!("{}{}{}", leaf.pem(), issuer.pem(), self.root.pem())
    }

    /// A leaf of `id` signed by the key of another leaf.
    pub fn leaf_by_leaf(&self, id: &SpiffeId) -> TestLeaf {
        let parent_key = KeyPair::generate().expect("a key");
        let parent_params = leaf_params(&self.service_id("parent"));
        let service = &self.intermediates[&CaRole::Service];
        let parent =
            CertifiedIssuer::signed_by(parent_params, parent_key, service).expect("a leaf");
        let key = KeyPair::generate().expect("a key");
        let leaf = leaf_params(id).signed_by(&key, &parent).expect("a leaf");
        let chain_pem = format!("{}{}{}", leaf.pem(), parent.pem(), service.pem());
        TestLeaf { chain_pem, key_der: key.serialize_der() }
    }

    /// A leaf of `id` signed by the root itself, without an intermediate.
    pub fn leaf_by_root(&self, id: &SpiffeId) -> TestLeaf {
        let key = KeyPair::generate().expect("a key");
        let leaf = leaf_params(id).signed_by(&key, &self.root).expect("a leaf");
        let chain_pem = format!("{}{}", leaf.pem(), self.root.pem());
        TestLeaf { chain_pem, key_der: key.serialize_der() }
    }

    /// The intermediate of `role` in PEM.
    pub fn intermediate_pem(&self, role: CaRole) -> String {
        self.intermediates[&role].pem()
    }
}

/// Sets the life of `params` to begin and end this long from now; negative is past.
pub fn set_life(params: &mut CertificateParams, from_seconds: i64, to_seconds: i64) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now + time::Duration::seconds(from_seconds);
    params.not_after = now + time::Duration::seconds(to_seconds);
}

/// A URI name for `params.subject_alt_names`.
pub fn uri_name(uri: &str) -> SanType {
    SanType::URI(uri.try_into().expect("ASCII"))
}

fn authority(name: &str, id: Option<&SpiffeId>) -> CertificateParams {
    const LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - LIFE, now + LIFE);
    params.serial_number = Some(serial());
    let below = match id {
        Some(_) => BasicConstraints::Constrained(0),
        None => BasicConstraints::Unconstrained,
    };
    params.is_ca = IsCa::Ca(below);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = id.map(|id| uri_name(&id.to_string())).into_iter().collect();
    params
}

fn leaf_params(id: &SpiffeId) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    set_life(&mut params, -300, 24 * 3600);
    params.serial_number = Some(serial());
    params.is_ca = IsCa::ExplicitNoCa;
    params.subject_alt_names = vec![uri_name(&id.to_string())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

/// 159 random bits, never zero in the first byte.
fn serial() -> SerialNumber {
    let mut bytes = [0; 20];
    aws_lc_rs::rand::fill(&mut bytes).expect("randomness");
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from(bytes.to_vec())
}
