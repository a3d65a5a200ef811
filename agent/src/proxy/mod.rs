//! The data path. It sees compiled types and the live snapshot, never policy or the catalog.
//!
//! A call in stages, one function each: at the caller accept → identify → route → pick → send
//! ([`outbound`]), at the callee accept → verify → decide → send ([`inbound`]), observed at both
//! ([`observe`]).

mod admit;
mod body;
mod connections;
mod endpoints;
mod headers;
mod inbound;
mod listener;
mod observe;
mod outbound;
mod pool;
mod refusal;
mod tcp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::snapshot::ProxySnapshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use listener::ListenerState;
pub use observe::{AccessLog, ProxyMetrics};

use crate::callers::Callers;
use crate::edge::http1;
use crate::identity::Identities;
use crate::live::Live;

/// What a caller that is known but matches no service may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalCallers {
    /// Nothing.
    #[default]
    Deny,
    /// Call as the node.
    Node,
}

/// What bounds the proxy; every wait and queue of it.
#[derive(Clone, Copy, Debug)]
pub struct ProxyLimits {
    /// Connections accepted by one listener at a time.
    pub connections_max: usize,
    /// For a TLS handshake, and a link's greeting.
    pub handshake: Duration,
    /// For the head of a request, from its first byte on.
    pub head: Duration,
    /// How long a kept connection may rest. Longer than clients usually keep theirs, for one that
    /// is closed here just as the client sends on it is a lost request.
    pub rest: Duration,
    /// A connection on which nothing moves either way is closed after this.
    pub idle: Duration,
    /// At shutdown, for what is in flight.
    pub drain: Duration,
    /// How long a first use of an undeclared service waits for its routes.
    pub first_use: Duration,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self {
            connections_max: 8_000,
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(10),
            rest: Duration::from_secs(75),
            idle: Duration::from_secs(3600),
            drain: Duration::from_secs(5),
            first_use: Duration::from_secs(2),
        }
    }
}

/// What the proxy is given.
#[derive(Debug)]
pub struct ProxyDeps {
    /// The config in force.
    pub live: Arc<Live>,
    /// Certificates and trust.
    pub identities: Arc<Identities>,
    /// Who is calling on this host.
    pub callers: Arc<Callers>,
    /// Counters.
    pub metrics: ProxyMetrics,
    /// What is logged.
    pub access_log: AccessLog,
    /// See [`LocalCallers`].
    pub local_callers: LocalCallers,
    /// Where other agents connect.
    pub inbound: SocketAddr,
    /// Where local callers connect to be routed by Host; `None` for nowhere.
    pub http: Option<SocketAddr>,
    /// The DNS zone whose names the Host header may carry, such as `mesh`.
    pub zone: String,
    /// Bounds.
    pub limits: ProxyLimits,
    /// Ends the proxy: it drains, then stops.
    pub shutdown: CancellationToken,
}

/// Shared by every task of the proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    live: Arc<Live>,
    identities: Arc<Identities>,
    callers: Arc<Callers>,
    metrics: ProxyMetrics,
    access_log: AccessLog,
    local_callers: LocalCallers,
    zone: String,
    limits: ProxyLimits,
    endpoints: endpoints::Endpoints,
    connections: Arc<connections::Connections>,
    links: pool::Links,
    apps: Arc<http1::Client>,
    tasks: TaskTracker,
    /// The loops that accept, so that the drain knows when nothing more comes.
    accepting: TaskTracker,
    /// Stop accepting.
    closing: CancellationToken,
    /// Stop everything: the drain is over.
    ending: CancellationToken,
}

impl Proxy {
    fn load(&self) -> Arc<ProxySnapshot> {
        self.live.load()
    }

    /// Runs `work` as a task that [`ProxyHandle::stopped`] awaits, and that ends with the proxy.
    fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let ending = self.ending.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = ending.cancelled() => {}
            }
        });
    }

    /// [`Self::spawn`] for a loop that accepts connections until [`Proxy::closing`].
    fn spawn_accepting(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn(self.accepting.track_future(work));
    }
}

