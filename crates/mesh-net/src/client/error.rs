//! [`ClientError`]: what went wrong, and what a caller can do about it.

use std::time::Duration;

use mesh_core::api::ApiError;

use crate::files::FileError;
use crate::tls::TlsError;

/// What a caller can do about an error. The CLI exits by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// The request, or the client's configuration, is wrong: change it.
    Invalid,
    /// The caller may not: use another token or certificate.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// Someone else was first: read, then try again.
    Conflict,
    /// Nothing was done: try again later.
    Unavailable,
    /// A write may or may not be in force: read before trying again.
    Unknown,
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A server answered that it will not, or cannot.
    #[error("{} ({})", error.message, error.code)]
    Api {
        /// The HTTP status.
        status: u16,
        /// The answer's body.
        error: ApiError,
    },
    /// No server could be connected to; nothing was sent.
    #[error("cannot reach any server: {}", tried.join("; "))]
    Unreachable {
        /// Each address and what happened there.
        tried: Vec<String>,
    },
    /// A server ended the connection over our certificate, before it read anything.
    #[error("{address} does not accept this client's certificate: {why}")]
    Rejected {
        /// Which server.
        address: String,
        /// The TLS alert.
        why: String,
    },
    /// A read got no answer in time.
    #[error("no answer from {address} within {after:?}")]
    Timeout {
        /// Which server was asked last.
        address: String,
        /// The time it had.
        after: Duration,
    },
    /// The connection broke under a read.
    #[error("connection to {address} broke: {why}")]
    Lost {
        /// Which server.
        address: String,
        /// What happened.
        why: String,
    },
    /// A write was sent, and no answer came: it may or may not be in force.
    #[error("no answer from {address} ({why}): whether the write is in force is unknown")]
    Unknown {
        /// Which server.
        address: String,
        /// What happened.
        why: String,
    },
    /// An answer larger than any may be.
    #[error("answer of {address} has more than {max} bytes")]
    TooLarge {
        /// Which server.
        address: String,
        /// Bytes allowed.
        max: usize,
    },
    /// An answer that is not what the route promises: another version, or no mesh server.
    #[error("answer of {address} is not understood: {why}")]
    Malformed {
        /// Which server.
        address: String,
        /// Why.
        why: String,
    },
    /// An address that is none, or too few, or too many.
    #[error("server address {found:?} is invalid, expected HOST:PORT")]
    Address {
        /// What was found.
        found: String,
    },
    /// No addresses, or more than are ever tried.
    #[error("{found} server addresses given, expected 1 to {}", super::ADDRESSES_MAX)]
    Addresses {
        /// How many.
        found: usize,
    },
    /// Nobody said whom to trust.
    #[error("no trust given: a CA certificate, a bundle, or a token with the CA's hash")]
    NoTrust,
    /// The token cannot stand in a header.
    #[error("token has characters that no token has")]
    Token,
    /// Trust or identity cannot be used.
    #[error("cannot use the given trust or identity")]
    Tls(#[from] TlsError),
    /// The HTTP client cannot be made.
    #[error("cannot set up the HTTP client")]
    Setup(#[source] reqwest::Error),
    /// The request cannot be written as JSON.
    #[error("cannot write the request")]
    Encode(#[source] serde_json::Error),
    /// A snapshot could not be written where it should go.
    #[error("cannot write the snapshot")]
    Sink(#[source] std::io::Error),
    /// A file that the caller named cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

impl ClientError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Api { status, .. } => kind_of(*status),
            Self::Rejected { .. } => ErrorKind::Forbidden,
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Lost { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::Setup(_)
            | Self::Sink(_) => ErrorKind::Unavailable,
            Self::Unknown { .. } => ErrorKind::Unknown,
            Self::Address { .. }
            | Self::Addresses { .. }
            | Self::NoTrust
            | Self::Token
            | Self::Tls(_)
            | Self::Encode(_)
            | Self::File(_) => ErrorKind::Invalid,
        }
    }

    /// The server's own words, if a server answered.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api { error, .. } => Some(error),
            _ => None,
        }
    }

    /// Whether a server answered with this stable code.
    pub fn has_code(&self, code: &str) -> bool {
        self.api().is_some_and(|error| error.code == code)
    }
}

/// What a status means for the caller. 500 and 504 come after a write may have been proposed.
fn kind_of(status: u16) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Forbidden,
        404 | 410 => ErrorKind::NotFound,
        409 | 412 => ErrorKind::Conflict,
        408 | 429 | 502 | 503 => ErrorKind::Unavailable,
        500..=599 => ErrorKind::Unknown,
        _ => ErrorKind::Invalid,
    }
}

/// The TLS alert by which the other end refused our certificate, if that is what `error` is.
///
/// In TLS 1.3 a client finishes first and may have sent its request when the alert arrives; the
/// server never reads it.
pub(crate) fn certificate_alert(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    use rustls::AlertDescription as A;
    let ours = [
        A::BadCertificate,
        A::UnsupportedCertificate,
        A::CertificateRevoked,
        A::CertificateExpired,
        A::CertificateUnknown,
        A::UnknownCA,
        A::AccessDenied,
        A::CertificateRequired,
    ];
    let mut next = Some(error);
    while let Some(error) = next {
        let text = match crate::tls::rustls_in(error) {
            Some(error) => error.to_string(),
            // h2 keeps only the text of an I/O error.
            None if error.is::<std::io::Error>() => error.to_string(),
            None => String::new(),
        };
        let is = |alert: &&A| text == rustls::Error::AlertReceived(**alert).to_string();
        if let Some(alert) = ours.iter().find(is) {
            return Some(format!("{alert:?}"));
        }
        next = error.source();
    }
    None
}
