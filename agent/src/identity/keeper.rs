//! The keeper: renews the node's certificate, gets and renews one for each local service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::api::{IssueRequest, RenewRequest};
use mesh_core::name::ServiceName;
use mesh_core::time::UnixMillis;
use mesh_net::client::ClientError;
use mesh_net::csr;
use mesh_net::telemetry::Chain;
use mesh_net::tls::Svid;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::store::KeptSvid;
use super::{Enrolled, Identities, IdentityStore, StoreError, leaf, renew_at};
use crate::Clock;
use crate::control::Clients;
use crate::control::backoff;
use crate::host::HostState;
use crate::limits::identity::{UNUSED_GRACE_MS, WAIT_LEAST, WAIT_MOST};
use crate::status::Board;

/// What the keeper works with.
pub(crate) struct Keeper {
    pub(crate) identities: Arc<Identities>,
    pub(crate) store: IdentityStore,
    pub(crate) enrolled: Enrolled,
    pub(crate) clients: Arc<Clients>,
    pub(crate) host: watch::Receiver<Arc<HostState>>,
    /// Changes when instances were registered: their services can have certificates from then on.
    pub(crate) registered: watch::Receiver<u64>,
    pub(crate) board: Arc<Board>,
    pub(crate) clock: Clock,
}

/// Whose certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Node,
    Service(ServiceName),
}

/// When an owner's certificate is tried next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    due: UnixMillis,
    /// Failures since the last success.
    attempt: u32,
    /// Since when its service has no instance here.
    unused: Option<UnixMillis>,
}

/// Keeps every certificate fresh until `shutdown`. What is under way then is dropped: a request
/// that a server carried out meanwhile costs one unused certificate.
pub(crate) async fn run(mut keeper: Keeper, shutdown: CancellationToken) {
    let mut slots = BTreeMap::new();
    let node = keeper.identities.node().current();
    slots.insert(Owner::Node, Slot::after(&node));
    keeper.restore(&mut slots);
    keeper.show();
    let stopped = shutdown.clone();
    let work = async {
        loop {
            let now = (keeper.clock)();
            let host = keeper.host.borrow_and_update().clone();
            follow(&mut slots, &host.services(), now);
            keeper.forget(&mut slots, now);
            let due: Vec<Owner> =
                slots.iter().filter(|(_, slot)| slot.due <= now).map(|(o, _)| o.clone()).collect();
            keeper.round(&mut slots, due).await;
            keeper.show();
            keeper.wait(&mut slots).await;
        }
    };
    let _: Option<()> = stopped.run_until_cancelled(work).await;
}

impl Slot {
    fn new(due: UnixMillis) -> Self {
        Self { due, attempt: 0, unused: None }
    }

    /// The slot of a certificate that is held.
    fn after(svid: &Svid) -> Self {
        let at = renew_at(svid.not_before, svid.not_after, backoff::random_permille());
        // One that cannot be understood is renewed at once.
        Self::new(at.unwrap_or_default())
    }
}

/// Gives each of `services` a slot, and marks those of others as unused.
fn follow(slots: &mut BTreeMap<Owner, Slot>, services: &[ServiceName], now: UnixMillis) {
    for service in services {
        let slot = slots.entry(Owner::Service(service.clone())).or_insert(Slot::new(now));
        slot.unused = None;
    }
    for (owner, slot) in slots.iter_mut() {
        match owner {
            Owner::Service(service) if !services.contains(service) => {
                slot.unused.get_or_insert(now);
                slot.due = UnixMillis(u64::MAX);
            }
            Owner::Service(_) if slot.due == UnixMillis(u64::MAX) => slot.due = now,
            Owner::Service(_) | Owner::Node => {}
        }
    }
}

