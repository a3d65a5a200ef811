//! The one verification that stands behind both of rustls' verifier traits.

use std::sync::Arc;

use mesh_core::catalog::KeyHash;
use mesh_core::identity::{CaRole, SpiffeId, Subject};
use mesh_core::time::UnixMillis;
use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DistinguishedName, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::profile::{self, Leaf, PeerIdentity};
use super::trust::{Trusted, anchor};
use super::{CERT_BYTES_MAX, CHAIN_CERTS_MAX, Expected, OFFLINE_GRACE_MS, TlsError, TrustStore};
use crate::hash;

/// What a peer presents, and as what.
struct Presented<'a> {
    leaf: &'a CertificateDer<'a>,
    others: &'a [CertificateDer<'a>],
    usage: KeyUsage,
    now: UnixTime,
    allow_expired: bool,
}

/// Verifies the peer against `trusted`: bounds, SPIFFE profile, trust domain, life, chain to a
/// root, the issuer's role, and the deny list.
fn verify(trusted: &Trusted, presented: &Presented<'_>) -> Result<PeerIdentity, TlsError> {
    let leaf = bounded_leaf(presented)?;
    if leaf.id.trust_domain != trusted.bundle.trust_domain {
        let expected = trusted.bundle.trust_domain.clone();
        return Err(TlsError::TrustDomain { id: leaf.id, expected });
    }
    let (at, expired) = verification_time(&leaf, presented)?;
    if let Some(by) = trusted.revoked_by(&leaf.id, &leaf.key, &leaf.serial) {
        return Err(TlsError::Revoked { id: leaf.id, by });
    }
    let deny = |issuer: &Issuer| trusted.key_or_serial(&issuer.key, &issuer.serial);
    verify_chain(&leaf, presented, &trusted.anchors, at, &deny)?;
    Ok(leaf.into_peer(expired))
}

/// Verifies a server below the root with SHA-256 `pin`, which must be among those presented: a
/// joiner knows nothing else of the mesh yet.
fn verify_pinned(pin: [u8; 32], presented: &Presented<'_>) -> Result<PeerIdentity, TlsError> {
    let root = presented.others.iter().find(|cert| hash::equal(&hash::sha256(cert), &pin));
    let root = root.ok_or(TlsError::Pin { expected: KeyHash(pin) })?;
    let root = anchor(root).map_err(|why| TlsError::Root { index: 0, why: why.to_string() })?;
    verify_below(&[root], presented)
}

/// Verifies a peer below `roots`, of whichever trust domain they vouch for.
fn verify_below(
    roots: &[TrustAnchor<'_>], presented: &Presented<'_>,
) -> Result<PeerIdentity, TlsError> {
    let leaf = bounded_leaf(presented)?;
    let (at, expired) = verification_time(&leaf, presented)?;
    verify_chain(&leaf, presented, roots, at, &|_| None)?;
    Ok(leaf.into_peer(expired))
}

fn bounded_leaf(presented: &Presented<'_>) -> Result<Leaf, TlsError> {
    let found = presented.others.len() + 1;
    if found > CHAIN_CERTS_MAX {
        return Err(TlsError::ChainLength { found });
    }
    if let Some(large) = presented.others.iter().find(|cert| cert.len() > CERT_BYTES_MAX) {
        return Err(TlsError::CertLength { found: large.len() });
    }
    Leaf::parse(presented.leaf)
}

/// The time to verify the chain at, and whether the leaf had ended by now.
///
/// A node that ended within the grace is judged as of its last second: it may be let in to renew.
fn verification_time(leaf: &Leaf, presented: &Presented<'_>) -> Result<(UnixTime, bool), TlsError> {
    let now = UnixMillis(presented.now.as_secs().saturating_mul(1000));
    if now < leaf.not_before {
        return Err(TlsError::NotYetValid {
            id: leaf.id.clone(),
            not_before: leaf.not_before,
            now,
        });
    }
    if now <= leaf.not_after {
        return Ok((presented.now, false));
    }
    let in_grace = presented.allow_expired
        && leaf.role == CaRole::Node
        && now.since(leaf.not_after) <= OFFLINE_GRACE_MS;
    if !in_grace {
        return Err(TlsError::Expired { id: leaf.id.clone(), not_after: leaf.not_after, now });
    }
    let seconds = (leaf.not_after.0 / 1000).saturating_sub(1);
    Ok((UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)), true))
}

/// A certificate of the path above the leaf.
struct Issuer {
    key: KeyHash,
    serial: String,
}

/// Builds the path to an anchor and holds it to the rules of roles and to the deny list.
///
/// The issuer judged is that of the path found, not merely the second certificate presented: a
/// peer may present several.
fn verify_chain(
    leaf: &Leaf, presented: &Presented<'_>, anchors: &[TrustAnchor<'_>], at: UnixTime,
    deny: &dyn Fn(&Issuer) -> Option<String>,
) -> Result<(), TlsError> {
    let chain = |source| TlsError::Chain { id: leaf.id.clone(), source };
    let end_entity = EndEntityCert::try_from(presented.leaf).map_err(chain)?;
    let algorithms = super::provider().signature_verification_algorithms.all;
    let path = end_entity
        .verify_for_usage(algorithms, anchors, presented.others, at, presented.usage, None, None)
        .map_err(chain)?;
    verify_path(leaf, &path, deny)
}