/// A running proxy.
#[derive(Debug)]
pub struct ProxyHandle {
    proxy: Arc<Proxy>,
    states: tokio::sync::watch::Receiver<Vec<ListenerState>>,
    inbound: SocketAddr,
    http: Option<SocketAddr>,
}

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// A fixed listener could not be bound.
    #[error(
        "cannot listen on {address} for {purpose}; is another process on it? change {key} in agent.toml or stop that process"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// For what.
        purpose: &'static str,
        /// The key of agent.toml that sets it.
        key: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The TLS side could not be set up.
    #[error("cannot set up TLS for the inbound listener")]
    Tls(#[source] mesh_net::tls::TlsError),
}

/// Binds the fixed listeners and starts serving; explicit ports follow the snapshot.
///
/// # Errors
/// [`ProxyError`] if a fixed listener cannot be had.
pub async fn start(deps: ProxyDeps) -> Result<ProxyHandle, ProxyError> {
    let inbound = listener::bind(deps.inbound).await.map_err(|source| ProxyError::Bind {
        address: deps.inbound,
        purpose: "connections from other agents",
        key: "inbound",
        source,
    })?;
    let http = match deps.http {
        None => None,
        Some(address) => Some(listener::bind(address).await.map_err(|source| {
            ProxyError::Bind { address, purpose: "local HTTP calls", key: "http", source }
        })?),
    };
    let acceptor = inbound::acceptor(&deps.identities).map_err(ProxyError::Tls)?;
    let address_of = |l: &tokio::net::TcpListener| l.local_addr().ok();
    let inbound_address = address_of(&inbound).unwrap_or(deps.inbound);
    let http_address = http.as_ref().and_then(address_of);
    let proxy = Arc::new(Proxy {
        live: deps.live,
        identities: deps.identities,
        callers: deps.callers,
        metrics: deps.metrics,
        access_log: deps.access_log,
        local_callers: deps.local_callers,
        zone: deps.zone,
        limits: deps.limits,
        endpoints: endpoints::Endpoints::new(),
        connections: connections::Connections::new(),
        links: pool::Links::new(),
        apps: Arc::default(),
        tasks: TaskTracker::new(),
        accepting: TaskTracker::new(),
        closing: deps.shutdown.clone(),
        ending: CancellationToken::new(),
    });
    proxy.spawn_accepting(inbound::serve(Arc::clone(&proxy), inbound, acceptor));
    if let Some(http) = http {
        proxy.spawn_accepting(outbound::serve_http_listener(Arc::clone(&proxy), http));
    }
    let (sender, states) = tokio::sync::watch::channel(Vec::new());
    proxy.spawn_accepting(listener::follow(Arc::clone(&proxy), sender));
    let changed = proxy.live.changed();
    proxy.spawn(connections::recheck(Arc::clone(&proxy), changed));
    Ok(ProxyHandle { proxy, states, inbound: inbound_address, http: http_address })
}

impl ProxyHandle {
    /// Where other agents connect.
    pub fn inbound(&self) -> SocketAddr {
        self.inbound
    }

    /// Where local callers connect to be routed by Host.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The explicit ports, bound or with the reason why not.
    pub fn listeners(&self) -> Vec<ListenerState> {
        self.states.borrow().clone()
    }

    /// Waits until the shutdown token is cancelled, what is in flight is done, or the drain's time
    /// is over; then ends what is left.
    pub async fn stopped(self) {
        let Self { proxy, .. } = self;
        proxy.closing.cancelled().await;
        proxy.tasks.close();
        proxy.accepting.close();
        let draining = async {
            // in this order: what was accepted is registered, and local callers need links
            proxy.accepting.wait().await;
            proxy.connections.callers_gone().await;
            proxy.links.close_gracefully();
            proxy.connections.idle().await;
        };
        let drained = tokio::time::timeout(proxy.limits.drain, draining).await;
        if drained.is_err() {
            tracing::warn!(open = proxy.connections.open(), "drain time is over, closing the rest");
        }
        proxy.ending.cancel();
        proxy.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests;