impl Keeper {
    /// Puts the certificates of the process before in force.
    fn restore(&self, slots: &mut BTreeMap<Owner, Slot>) {
        let now = (self.clock)();
        for service in self.host.borrow().services() {
            let kept = match self.store.svid(&service) {
                Ok(Some(kept)) => kept,
                Ok(None) => continue,
                Err(why) => {
                    tracing::warn!(%service, "kept certificate is not used: {}", Chain(&why));
                    continue;
                }
            };
            let expected = self.enrolled.host.service_id(&service);
            match leaf(&kept.chain_pem, &kept.key_der, &expected) {
                Ok(svid) if svid.not_after > now => {
                    slots.insert(Owner::Service(service.clone()), Slot::after(&svid));
                    self.identities.put(&service, svid);
                }
                Ok(_) => tracing::info!(%service, "kept certificate has expired"),
                Err(why) => {
                    tracing::warn!(%service, "kept certificate is not used: {}", Chain(&why));
                }
            }
        }
    }

    /// Forgets what has been unused for long: a file that is written anew must not cost its
    /// service the certificate.
    fn forget(&self, slots: &mut BTreeMap<Owner, Slot>, now: UnixMillis) {
        slots.retain(|owner, slot| {
            let Owner::Service(service) = owner else { return true };
            let keep = slot.unused.is_none_or(|since| now.since(since) < UNUSED_GRACE_MS);
            if !keep {
                self.identities.remove(service);
                self.store.remove_svid(service);
            }
            keep
        });
    }

    /// Tries those that are due. If no server can be reached for one, the others wait with it.
    async fn round(&mut self, slots: &mut BTreeMap<Owner, Slot>, due: Vec<Owner>) {
        let mut due = due.into_iter();
        while let Some(owner) = due.next() {
            let Err(Failure { reached: false, .. }) = self.attempt(slots, &owner).await else {
                continue;
            };
            let again = slots.get(&owner).map(|slot| slot.due).unwrap_or_default();
            for other in due.by_ref() {
                slots.entry(other).and_modify(|slot| slot.due = again);
            }
        }
    }

    async fn attempt(
        &mut self, slots: &mut BTreeMap<Owner, Slot>, owner: &Owner,
    ) -> Result<(), Failure> {
        let renewed = match owner {
            Owner::Node => self.renew_node().await,
            Owner::Service(service) => self.issue(service).await,
        };
        let Some(slot) = slots.get_mut(owner) else { return Ok(()) };
        let name = owner.name();
        match renewed {
            Ok(svid) => {
                *slot = Slot::after(&svid);
                tracing::info!(id = %svid.id, until = %svid.not_after, "certificate is in force");
                self.board.update(|status| drop(status.identity_errors.remove(&name)));
                Ok(())
            }
            Err(failure) => {
                slot.attempt = slot.attempt.saturating_add(1);
                let wait = backoff::wait_before(slot.attempt, backoff::random_permille());
                slot.due = (self.clock)().plus(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                let why = failure.why.clone();
                if slot.attempt == 1 {
                    tracing::warn!(of = %name, "certificate cannot be had or renewed: {why}");
                }
                self.board.update(|status| drop(status.identity_errors.insert(name, why)));
                Err(failure)
            }
        }
    }

    async fn renew_node(&mut self) -> Result<Arc<Svid>, Failure> {
        let key = self.store.node_key()?.ok_or_else(|| Failure::here("the node's key is gone"))?;
        let csr_pem = csr::csr_for(&key)?;
        // A connection that was opened with an expired certificate stays one of an expired node,
        // so that renewal has a client of its own.
        let answer = self.clients.fresh()?.renew(&RenewRequest { csr_pem }).await?;
        let svid = leaf(&answer.chain_pem, &key, &self.enrolled.host.node_id())?;
        self.enrolled.chain_pem = answer.chain_pem;
        self.enrolled.roots_pem = answer.roots_pem;
        self.enrolled.servers = self.clients.addresses();
        let (store, enrolled) = (self.store.clone(), self.enrolled.clone());
        on_disk(move || store.put_enrolled(&enrolled)).await?;
        self.identities.node().swap(svid);
        self.clients.renew();
        Ok(self.identities.node().current())
    }

    async fn issue(&self, service: &ServiceName) -> Result<Arc<Svid>, Failure> {
        let (key, csr_pem) = csr::generate()?;
        let request = IssueRequest { service: service.clone(), csr_pem };
        let answer = self.clients.current().issue(&request).await?;
        let svid = leaf(&answer.chain_pem, &key, &self.enrolled.host.service_id(service))?;
        let kept = KeptSvid { chain_pem: answer.chain_pem, key_der: key.to_vec() };
        let (store, name) = (self.store.clone(), service.clone());
        on_disk(move || store.put_svid(&name, &kept)).await?;
        self.identities.put(service, svid);
        let source = self.identities.service(service);
        source.map(|s| s.current()).ok_or_else(|| Failure::here("identity was taken back"))
    }

    /// Waits until something is due, or changed.
    async fn wait(&mut self, slots: &mut BTreeMap<Owner, Slot>) {
        let now = (self.clock)();
        let next = slots.values().map(|slot| slot.due.since(now)).min().unwrap_or(u64::MAX);
        // The wall clock may jump, so that it is looked at from time to time.
        let next = Duration::from_millis(next).clamp(WAIT_LEAST, WAIT_MOST);
        // Cancel safe: nothing is taken. A closed channel means that the agent stops.
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            changed = self.host.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            changed = self.registered.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
                let missing = |owner: &Owner| match owner {
                    Owner::Service(service) => self.identities.service(service).is_none(),
                    Owner::Node => false,
                };
                for (_, slot) in slots.iter_mut().filter(|(o, s)| missing(o) && s.unused.is_none()) {
                    slot.due = now;
                }
            }
        }
    }

    fn show(&self) {
        let leaves = self.identities.leaves();
        let names: Vec<String> = self.identities_wanted();
        self.board.update(|status| {
            status.leaves = leaves;
            status.identity_errors.retain(|name, _| names.contains(name));
        });
    }

    fn identities_wanted(&self) -> Vec<String> {
        let services = self.host.borrow().services();
        std::iter::once(Owner::Node)
            .chain(services.into_iter().map(Owner::Service))
            .map(|owner| owner.name())
            .collect()
    }
}

