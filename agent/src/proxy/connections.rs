//! The registry of open connections: entered before they are decided, decided again when policy,
//! revocation or identity changes. What is now denied is closed, and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use http::{HeaderMap, Method};
use mesh_core::access::{AccessRequest, HttpRequest, decide};
use mesh_core::name::ServiceName;
use mesh_core::resource::ServiceAccess;
use mesh_core::snapshot::ProxySnapshot;
use mesh_net::tls::{PeerIdentity, TrustStore};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::Proxy;
use crate::limits::proxy::APP_PRUNE_EVERY;

/// What is open.
#[derive(Debug)]
pub(super) struct Connections {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Entry>>,
    idle: Notify,
}

/// What to check of an open connection.
#[derive(Clone, Debug)]
pub(super) enum Check {
    /// Accepted, and not yet known whose it is: a handshake, or a local caller.
    Opening,
    /// A link with another agent: its peer must not be revoked. Its streams check for themselves.
    Link(Arc<PeerIdentity>),
    /// A TCP connection to a service of this host: its caller must be allowed.
    Tcp {
        /// Who called.
        peer: Arc<PeerIdentity>,
        /// The service.
        service: ServiceName,
    },
    /// An HTTP exchange with a service of this host, which may last: the same.
    Http {
        /// Who called.
        peer: Arc<PeerIdentity>,
        /// The service.
        service: ServiceName,
        /// What is asked.
        asked: Arc<Asked>,
    },
    /// A connection of a local caller that acts as this service, or as the node: that must still
    /// be of this host. The rest the callee's agent decides.
    Local(Option<ServiceName>),
}

/// The parts of a request that rules look at.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// Upper case.
    pub(super) method: Method,
    /// Canonical, without the query.
    pub(super) path: String,
    /// All that the application sees.
    pub(super) headers: HeaderMap,
}

#[derive(Debug)]
struct Entry {
    check: Check,
    close: CancellationToken,
}

/// Keeps a connection in the registry until dropped.
#[derive(Debug)]
pub(super) struct Registered {
    id: u64,
    connections: Arc<Connections>,
    /// Cancelled when the connection must close.
    pub(super) close: CancellationToken,
}

impl Connections {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { next: AtomicU64::new(0), open: Mutex::default(), idle: Notify::new() })
    }

    /// Enters a connection. Enter it before deciding on it: a change in between is then seen by
    /// the next check.
    pub(super) fn register(self: &Arc<Self>, check: Check) -> Registered {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let close = CancellationToken::new();
        self.lock().insert(id, Entry { check, close: close.clone() });
        Registered { id, connections: Arc::clone(self), close }
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.lock().len()
    }

    /// Waits until none is open. Cancel safe.
    pub(super) async fn idle(&self) {
        self.none(|_| true).await;
    }

    /// Waits until no local caller is connected. Cancel safe.
    pub(super) async fn callers_gone(&self) {
        self.none(|check| matches!(check, Check::Opening | Check::Local(_))).await;
    }

    async fn none(&self, counts: fn(&Check) -> bool) {
        loop {
            // from its creation on it hears of every change
            let changed = self.idle.notified();
            if !self.lock().values().any(|entry| counts(&entry.check)) {
                return;
            }
            changed.await;
        }
    }

    /// Closes what `snapshot` and `trust` now deny; says how many.
    fn recheck(&self, snapshot: &ProxySnapshot, trust: &TrustStore) -> usize {
        let open = self.lock();
        let denied = open.values().filter(|entry| is_denied(&entry.check, snapshot, trust));
        denied.inspect(|entry| entry.close.cancel()).count()
    }

    /// Keeps everybody from entering, until dropped.
    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Sized {
        self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Entry>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_denied(check: &Check, snapshot: &ProxySnapshot, trust: &TrustStore) -> bool {
    match check {
        Check::Opening => false,
        Check::Link(peer) => trust.is_revoked(peer),
        Check::Tcp { peer, service } => {
            trust.is_revoked(peer) || !allows(snapshot.access.get(service), peer, None)
        }
        Check::Http { peer, service, asked } => {
            trust.is_revoked(peer) || !allows(snapshot.access.get(service), peer, Some(asked))
        }
        Check::Local(Some(service)) => snapshot.instances_of(service).next().is_none(),
        Check::Local(None) => false,
    }
}

/// Whether the access in force still lets the call through: the protocol too is decided anew.
fn allows(access: Option<&Arc<ServiceAccess>>, peer: &PeerIdentity, asked: Option<&Asked>) -> bool {
    let Some(access) = access else { return false };
    if access.protocol.unwrap_or_default().is_http() != asked.is_some() {
        return false;
    }
    let fields = asked.map(Asked::fields);
    let http = asked.zip(fields.as_deref()).map(|(asked, headers)| asked.request(headers));
    decide(access, &AccessRequest { caller: &peer.id, http }).allowed
}

impl Asked {
    /// The headers as rules see them.
    pub(super) fn fields(&self) -> Vec<(&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }

    /// The request as rules see it.
    pub(super) fn request<'a>(&'a self, headers: &'a [(&'a str, &'a [u8])]) -> HttpRequest<'a> {
        HttpRequest { method: self.method.as_str(), path: &self.path, headers }
    }
}

impl Registered {
    /// Changes what is checked, now that more is known of the connection.
    pub(super) fn becomes(&self, check: Check) {
        if let Some(entry) = self.connections.lock().get_mut(&self.id) {
            entry.check = check;
        }
        self.connections.idle.notify_waiters();
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.id);
        self.connections.idle.notify_waiters();
    }
}

impl Proxy {
    /// Enters a call, and only then loads the snapshot that it is decided by: a change is in that
    /// snapshot, or is seen by the next check.
    pub(super) fn enter(&self, check: Check) -> (Registered, Arc<ProxySnapshot>) {
        let registered = self.connections.register(check);
        (registered, self.load())
    }
}

/// Checks what is open at every change of the snapshot, until the proxy ends.
pub(super) async fn recheck(workers: Arc<[Arc<Proxy>]>, mut changed: watch::Receiver<u64>) {
    loop {
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(APP_PRUNE_EVERY) => {
                workers.iter().for_each(|worker| worker.apps.prune());
                continue;
            }
        }
        let snapshot = workers[0].load();
        let all = snapshot.endpoints.values().flat_map(|of| &of.endpoints);
        let addresses = all.map(|endpoint| endpoint.address).collect();
        let trust = workers[0].identities.trust();
        let mut closed = 0;
        for worker in &*workers {
            worker.endpoints.reconcile(&snapshot);
            worker.links.reconcile(&addresses);
            closed += worker.connections.recheck(&snapshot, &trust);
        }
        if closed > 0 {
            tracing::info!(closed, revision = %snapshot.revision, "closed connections that are now denied");
        }
    }
}
