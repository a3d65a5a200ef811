//! Who this host is: the node's certificate, one for each local service, and whom to trust.
//!
//! A join token enrols once ([`enrol`]); from then on the node's key is the credential. Private
//! keys are made here and never leave the host.

mod enrol;
mod keeper;
mod renew;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_core::identity::SpiffeId;
use mesh_core::name::ServiceName;
use mesh_core::time::UnixMillis;
use mesh_net::tls::{SvidSource, TlsError, TrustStore};

pub use enrol::{EnrolError, Join, load_or_enrol};
pub(crate) use keeper::{Keeper, run};
pub use renew::{Inverted, renew_at};
pub(crate) use store::private_dir;
pub use store::{Enrolled, IdentityStore, StoreError};

/// The identities of this host, each in a cell that renewal swaps.
///
/// Shared by all workers; readers never wait. One task (the keeper) writes.
#[derive(Debug)]
pub struct Identities {
    node: Arc<SvidSource>,
    services: ArcSwap<BTreeMap<ServiceName, Arc<SvidSource>>>,
    trust: Arc<TrustStore>,
}

impl Identities {
    /// The identities of a node that has no services yet.
    pub fn new(node: Arc<SvidSource>, trust: Arc<TrustStore>) -> Self {
        Self { node, services: ArcSwap::default(), trust }
    }

    /// The node's own identity.
    pub fn node(&self) -> Arc<SvidSource> {
        self.node.clone()
    }

    /// The identity of a service of this host, once it has a certificate.
    pub fn service(&self, service: &ServiceName) -> Option<Arc<SvidSource>> {
        self.services.load().get(service).cloned()
    }

    /// Whom to believe.
    pub fn trust(&self) -> Arc<TrustStore> {
        self.trust.clone()
    }

    /// Every certificate held: identity and end of life.
    pub fn leaves(&self) -> BTreeMap<String, UnixMillis> {
        let services = self.services.load();
        std::iter::once(&self.node)
            .chain(services.values())
            .map(|source| source.current())
            .map(|svid| (svid.id.to_string(), svid.not_after))
            .collect()
    }

    /// Gives `service` an identity, or renews the one it has.
    pub fn put(&self, service: &ServiceName, svid: mesh_net::tls::Svid) {
        match self.service(service) {
            Some(source) => source.swap(svid),
            None => {
                let source = SvidSource::new(svid);
                self.services.rcu(|now| {
                    let mut next = BTreeMap::clone(now);
                    next.insert(service.clone(), source.clone());
                    next
                });
            }
        }
    }

    /// Forgets the identity of `service`.
    pub fn remove(&self, service: &ServiceName) {
        self.services.rcu(|now| {
            let mut next = BTreeMap::clone(now);
            next.remove(service);
            next
        });
    }

    /// The services that have one.
    pub fn services(&self) -> Vec<ServiceName> {
        self.services.load().keys().cloned().collect()
    }
}

/// Why a certificate from a server is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeafError {
    /// It is not one, or not of our key.
    #[error("server issued a certificate that cannot be used")]
    Tls(#[from] TlsError),
    /// It names someone else.
    #[error("server issued a certificate for {found}, expected {expected}")]
    Identity {
        /// Whom it names.
        found: SpiffeId,
        /// Whom it should.
        expected: SpiffeId,
    },
}

/// Reads a certificate that must name `expected` and be of the key `key_der`.
///
/// # Errors
/// [`LeafError`].
pub(crate) fn leaf(
    chain_pem: &str, key_der: &[u8], expected: &SpiffeId,
) -> Result<mesh_net::tls::Svid, LeafError> {
    let svid = mesh_net::tls::Svid::from_pem(chain_pem, key_der)?;
    if svid.id != *expected {
        return Err(LeafError::Identity { found: svid.id, expected: expected.clone() });
    }
    Ok(svid)
}
