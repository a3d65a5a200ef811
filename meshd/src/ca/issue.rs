//! Issuing leaves: short-lived, for one identity each.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use mesh_core::catalog::KeyHash;
use mesh_core::identity::{CaRole, SpiffeId, TrustDomain};
use mesh_core::time::UnixMillis;
use mesh_core::trust::{CertAuthority, CertDer, Intermediate};
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::authority::{BACKDATE_MS, CaError, date_time, random_serial};
use super::key::CaKey;
use super::seal::KeyName;
use super::{CsrKey, Kek, pem};
pub use crate::limits::ca::LEAF_LIFETIME;

/// The CA, opened: signs leaves. Holds the intermediates' keys, in memory only; not the root's,
/// which issuing does not need.
pub struct Issuer {
    trust_domain: TrustDomain,
    root: CertDer,
    roles: BTreeMap<CaRole, RoleIssuer>,
}

/// One opened intermediate.
struct RoleIssuer {
    cert: CertDer,
    issuer: rcgen::Issuer<'static, CaKey>,
    not_before: UnixMillis,
    not_after: UnixMillis,
}

/// An issued certificate with what verifiers need beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Whom it names.
    pub id: SpiffeId,
    /// The leaf, then its intermediate.
    pub chain: Vec<CertDer>,
    /// SHA-256 of its public key.
    pub key: KeyHash,
    /// Its serial: big-endian, no leading zero byte, as hex.
    pub serial: String,
    /// When it begins, to the second.
    pub not_before: UnixMillis,
    /// When it ends, to the second.
    pub not_after: UnixMillis,
}

/// Why no leaf was issued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The identity is another mesh's.
    #[error("{id} is of another trust domain, expected {expected}")]
    TrustDomain {
        /// The identity asked for.
        id: SpiffeId,
        /// Ours.
        expected: TrustDomain,
    },
    /// The identity is an intermediate's.
    #[error("{0} names a CA, expected a service, node or server")]
    NotALeaf(SpiffeId),
    /// The intermediate ended, or has not begun: a clock is wrong or a rotation was missed.
    #[error(
        "the intermediate for {id} is valid from {not_before} to {not_after}, expected it to be at {now}: check this host's clock"
    )]
    IssuerValidity {
        /// The identity asked for.
        id: SpiffeId,
        /// The intermediate's begin.
        not_before: UnixMillis,
        /// The intermediate's end.
        not_after: UnixMillis,
        /// Now.
        now: UnixMillis,
    },
    /// A lifetime below a second.
    #[error("lifetime is {0:?}, expected at least one second")]
    Lifetime(Duration),
    /// The CA failed.
    #[error(transparent)]
    Ca(#[from] CaError),
}

impl Issuer {
    /// Opens `ca` with `kek`.
    ///
    /// # Errors
    /// [`CaError`]: the key-encryption key is another one, or the CA is not whole.
    pub fn open(
        trust_domain: &TrustDomain, ca: &CertAuthority, kek: &Kek,
    ) -> Result<Self, CaError> {
        let open = |role: CaRole| {
            let found = ca.intermediates.get(&role).ok_or(CaError::NoIntermediate(role))?;
            let name = KeyName { trust_domain: trust_domain.clone(), role: Some(role) };
            Ok((role, RoleIssuer::open(found, name, kek)?))
        };
        let roles = CaRole::ALL.into_iter().map(open).collect::<Result<_, CaError>>()?;
        Ok(Self { trust_domain: trust_domain.clone(), root: ca.root.clone(), roles })
    }

