//! The X.509-SVID profile: what a leaf must say, whoever signed it.

use mesh_core::catalog::KeyHash;
use mesh_core::identity::{CaRole, SpiffeId};
use mesh_core::time::UnixMillis;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{CERT_BYTES_MAX, TlsError};
use crate::{clock, hash};

/// Who stands at the other end of a verified connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The identity.
    pub id: SpiffeId,
    /// SHA-256 of its public key (SPKI, DER).
    pub key: KeyHash,
    /// The certificate's serial: big-endian, no leading zero byte, as hex.
    pub serial: String,
    /// When the certificate ends.
    pub not_after: UnixMillis,
    /// Whether it had ended already, on a port that lets expired nodes in to renew.
    pub expired: bool,
}

/// The peer that `certs`, the chain of a finished handshake, speaks for; `None` without a
/// certificate.
///
/// Reads the leaf and verifies nothing: the handshake did.
///
/// # Errors
/// [`TlsError`] if the leaf breaks the profile, which no finished handshake lets through.
pub fn peer_identity(
    certs: Option<&[CertificateDer<'_>]>,
) -> Result<Option<PeerIdentity>, TlsError> {
    let Some(leaf) = certs.and_then(<[_]>::first) else { return Ok(None) };
    let leaf = Leaf::parse(leaf)?;
    let expired = clock::now() > leaf.not_after;
    Ok(Some(leaf.into_peer(expired)))
}

/// A leaf that keeps the profile; not yet verified.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) role: CaRole,
    pub(crate) key: KeyHash,
    pub(crate) serial: String,
    pub(crate) not_before: UnixMillis,
    pub(crate) not_after: UnixMillis,
}

impl Leaf {
    /// Reads `der` and holds it to the profile (X.509-SVID §2 to §5).
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub(crate) fn parse(der: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let cert = parse(der)?;
        let uris = uri_names(&cert)?;
        let [uri] = uris[..] else { return Err(TlsError::UriNames { found: uris.len() }) };
        let id: SpiffeId = uri.parse().map_err(TlsError::Identity)?;
        let Some(role) = id.issuer_role() else { return Err(TlsError::NotALeaf(id)) };
        check_constraints(&cert, &id)?;
        check_key_usage(&cert, &id)?;
        check_extended_key_usage(&cert, &id)?;
        let validity = cert.validity();
        Ok(Self {
            id,
            role,
            key: key_of(&cert),
            serial: serial_of(cert.raw_serial()),
            not_before: millis(validity.not_before.timestamp()),
            not_after: millis(validity.not_after.timestamp()),
        })
    }

    pub(crate) fn into_peer(self, expired: bool) -> PeerIdentity {
        let Self { id, role: _, key, serial, not_before: _, not_after } = self;
        PeerIdentity { id, key, serial, not_after, expired }
    }
}

/// Reads one certificate, without bytes behind it.
pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, TlsError> {
    if der.len() > CERT_BYTES_MAX {
        return Err(TlsError::CertLength { found: der.len() });
    }
    let (rest, cert) = X509Certificate::from_der(der).map_err(malformed)?;
    if !rest.is_empty() {
        return Err(TlsError::Malformed(format!("{} bytes behind it, expected 0", rest.len())));
    }
    Ok(cert)
}

/// The URI names of `cert`, in order.
pub(crate) fn uri_names<'a>(cert: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, TlsError> {
    let Some(names) = cert.subject_alternative_name().map_err(malformed)? else {
        return Ok(Vec::new());
    };
    let mut uris = Vec::new();
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::Invalid(tag, _) => {
                return Err(TlsError::Malformed(format!("alternative name of {tag} is invalid")));
            }
            _ => {}
        }
    }
    Ok(uris)
}

/// SHA-256 of the public key of `cert`.
pub(crate) fn key_of(cert: &X509Certificate<'_>) -> KeyHash {
    hash::key_hash(cert.public_key().raw)
}

/// A serial as the deny list writes it.
pub(crate) fn serial_of(raw: &[u8]) -> String {
    let zeros = raw.iter().take_while(|byte| **byte == 0).count();
    hex::encode(&raw[zeros..])
}

fn check_constraints(cert: &X509Certificate<'_>, id: &SpiffeId) -> Result<(), TlsError> {
    // Absent means CA:FALSE (RFC 5280 §4.2.1.9).
    let constraints = cert.basic_constraints().map_err(malformed)?;
    match constraints.is_some_and(|found| found.value.ca) {
        true => Err(TlsError::IsCa(id.clone())),
        false => Ok(()),
    }
}

fn check_key_usage(cert: &X509Certificate<'_>, id: &SpiffeId) -> Result<(), TlsError> {
    let broken =
        |found: String, expected| Err(TlsError::KeyUsage { id: id.clone(), found, expected });
    let Some(usage) = cert.key_usage().map_err(malformed)? else {
        return broken("absent".to_owned(), "digitalSignature");
    };
    let found = usage.value.to_string();
    if !usage.critical {
        return broken(format!("{found}, not critical"), "a critical extension");
    }
    if !usage.value.digital_signature() {
        return broken(found, "digitalSignature");
    }
    if usage.value.key_cert_sign() || usage.value.crl_sign() {
        return broken(found, "neither keyCertSign nor cRLSign");
    }
    Ok(())
}

fn check_extended_key_usage(cert: &X509Certificate<'_>, id: &SpiffeId) -> Result<(), TlsError> {
    let usage = cert.extended_key_usage().map_err(malformed)?;
    let (server, client) =
        usage.map_or((false, false), |usage| (usage.value.server_auth, usage.value.client_auth));
    let missing = match (server, client) {
        (true, true) => return Ok(()),
        (false, true) => "serverAuth",
        (true, false) => "clientAuth",
        (false, false) => "both",
    };
    Err(TlsError::ExtendedKeyUsage { id: id.clone(), missing })
}

fn malformed(error: impl std::fmt::Display) -> TlsError {
    TlsError::Malformed(error.to_string())
}

/// Seconds as X.509 has them; before 1970 reads as 0, which is long expired.
fn millis(seconds: i64) -> UnixMillis {
    UnixMillis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}
