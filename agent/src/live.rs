//! [`Live`]: the config in force, the agent's one mutable cell.
//!
//! One owner task (`control`) publishes; readers never wait. Whoever must act on a change
//! (listeners, the registry of connections) watches [`Live::changed`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::live::WANTED_MAX;
use arc_swap::ArcSwap;
use mesh_core::name::{InstanceId, ServiceName};
use mesh_core::resource::{Resource, ResourceKey};
use mesh_core::revision::Revision;
use mesh_core::snapshot::{HostedInstance, ProxySnapshot};
use tokio::sync::watch;

/// The instances of this host, as the proxy sees them.
pub type Hosted = BTreeMap<InstanceId, Arc<HostedInstance>>;

/// What servers sent at one revision.
#[derive(Clone, Debug)]
pub struct MeshBatch {
    /// The state it brings the agent to.
    pub revision: Revision,
    /// Whether it replaces all that servers sent before.
    pub full: bool,
    /// What changed.
    pub resources: Vec<Resource>,
}

/// Why a batch is not put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The sender lags, or repeats.
    #[error("batch is of revision {found}, expected {held} or later")]
    Older {
        /// The batch's revision.
        found: Revision,
        /// What is in force.
        held: Revision,
    },
    /// What is held may not exist in the new epoch.
    #[error("batch of revision {found} is not full, expected a full one after epoch {held}")]
    EpochNotFull {
        /// The batch's revision.
        found: Revision,
        /// The epoch in force.
        held: u64,
    },
}

/// The config in force. Cheap to share.
#[derive(Debug)]
pub struct Live {
    snapshot: ArcSwap<ProxySnapshot>,
    generation: watch::Sender<u64>,
    /// Services that a local caller asked for and that nobody declared.
    wanted: Mutex<BTreeSet<ServiceName>>,
    wanted_changed: watch::Sender<u64>,
}

impl Live {
    /// A cell that holds `first`.
    pub fn new(first: ProxySnapshot) -> Arc<Self> {
        Arc::new(Self {
            snapshot: ArcSwap::from_pointee(first),
            generation: watch::Sender::new(0),
            wanted: Mutex::new(BTreeSet::new()),
            wanted_changed: watch::Sender::new(0),
        })
    }

    /// The config in force. Load once per request, so that a request sees one revision.
    pub fn load(&self) -> Arc<ProxySnapshot> {
        self.snapshot.load_full()
    }

    /// Puts `next` in force unless its revision is older; says whether it did. The same revision
    /// with other local parts is newer by being published later. Called by one task only.
    pub fn publish(&self, next: ProxySnapshot) -> bool {
        if next.revision < self.snapshot.load().revision {
            return false;
        }
        self.snapshot.store(Arc::new(next));
        self.generation.send_modify(|generation| *generation += 1);
        true
    }

    /// Puts a batch in force, without what `wanted` no longer holds; the host's own part stays.
    ///
    /// # Errors
    /// [`Refused`]; what was in force stays.
    pub fn publish_mesh(
        &self, batch: &MeshBatch, wanted: &BTreeSet<ResourceKey>,
    ) -> Result<(), Refused> {
        self.accepts(batch)?;
        self.change(|now| {
            let next = now.with_batch(batch.revision, batch.full, batch.resources.clone());
            // Revisions rise only here, in one task: a batch that was new enough still is.
            let mut next = next.unwrap_or_else(|| now.clone());
            next.retain(|key| wanted.contains(key));
            next
        });
        Ok(())
    }

    /// Whether [`Self::publish_mesh`] would put `batch` in force.
    ///
    /// # Errors
    /// [`Refused`], why not.
    pub fn accepts(&self, batch: &MeshBatch) -> Result<(), Refused> {
        check(batch, self.snapshot.load().revision)
    }

    /// Puts the host's own instances in force, and keeps what servers sent; says whether that
    /// changed anything.
    pub fn publish_local(&self, hosted: &Hosted) -> bool {
        if self.snapshot.load().hosted == *hosted {
            return false;
        }
        self.change(|now| ProxySnapshot { hosted: hosted.clone(), ..now.clone() });
        true
    }

