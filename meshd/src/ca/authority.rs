//! Making a CA: a root, and below it one intermediate per role.

use std::collections::BTreeMap;

use aws_lc_rs::rand;
use mesh_core::identity::{CaRole, SpiffeId, TrustDomain};
use mesh_core::name::Datacenter;
use mesh_core::time::UnixMillis;
use mesh_core::trust::{CertAuthority, CertDer, Intermediate};
use rcgen::string::{Ia5String, PrintableString};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, KeyUsagePurpose,
    SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::Kek;
use super::key::{CaKey, Curve};
use super::seal::{KeyName, SealError};

/// Life of a root: ten years, in milliseconds.
const ROOT_LIFE_MS: u64 = 10 * 365 * DAY_MS;
/// Life of an intermediate: five years, in milliseconds.
const INTERMEDIATE_LIFE_MS: u64 = 5 * 365 * DAY_MS;
const DAY_MS: u64 = 86_400_000;
/// How far certificates begin before they are made, for clocks that run behind.
pub(super) const BACKDATE_MS: u64 = 300_000;
/// CA certificates that may stand between the root and a leaf: the intermediate, and while the root
/// is rotated the cross-certificate of the new one.
const ROOT_PATH_LEN: u8 = 2;
/// Bytes of a serial: 159 random bits after a zero one, so that it is positive (RFC 5280
/// §4.1.2.2).
const SERIAL_LEN: usize = 20;
/// The attribute type serialNumber of names (X.520 §6.2.9).
const NAME_SERIAL: &[u64] = &[2, 5, 4, 5];

/// Why a CA was not made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// A key could not be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A key opens, but is no ECDSA key on P-256 or P-384.
    #[error("the {0} is not PKCS#8 of an ECDSA key on P-256 or P-384")]
    KeyForm(KeyName),
    /// A key is not the one its certificate is for.
    #[error("the {0} does not belong to its certificate, expected the private key of it")]
    KeyMismatch(KeyName),
    /// The state has no issuer for a role.
    #[error("the CA has no intermediate for the role {0:?}, expected one for each role")]
    NoIntermediate(CaRole),
    /// A certificate of the CA cannot be read.
    #[error("the certificate of the {name} is malformed: {why}")]
    Certificate {
        /// Whose key it is for.
        name: KeyName,
        /// What the parser said.
        why: String,
    },
    /// A certificate could not be encoded or signed.
    #[error("cannot sign a certificate")]
    Sign(#[from] rcgen::Error),
    /// A time outside what certificates can hold.
    #[error("time {0} does not fit a certificate, expected a year before 9999")]
    Time(UnixMillis),
    /// The system gives no randomness, or the library refuses.
    #[error("cannot make a key or random numbers")]
    Crypto,
}

/// Makes a CA for `trust_domain`, its keys sealed under `kek`, as of `now`.
///
/// `datacenter` stands in the names of its certificates, for people. The root (ECDSA P-384, ten
/// years) signs one intermediate per role (ECDSA P-256, five years), whose URI name says the
/// role. No name constraints: TLS stacks refuse those on URIs.
///
/// # Errors
/// [`CaError`].
pub fn create(
    trust_domain: &TrustDomain, datacenter: &Datacenter, kek: &Kek, now: UnixMillis,
) -> Result<CertAuthority, CaError> {
    let name = |role| KeyName { trust_domain: trust_domain.clone(), role };
    let root_key = CaKey::generate(Curve::P384)?;
    let root_sealed = root_key.seal(kek, &name(None))?;
    let uri = format!("spiffe://{trust_domain}");
    let mut params = ca_params("mesh root CA", datacenter, &uri, ROOT_PATH_LEN)?;
    set_validity(&mut params, now, now.plus(ROOT_LIFE_MS))?;
    let root = CertDer(params.self_signed(&root_key)?.der().to_vec());
    let root_issuer = rcgen::Issuer::new(params, root_key);
    let mut intermediates = BTreeMap::new();
    for role in CaRole::ALL {
        let key = CaKey::generate(Curve::P256)?;
        let common = format!("mesh {} CA", role.as_str());
        let uri = SpiffeId::ca(trust_domain, role).to_string();
        let mut params = ca_params(&common, datacenter, &uri, 0)?;
        set_validity(&mut params, now, now.plus(INTERMEDIATE_LIFE_MS))?;
        params.use_authority_key_identifier_extension = true;
        let cert = CertDer(params.signed_by(&key, &root_issuer)?.der().to_vec());
        let key = key.seal(kek, &name(Some(role)))?;
        intermediates.insert(role, Intermediate { cert, key });
    }
    Ok(CertAuthority { root, root_key: root_sealed, intermediates })
}

/// What root and intermediates have in common; validity is the caller's to set.
///
/// The subject holds the serial, so that no two CA certificates ever share a subject: verifiers
/// try every anchor of equal subject, and give up after some.
fn ca_params(
    common: &str, datacenter: &Datacenter, uri: &str, path_len: u8,
) -> Result<CertificateParams, CaError> {
    let serial = random_serial()?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common);
    subject.push(DnType::OrganizationalUnitName, datacenter.as_str());
    let printable = PrintableString::try_from(hex::encode(serial))?;
    let serial_type = DnType::CustomDnType(NAME_SERIAL.to_vec());
    subject.push(serial_type, DnValue::PrintableString(printable));
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_len));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri)?)];
    Ok(params)
}

/// Makes `params` valid from shortly before `now` to `not_after`, to the second.
fn set_validity(
    params: &mut CertificateParams, now: UnixMillis, not_after: UnixMillis,
) -> Result<(), CaError> {
    params.not_before = date_time(UnixMillis(now.0.saturating_sub(BACKDATE_MS)))?;
    params.not_after = date_time(not_after)?;
    Ok(())
}

/// `at` as certificates hold it, the milliseconds dropped.
pub(super) fn date_time(at: UnixMillis) -> Result<OffsetDateTime, CaError> {
    let seconds = i64::try_from(at.0 / 1000).map_err(|_| CaError::Time(at))?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| CaError::Time(at))
}

/// 159 random bits, big-endian, the first bit zero.
pub(super) fn random_serial() -> Result<[u8; SERIAL_LEN], CaError> {
    let mut serial = [0; SERIAL_LEN];
    rand::fill(&mut serial).map_err(|_| CaError::Crypto)?;
    serial[0] &= 0x7f;
    Ok(serial)
}
