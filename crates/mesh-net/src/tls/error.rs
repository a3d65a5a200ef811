//! [`TlsError`]: which rule a certificate, a chain or a configuration breaks.

use std::sync::Arc;

use mesh_core::catalog::KeyHash;
use mesh_core::identity::{CaRole, InvalidSpiffeId, SpiffeId, TrustDomain};
use mesh_core::time::UnixMillis;

use super::{CERT_BYTES_MAX, CHAIN_CERTS_MAX, ROOTS_MAX};

/// Why a peer is not believed, or a configuration cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// More certificates than any chain of the mesh has.
    #[error("chain has {found} certificates, expected at most {CHAIN_CERTS_MAX}")]
    ChainLength {
        /// Certificates presented.
        found: usize,
    },
    /// A certificate larger than any of the mesh.
    #[error("certificate has {found} bytes, expected at most {CERT_BYTES_MAX}")]
    CertLength {
        /// Bytes found.
        found: usize,
    },
    /// Not X.509, or an extension that does not parse.
    #[error("certificate does not parse: {0}")]
    Malformed(String),
    /// An SVID names exactly one identity.
    #[error("certificate has {found} URI names, expected exactly 1")]
    UriNames {
        /// URI names found.
        found: usize,
    },
    /// Its name is no identity of the mesh.
    #[error("certificate names no identity of the mesh")]
    Identity(#[source] InvalidSpiffeId),
    /// It names a certificate authority, which never speaks for itself.
    #[error("certificate names {0}, expected a service, node or server")]
    NotALeaf(SpiffeId),
    /// Another mesh.
    #[error("trust domain of {id} is {:?}, expected {expected:?}", id.trust_domain.as_str())]
    TrustDomain {
        /// The identity presented.
        id: SpiffeId,
        /// The bundle's.
        expected: TrustDomain,
    },
    /// It is a certificate authority.
    #[error("certificate of {0} has CA:TRUE, expected CA:FALSE")]
    IsCa(SpiffeId),
    /// Its key usage breaks a rule.
    #[error("key usage of {id} is {found}, expected {expected}")]
    KeyUsage {
        /// The identity presented.
        id: SpiffeId,
        /// What it has.
        found: String,
        /// The rule.
        expected: &'static str,
    },
    /// One of the two extended key usages is missing.
    #[error("extended key usage of {id} lacks {missing}, expected serverAuth and clientAuth")]
    ExtendedKeyUsage {
        /// The identity presented.
        id: SpiffeId,
        /// Which one.
        missing: &'static str,
    },
    /// Its life is over.
    #[error("certificate of {id} ended at {not_after}, now is {now}")]
    Expired {
        /// The identity presented.
        id: SpiffeId,
        /// Its end.
        not_after: UnixMillis,
        /// The time of the check.
        now: UnixMillis,
    },
    /// Its life has not begun: clocks differ.
    #[error("certificate of {id} begins at {not_before}, now is {now}")]
    NotYetValid {
        /// The identity presented.
        id: SpiffeId,
        /// Its begin.
        not_before: UnixMillis,
        /// The time of the check.
        now: UnixMillis,
    },
    /// No chain leads to a trusted root.
    #[error("certificate of {id} has no valid chain to a trusted root")]
    Chain {
        /// The identity presented.
        id: SpiffeId,
        /// Why.
        #[source]
        source: webpki::Error,
    },
    /// The issuer may not vouch for identities of this kind.
    #[error("issuer of {id} is {found}, expected /ca/{}", expected.as_str())]
    IssuerRole {
        /// The identity presented.
        id: SpiffeId,
        /// Who issued it.
        found: String,
        /// The role that may.
        expected: CaRole,
    },
    /// On the deny list.
    #[error("{id} is revoked by {by}")]
    Revoked {
        /// The identity presented.
        id: SpiffeId,
        /// Which entry: identity, key or serial, of the leaf or its issuer.
        by: String,
    },
    /// Somebody else than was dialled.
    #[error("peer is {found}, expected {expected}")]
    Unexpected {
        /// The identity presented.
        found: SpiffeId,
        /// Who was expected.
        expected: String,
    },
    /// The port takes others only.
    #[error("peer is {found}, expected a certificate issued for: {expected}")]
    Role {
        /// The identity presented.
        found: SpiffeId,
        /// The roles it takes.
        expected: String,
    },
    /// No certificate of the chain is the one that the token names.
    #[error("no certificate of the chain has SHA-256 {expected}")]
    Pin {
        /// The pinned hash.
        expected: KeyHash,
    },
    /// A bundle must trust someone, and not too many.
    #[error("bundle has {found} roots, expected 1 to {ROOTS_MAX}")]
    Roots {
        /// Roots found.
        found: usize,
    },
    /// A root that is no certificate authority.
    #[error("root {index} of the bundle is no trust anchor: {why}")]
    Root {
        /// Which, counted from 0.
        index: usize,
        /// Why.
        why: String,
    },
    /// The trust domain of a mesh never changes.
    #[error("trust domain of the bundle is {:?}, expected {:?}", found.as_str(), expected.as_str())]
    BundleDomain {
        /// The new bundle's.
        found: TrustDomain,
        /// The one in force.
        expected: TrustDomain,
    },
    /// PEM that holds no certificates.
    #[error("certificates do not parse as PEM: {0}")]
    Pem(String),
    /// A key that is not of the certificate, or no key.
    #[error("private key is not usable with the certificate")]
    Key(#[source] rustls::Error),
    /// A configuration that rustls refuses.
    #[error("cannot configure TLS")]
    Config(#[source] rustls::Error),
}

impl TlsError {
    /// This error as rustls carries it out of a handshake; the alert sent is `certificate_unknown`.
    pub(crate) fn into_rustls(self) -> rustls::Error {
        let other = rustls::OtherError(Arc::new(self));
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))
    }

    /// The error of ours that made rustls end a handshake, if one did.
    pub fn cause(error: &rustls::Error) -> Option<&Self> {
        match error {
            rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))
            | rustls::Error::Other(other) => other.0.downcast_ref(),
            _ => None,
        }
    }
}

/// `error` and its sources in one line, with the rule that a certificate broke in plain words:
/// rustls prints it in its debug form only.
pub fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(ours) = rustls_in(error).and_then(TlsError::cause) {
            parts.push(describe(ours));
            break;
        }
        let text = error.to_string();
        // Wrappers such as `io::Error` print what they wrap.
        if !parts.last().is_some_and(|last| last.ends_with(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}

/// The rustls error that `error` is, or wraps as an I/O error, perhaps several times over.
pub(crate) fn rustls_in<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a rustls::Error> {
    let mut error = error;
    while let Some(io) = error.downcast_ref::<std::io::Error>() {
        error = io.get_ref()?;
    }
    error.downcast_ref()
}
