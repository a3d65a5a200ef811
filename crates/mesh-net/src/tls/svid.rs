//! [`Svid`]: an identity of ours with its key; [`SvidSource`]: the cell that renewal swaps.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_core::catalog::KeyHash;
use mesh_core::identity::SpiffeId;
use mesh_core::time::UnixMillis;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use super::profile::Leaf;
use super::trust::certs_from_pem;
use super::{CHAIN_CERTS_MAX, TlsError, provider};

/// A certificate chain and its private key: what this process can prove to be.
#[derive(Clone)]
pub struct Svid {
    /// Whom it names.
    pub id: SpiffeId,
    /// The leaf, its intermediate, and cross-certificates if any.
    pub chain: Vec<CertificateDer<'static>>,
    /// Signs handshakes.
    pub key: Arc<dyn SigningKey>,
    /// SHA-256 of the public key (SPKI, DER).
    pub key_hash: KeyHash,
    /// When its life begins.
    pub not_before: UnixMillis,
    /// When its life ends.
    pub not_after: UnixMillis,
    /// Its serial: big-endian, no leading zero byte, as hex.
    pub serial: String,
    certified: Arc<CertifiedKey>,
}

impl Svid {
    /// Reads a chain in PEM, leaf first, and its key in PKCS#8 DER.
    ///
    /// # Errors
    /// [`TlsError`] if the leaf breaks the SPIFFE profile, or the key is another's.
    pub fn from_pem(chain_pem: &str, key_pkcs8_der: &[u8]) -> Result<Self, TlsError> {
        Self::from_der(certs_from_pem(chain_pem)?, key_pkcs8_der)
    }

    /// The same from DER.
    ///
    /// # Errors
    /// As [`Svid::from_pem`].
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>, key_pkcs8_der: &[u8],
    ) -> Result<Self, TlsError> {
        if chain.len() > CHAIN_CERTS_MAX {
            return Err(TlsError::ChainLength { found: chain.len() });
        }
        let first = chain.first().ok_or(TlsError::Pem("no certificate in it".to_owned()))?;
        let leaf = Leaf::parse(first)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key_pkcs8_der));
        let certified = CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider())
            .map_err(TlsError::Key)?;
        Ok(Self {
            id: leaf.id,
            chain,
            key: certified.key.clone(),
            key_hash: leaf.key,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            serial: leaf.serial,
            certified: Arc::new(certified),
        })
    }

    /// The instant at half of its life, from which it is renewed.
    pub fn half_life(&self) -> UnixMillis {
        self.not_before.plus(self.not_after.since(self.not_before) / 2)
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Svid({}, serial {}, until {})", self.id, self.serial, self.not_after)
    }
}

/// The SVID of one identity, swapped at renewal: later handshakes use the new one.
#[derive(Debug)]
pub struct SvidSource(ArcSwap<Svid>);

impl SvidSource {
    /// Begins with `svid`.
    pub fn new(svid: Svid) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(svid)))
    }

    /// Puts `svid` in force.
    pub fn swap(&self, svid: Svid) {
        self.0.store(Arc::new(svid));
    }

    /// The SVID in force. Two calls give the same `Arc` unless it was swapped in between.
    pub fn current(&self) -> Arc<Svid> {
        self.0.load_full()
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.0.load().certified.clone()
    }
}

impl ResolvesClientCert for SvidSource {
    fn resolve(
        &self, _root_hint_subjects: &[&[u8]], sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let certified = self.certified();
        certified.key.choose_scheme(sigschemes).is_some().then_some(certified)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
