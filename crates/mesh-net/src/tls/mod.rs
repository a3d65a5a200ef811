//! TLS 1.3 with SPIFFE identities, both ends verified by one function.
//!
//! `profile` reads a leaf and holds it to the X.509-SVID rules; `verify` builds the chain,
//! checks the issuer's role and the deny list, and stands behind both of rustls' verifier traits;
//! [`TrustStore`] and [`SvidSource`] are the two cells that are swapped while connections run:
//! the next handshake sees what they hold then. There is no session resumption, no ticket and no
//! early data, because a resumed session skips the certificate checks.

mod config;
mod error;
mod profile;
mod svid;
mod trust;
mod verify;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SupportedCipherSuite};

pub use crate::limits::tls::{CERT_BYTES_MAX, CHAIN_CERTS_MAX, ROOTS_MAX};
pub use config::{
    ClientAuth, Expected, Resolver, SvidBySni, client_config, pinned_client_config, server_config,
};
pub(crate) use error::rustls_in;
pub use error::{TlsError, describe};
pub use profile::{PeerIdentity, peer_identity};
pub use svid::{Svid, SvidSource};
pub use trust::{TrustStore, roots_from_pem};

/// How long after its end a node's certificate may still renew itself, in milliseconds: 90 days.
pub const OFFLINE_GRACE_MS: u64 = 90 * 24 * 3600 * 1000;

/// The cryptography of the whole mesh: aws-lc-rs, hybrid post-quantum key exchange and AES-128-GCM
/// first.
///
/// It is passed to every configuration; no process-wide default is installed or needed.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ordered()));
    PROVIDER.clone()
}

/// AES-128-GCM first: no weaker than the signatures around it, and less work than AES-256.
fn ordered() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let later =
        |suite: &SupportedCipherSuite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(later);
    provider
}

#[cfg(test)]
mod tests;