    /// Issues a leaf that says that the holder of `key` is `id`, from five minutes before `now`
    /// until `lifetime` after it, but no longer than its intermediate lasts.
    ///
    /// Whether the asker may have `id` is the caller's to decide.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue(
        &self, id: &SpiffeId, key: &CsrKey, lifetime: Duration, now: UnixMillis,
    ) -> Result<Leaf, IssueError> {
        let issuer = self.role_for(id)?;
        let (not_before, not_after) = issuer.validity(id, lifetime, now)?;
        let serial = random_serial()?;
        let mut params = leaf_params(id, &serial).map_err(CaError::Sign)?;
        params.not_before = date_time(not_before)?;
        params.not_after = date_time(not_after)?;
        let spki = SubjectPublicKeyInfo::from_der(key.spki()).map_err(CaError::Sign)?;
        let cert = params.signed_by(&spki, &issuer.issuer).map_err(CaError::Sign)?;
        let zeros = serial.iter().take_while(|byte| **byte == 0).count();
        Ok(Leaf {
            id: id.clone(),
            chain: vec![CertDer(cert.der().to_vec()), issuer.cert.clone()],
            key: key.hash(),
            serial: hex::encode(&serial[zeros..]),
            not_before,
            not_after,
        })
    }

    /// The anchor that leaves of this CA verify against.
    pub fn root(&self) -> &CertDer {
        &self.root
    }

    /// The chain of `leaf` with the root behind it, as PEM: for a server that joiners reach
    /// knowing nothing but the root's hash.
    pub fn pem_with_root(&self, leaf: &Leaf) -> String {
        pem::certificates(leaf.chain.iter().chain([&self.root]))
    }

    fn role_for(&self, id: &SpiffeId) -> Result<&RoleIssuer, IssueError> {
        if id.trust_domain != self.trust_domain {
            let expected = self.trust_domain.clone();
            return Err(IssueError::TrustDomain { id: id.clone(), expected });
        }
        let role = id.issuer_role().ok_or_else(|| IssueError::NotALeaf(id.clone()))?;
        Ok(self.roles.get(&role).ok_or(CaError::NoIntermediate(role))?)
    }
}

/// Names the CA, never its keys.
impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, root, roles: _ } = self;
        f.debug_struct("Issuer")
            .field("trust_domain", trust_domain)
            .field("root", root)
            .finish_non_exhaustive()
    }
}

impl RoleIssuer {
    fn open(found: &Intermediate, name: KeyName, kek: &Kek) -> Result<Self, CaError> {
        let key = CaKey::open(kek, &name, &found.key)?;
        let malformed = |why: String| CaError::Certificate { name: name.clone(), why };
        let (_, cert) = X509Certificate::from_der(&found.cert.0)
            .map_err(|error| malformed(error.to_string()))?;
        if cert.public_key().raw != key.subject_public_key_info() {
            return Err(CaError::KeyMismatch(name));
        }
        let millis = |seconds: i64| UnixMillis(u64::try_from(seconds).unwrap_or(0) * 1000);
        let der = CertificateDer::from(found.cert.0.as_slice());
        let issuer = rcgen::Issuer::from_ca_cert_der(&der, key)
            .map_err(|error| malformed(error.to_string()))?;
        Ok(Self {
            cert: found.cert.clone(),
            issuer,
            not_before: millis(cert.validity().not_before.timestamp()),
            not_after: millis(cert.validity().not_after.timestamp()),
        })
    }

    /// From when to when a leaf for `id` issued `now` is valid: within this intermediate's own
    /// validity, which the library that signs does not look at.
    fn validity(
        &self, id: &SpiffeId, lifetime: Duration, now: UnixMillis,
    ) -> Result<(UnixMillis, UnixMillis), IssueError> {
        if lifetime < Duration::from_secs(1) {
            return Err(IssueError::Lifetime(lifetime));
        }
        let Self { not_before, not_after, .. } = *self;
        if now < not_before || now >= not_after {
            return Err(IssueError::IssuerValidity { id: id.clone(), not_before, not_after, now });
        }
        let whole = |at: UnixMillis| UnixMillis(at.0 / 1000 * 1000);
        let begin = whole(UnixMillis(now.0.saturating_sub(BACKDATE_MS))).max(not_before);
        let life = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let end = whole(now.plus(life)).min(not_after);
        Ok((begin, end))
    }
}

impl Leaf {
    /// The chain as PEM: the leaf, then its intermediate.
    pub fn pem(&self) -> String {
        pem::certificates(&self.chain)
    }
}

/// The profile of leaves (X.509-SVID §2 to §5): exactly one URI name and no other name.
fn leaf_params(id: &SpiffeId, serial: &[u8]) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    // No subject: the URI name is the name, and is critical for want of a subject.
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id.to_string())?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}