    fn change(&self, change: impl Fn(&ProxySnapshot) -> ProxySnapshot) {
        self.snapshot.rcu(|now| change(now));
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Counts what was published; changes with each.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Asks for `service`, which a local caller wants to call and nobody declared. Says whether
    /// it is, or already was, taken note of: there is a bound.
    pub fn want(&self, service: &ServiceName) -> bool {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.contains(service) {
            return true;
        }
        if wanted.len() >= WANTED_MAX {
            // names that turned out to be nobody's make room
            let held = self.snapshot.load();
            let instances =
                |name: &ServiceName| held.endpoints.get(name).map_or(0, |of| of.endpoints.len());
            wanted.retain(|name| instances(name) > 0);
        }
        if wanted.len() >= WANTED_MAX {
            return false;
        }
        wanted.insert(service.clone());
        drop(wanted);
        self.wanted_changed.send_modify(|count| *count += 1);
        true
    }

    /// The services asked for by first use.
    pub fn wanted(&self) -> BTreeSet<ServiceName> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes whenever [`Self::wanted`] does.
    pub fn wanted_changed(&self) -> watch::Receiver<u64> {
        self.wanted_changed.subscribe()
    }
}

fn check(batch: &MeshBatch, held: Revision) -> Result<(), Refused> {
    let found = batch.revision;
    if found < held {
        return Err(Refused::Older { found, held });
    }
    if found.epoch > held.epoch && !batch.full && held != Revision::ZERO {
        return Err(Refused::EpochNotFull { found, held: held.epoch });
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use mesh_core::catalog::Health;
    use mesh_core::resource::ServiceEndpoints;
    use mesh_core::snapshot::HostIdentity;
    use mesh_core::trust::{Bundle, CertDer};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn empty() -> ProxySnapshot {
        let trust_domain: mesh_core::identity::TrustDomain = "td".parse().unwrap();
        let host = HostIdentity {
            trust_domain: trust_domain.clone(),
            datacenter: "dc1".parse().unwrap(),
            node: "web-7".parse().unwrap(),
        };
        let bundle = Bundle { trust_domain, roots: vec![CertDer(vec![1])], revoked: vec![] };
        ProxySnapshot::empty(host, bundle)
    }

    pub(crate) fn endpoints(service: &str, revision: Revision) -> Resource {
        let service = service.parse().unwrap();
        Resource::Endpoints(ServiceEndpoints { service, revision, endpoints: vec![] })
    }

    fn batch(epoch: u64, index: u64, full: bool, services: &[&str]) -> MeshBatch {
        let revision = Revision::new(epoch, index);
        let resources = services.iter().map(|s| endpoints(s, revision)).collect();
        MeshBatch { revision, full, resources }
    }

    fn all(services: &[&str]) -> BTreeSet<ResourceKey> {
        services.iter().map(|s| ResourceKey::Endpoints(s.parse().unwrap())).collect()
    }

    fn hosted() -> Hosted {
        let id: InstanceId = "web-1".parse().unwrap();
        let instance = HostedInstance {
            id: id.clone(),
            service: "web".parse().unwrap(),
            address: "127.0.0.1:80".parse().unwrap(),
            health: Health::Passing,
            exclusive: false,
            upstreams: vec![],
        };
        BTreeMap::from([(id, Arc::new(instance))])
    }

    #[test]
    fn names_that_are_nobodys_do_not_use_up_first_use() {
        let live = Live::new(empty());
        for number in 0..WANTED_MAX + 10 {
            assert!(live.want(&format!("nobody-{number}").parse().unwrap()), "{number}");
        }
        assert!(live.wanted().len() <= WANTED_MAX);
    }

    #[test]
    fn mesh_and_local_parts_keep_each_other() {
        let live = Live::new(empty());
        let changed = live.changed();
        assert!(live.publish_local(&hosted()));
        assert!(!live.publish_local(&hosted()), "nothing new");
        live.publish_mesh(&batch(1, 5, false, &["a", "b"]), &all(&["a"])).unwrap();
        let now = live.load();
        assert_eq!(now.hosted, hosted());
        assert_eq!(now.endpoints.len(), 1, "b is not wanted");
        assert_eq!(*changed.borrow(), 2);
    }

    #[test]
    fn older_and_partial_epochs_are_refused() {
        let live = Live::new(empty());
        let wanted = all(&["a", "b"]);
        live.publish_mesh(&batch(1, 5, true, &["a"]), &wanted).unwrap();
        let older = live.publish_mesh(&batch(1, 4, false, &["b"]), &wanted);
        assert!(matches!(older, Err(Refused::Older { .. })));
        let partial = live.publish_mesh(&batch(2, 1, false, &["b"]), &wanted);
        assert!(matches!(partial, Err(Refused::EpochNotFull { .. })));
        live.publish_mesh(&batch(2, 1, true, &["b"]), &wanted).unwrap();
        let held: Vec<_> = live.load().endpoints.keys().cloned().collect();
        assert_eq!(held, ["b".parse().unwrap()], "a full batch drops the rest");
    }

    proptest! {
        #[test]
        fn revisions_never_fall(
            batches in prop::collection::vec((0..3u64, 0..9u64, any::<bool>()), 0..40)
        ) {
            let live = Live::new(empty());
            for (epoch, index, full) in batches {
                let before = live.load().revision;
                let batch = batch(epoch, index, full, &["a"]);
                let accepted = live.publish_mesh(&batch, &all(&["a"])).is_ok();
                let after = live.load().revision;
                prop_assert!(after >= before);
                prop_assert_eq!(after, if accepted { batch.revision } else { before });
            }
        }
    }
}
