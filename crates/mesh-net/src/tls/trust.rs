//! [`TrustStore`]: whom to believe now, swapped while connections run.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_core::catalog::KeyHash;
use mesh_core::identity::{SpiffeId, TrustDomain};
use mesh_core::trust::{Bundle, CertDer, Revoked};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor};

use super::{PeerIdentity, ROOTS_MAX, TlsError};

/// The roots and the deny list in force. Handshakes load it once each and never wait.
#[derive(Debug)]
pub struct TrustStore(ArcSwap<Trusted>);

/// A bundle, made ready: anchors parsed, the deny list indexed.
#[derive(Debug)]
pub(crate) struct Trusted {
    pub(crate) bundle: Arc<Bundle>,
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
    identities: HashSet<SpiffeId>,
    keys: HashSet<KeyHash>,
    serials: HashSet<String>,
}

impl TrustStore {
    /// Trusts `bundle`.
    ///
    /// # Errors
    /// [`TlsError::Roots`] or [`TlsError::Root`] if a root is no trust anchor, or their number is
    /// out of bounds.
    pub fn new(bundle: &Bundle) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(Trusted::new(bundle)?))))
    }

    /// Trusts nobody: for configurations that pin a root, before the bundle is known.
    pub fn empty() -> Arc<Self> {
        #[expect(clippy::expect_used, reason = "a literal of the alphabet")]
        let trust_domain: TrustDomain = "nobody.invalid".parse().expect("a trust domain");
        let bundle = Bundle { trust_domain, roots: Vec::new(), revoked: Vec::new() };
        Arc::new(Self(ArcSwap::from_pointee(Trusted::index(&bundle, Vec::new()))))
    }

    /// Puts `bundle` in force for every later handshake. The one in force stays on error.
    ///
    /// # Errors
    /// As [`TrustStore::new`], and [`TlsError::BundleDomain`] if it is of another mesh: a trust
    /// domain never changes.
    pub fn update(&self, bundle: &Bundle) -> Result<(), TlsError> {
        let now = self.0.load();
        if !now.bundle.roots.is_empty() && now.bundle.trust_domain != bundle.trust_domain {
            let (found, expected) = (bundle.trust_domain.clone(), now.bundle.trust_domain.clone());
            return Err(TlsError::BundleDomain { found, expected });
        }
        self.0.store(Arc::new(Trusted::new(bundle)?));
        Ok(())
    }

    /// The bundle in force.
    pub fn bundle(&self) -> Arc<Bundle> {
        self.0.load().bundle.clone()
    }

    /// Whether the deny list names the peer: by identity, key or serial. Connections that were
    /// open before are asked this when the list changes.
    pub fn is_revoked(&self, peer: &PeerIdentity) -> bool {
        self.0.load().revoked_by(&peer.id, &peer.key, &peer.serial).is_some()
    }

    pub(crate) fn load(&self) -> Arc<Trusted> {
        self.0.load_full()
    }
}

impl Trusted {
    fn new(bundle: &Bundle) -> Result<Self, TlsError> {
        Ok(Self::index(bundle, anchors(&bundle.roots)?))
    }

    fn index(bundle: &Bundle, anchors: Vec<TrustAnchor<'static>>) -> Self {
        let mut trusted = Self {
            bundle: Arc::new(bundle.clone()),
            anchors,
            identities: HashSet::new(),
            keys: HashSet::new(),
            serials: HashSet::new(),
        };
        for entry in &bundle.revoked {
            match &entry.what {
                Revoked::Identity(id) => trusted.identities.insert(id.clone()),
                Revoked::Key(key) => trusted.keys.insert(*key),
                Revoked::Serial(serial) => trusted.serials.insert(serial.to_ascii_lowercase()),
            };
        }
        trusted
    }

    /// What of the deny list names a certificate of `id`, in words.
    pub(crate) fn revoked_by(&self, id: &SpiffeId, key: &KeyHash, serial: &str) -> Option<String> {
        if self.identities.contains(id) {
            return Some(format!("identity {id}"));
        }
        self.key_or_serial(key, serial)
    }

    /// The same for a certificate that may have no identity, such as a cross-signed root.
    pub(crate) fn key_or_serial(&self, key: &KeyHash, serial: &str) -> Option<String> {
        if self.keys.contains(key) {
            return Some(format!("key {key}"));
        }
        self.serials.contains(serial).then(|| format!("serial {serial}"))
    }
}

/// The trust anchors in `roots`, in order.
pub(crate) fn anchors(roots: &[CertDer]) -> Result<Vec<TrustAnchor<'static>>, TlsError> {
    let found = roots.len();
    if found == 0 || found > ROOTS_MAX {
        return Err(TlsError::Roots { found });
    }
    let parse = |(index, root): (usize, &CertDer)| {
        let der = CertificateDer::from(root.0.as_slice());
        anchor(&der).map_err(|why| TlsError::Root { index, why: why.to_string() })
    };
    roots.iter().enumerate().map(parse).collect()
}

/// The trust anchor in `der`.
pub(crate) fn anchor(der: &CertificateDer<'_>) -> Result<TrustAnchor<'static>, webpki::Error> {
    webpki::anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned())
}

/// The certificates of a PEM text, as a bundle holds them.
///
/// # Errors
/// [`TlsError::Pem`] if a section does not parse; [`TlsError::Roots`] if there is none, or there
/// are too many.
pub fn roots_from_pem(pem: &str) -> Result<Vec<CertDer>, TlsError> {
    let roots: Vec<CertDer> = certs_from_pem(pem)?.iter().map(|c| CertDer(c.to_vec())).collect();
    match roots.len() {
        1..=ROOTS_MAX => Ok(roots),
        found => Err(TlsError::Roots { found }),
    }
}

/// Every certificate of a PEM text; other sections are passed over.
pub(crate) fn certs_from_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Pem(error.to_string()))
}