fn verify_path(
    leaf: &Leaf, path: &VerifiedPath<'_>, deny: &dyn Fn(&Issuer) -> Option<String>,
) -> Result<(), TlsError> {
    let wrong =
        |found: String| TlsError::IssuerRole { id: leaf.id.clone(), found, expected: leaf.role };
    let expected = SpiffeId::ca(&leaf.id.trust_domain, leaf.role);
    let mut above = 0;
    for cert in path.intermediate_certificates() {
        let der = cert.der();
        let cert = profile::parse(&der)?;
        let names = profile::uri_names(&cert)?;
        let issuer =
            Issuer { key: profile::key_of(&cert), serial: profile::serial_of(cert.raw_serial()) };
        if let Some(by) = deny(&issuer) {
            return Err(TlsError::Revoked { id: leaf.id.clone(), by: format!("issuer's {by}") });
        }
        if above == 0 {
            let [name] = names[..] else {
                return Err(wrong(format!("a certificate with {} URI names", names.len())));
            };
            if name.parse().as_ref() != Ok(&expected) {
                return Err(wrong(name.to_owned()));
            }
        } else if let Some(name) = names.iter().find(|name| is_role(name)) {
            // An issuing intermediate must never have made itself sub-authorities of other roles.
            return Err(wrong(format!("vouched for by {name}")));
        }
        above += 1;
    }
    if above == 0 {
        return Err(wrong("the root itself".to_owned()));
    }
    Ok(())
}

fn is_role(name: &str) -> bool {
    name.parse().is_ok_and(|id: SpiffeId| matches!(id.subject, Subject::Ca(_)))
}

/// Verifies the servers and agents that this process dials.
#[derive(Debug)]
pub(crate) struct DialledVerifier {
    pub(crate) trust: Arc<TrustStore>,
    pub(crate) expected: Expected,
    /// Those of [`Expected::Roots`], parsed.
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl DialledVerifier {
    fn check(&self, presented: &Presented<'_>) -> Result<PeerIdentity, TlsError> {
        let peer = match &self.expected {
            Expected::Pin(pin) => verify_pinned(*pin, presented)?,
            Expected::Roots(_) => verify_below(&self.anchors, presented)?,
            Expected::Id(_) | Expected::AnyServer => verify(&self.trust.load(), presented)?,
        };
        let (fits, expected) = match &self.expected {
            Expected::Id(id) => (peer.id == *id, id.to_string()),
            Expected::AnyServer | Expected::Pin(_) | Expected::Roots(_) => {
                (peer.id.as_server().is_some(), "a control server".to_owned())
            }
        };
        if !fits {
            return Err(TlsError::Unexpected { found: peer.id, expected });
        }
        Ok(peer)
    }
}

impl ServerCertVerifier for DialledVerifier {
    /// The TLS server name is not looked at: names do not identify anyone here, SPIFFE IDs do.
    fn verify_server_cert(
        &self, end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>, _ocsp_response: &[u8], now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let presented = Presented {
            leaf: end_entity,
            others: intermediates,
            usage: KeyUsage::server_auth(),
            now,
            allow_expired: false,
        };
        self.check(&presented).map_err(TlsError::into_rustls)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self, _message: &[u8], _cert: &CertificateDer<'_>, _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signature(&self.provider, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies those who dial this process.
#[derive(Debug)]
pub(crate) struct CallerVerifier {
    pub(crate) trust: Arc<TrustStore>,
    pub(crate) roles: &'static [CaRole],
    pub(crate) mandatory: bool,
    pub(crate) allow_expired: bool,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl CallerVerifier {
    fn check(&self, presented: &Presented<'_>) -> Result<PeerIdentity, TlsError> {
        let peer = verify(&self.trust.load(), presented)?;
        if !peer.id.issuer_role().is_some_and(|role| self.roles.contains(&role)) {
            let expected: Vec<_> = self.roles.iter().map(|role| role.as_str()).collect();
            return Err(TlsError::Role { found: peer.id, expected: expected.join(", ") });
        }
        Ok(peer)
    }
}

impl ClientCertVerifier for CallerVerifier {
    /// None: hints would have to be one fixed list, and roots change under the running server.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self, end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let presented = Presented {
            leaf: end_entity,
            others: intermediates,
            usage: KeyUsage::client_auth(),
            now,
            allow_expired: self.allow_expired,
        };
        self.check(&presented).map_err(TlsError::into_rustls)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self, _message: &[u8], _cert: &CertificateDer<'_>, _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signature(&self.provider, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn signature(
    provider: &CryptoProvider, message: &[u8], cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let algorithms = &provider.signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
}

fn no_tls12() -> rustls::Error {
    rustls::PeerIncompatible::Tls12NotOffered.into()
}