/// Why a certificate was not had.
struct Failure {
    why: String,
    /// Whether a server was reached, or none was needed to fail.
    reached: bool,
}

impl Failure {
    fn here(why: &str) -> Self {
        Self { why: why.to_owned(), reached: true }
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let error: &(dyn std::error::Error + 'static) = &error;
        let client = error.downcast_ref::<ClientError>();
        let reached = client.is_none_or(|client| client.api().is_some());
        Self { why: Chain(error).to_string(), reached }
    }
}

/// Writes on a thread that may block.
async fn on_disk(
    write: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
) -> Result<(), Failure> {
    match tokio::task::spawn_blocking(write).await {
        Ok(written) => Ok(written?),
        Err(why) => Err(why.into()),
    }
}

impl Owner {
    fn name(&self) -> String {
        match self {
            Self::Node => "node".to_owned(),
            Self::Service(service) => format!("service {service}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn slots_follow_the_services() {
        let service = |name: &str| name.parse::<ServiceName>().unwrap();
        let owner = |name: &str| Owner::Service(service(name));
        let mut slots = BTreeMap::from([(Owner::Node, Slot::new(UnixMillis(9_000)))]);
        follow(&mut slots, &[service("web")], UnixMillis(10));
        assert_eq!(slots[&owner("web")].due, UnixMillis(10), "at once");
        slots.get_mut(&owner("web")).unwrap().due = UnixMillis(5_000);
        follow(&mut slots, &[service("web")], UnixMillis(20));
        assert_eq!(slots[&owner("web")].due, UnixMillis(5_000), "stays");

        follow(&mut slots, &[], UnixMillis(30));
        follow(&mut slots, &[], UnixMillis(40));
        let gone = slots[&owner("web")];
        assert_eq!((gone.unused, gone.due), (Some(UnixMillis(30)), UnixMillis(u64::MAX)));
        follow(&mut slots, &[service("web")], UnixMillis(50));
        let back = slots[&owner("web")];
        assert_eq!((back.unused, back.due), (None, UnixMillis(50)), "looked at again");
        assert_eq!(slots[&Owner::Node].due, UnixMillis(9_000));
    }
}
