//! The data path. It sees compiled types and the live snapshot, never policy or the catalog.
//!
//! A call in stages, one function each: at the caller accept → identify → route → pick → send
//! ([`outbound`]), at the callee accept → verify → decide → send ([`inbound`]), observed at both
//! ([`observe`]).

mod admit;
mod body;
mod connections;
mod endpoints;
mod grpc;
mod headers;
mod inbound;
mod listener;
mod observe;
mod outbound;
mod pool;
mod refusal;
mod tcp;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use mesh_core::snapshot::ProxySnapshot;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use listener::ListenerState;
pub use observe::{AccessLog, ProxyMetrics};

use crate::callers::Callers;
use crate::edge::{http1, http2};
use crate::identity::Identities;
use crate::limits::proxy::LINKS_MAX;
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
    /// Threads that carry calls, at least one.
    pub workers: usize,
    /// Ends the proxy: it drains, then stops.
    pub shutdown: CancellationToken,
}

/// One worker of the proxy, shared by all its tasks: what is config and what is counted belongs to
/// the host, what was learned and what is pooled to the worker.
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
    known: observe::Known,
    endpoints: endpoints::Endpoints,
    connections: Arc<connections::Connections>,
    links: pool::Links,
    apps: Arc<http1::Client>,
    h2_apps: http2::Client,
    /// The runtime that its tasks run on, and end with.
    runtime: Handle,
    /// What accepts, so that the drain knows when nothing more comes.
    accepting: TaskTracker,
    /// Stop accepting.
    closing: CancellationToken,
}

impl Proxy {
    fn load(&self) -> Arc<ProxySnapshot> {
        self.live.load()
    }

    /// Runs `work` as a task of this worker, which ends with the worker at the latest.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }

    /// [`Self::spawn`] for a loop that accepts connections until [`Proxy::closing`].
    fn spawn_accepting(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn(self.accepting.track_future(work));
    }
}

/// A running proxy.
#[derive(Debug)]
pub struct ProxyHandle {
    workers: Arc<[Arc<Proxy>]>,
    threads: Vec<worker::Thread>,
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
    /// A worker could not be started.
    #[error("cannot start a worker of the proxy")]
    Worker(#[source] std::io::Error),
    /// The TLS side could not be set up.
    #[error("cannot set up TLS for the inbound listener")]
    Tls(#[source] mesh_net::tls::TlsError),
}

/// Binds the fixed listeners and starts serving; explicit ports follow the snapshot.
///
/// # Errors
/// [`ProxyError`] if a fixed listener cannot be had.
pub async fn start(deps: ProxyDeps) -> Result<ProxyHandle, ProxyError> {
    let inbound = listener::bind(deps.inbound).map_err(|source| ProxyError::Bind {
        address: deps.inbound,
        purpose: "connections from other agents",
        key: "inbound",
        source,
    })?;
    let http = match deps.http {
        None => None,
        Some(address) => Some(listener::bind(address).map_err(|source| ProxyError::Bind {
            address,
            purpose: "local HTTP calls",
            key: "http",
            source,
        })?),
    };
    let acceptor = inbound::acceptor(&deps.identities).map_err(ProxyError::Tls)?;
    let inbound_address = inbound.local_addr().unwrap_or(deps.inbound);
    let http_address = http.as_ref().and_then(|http| http.local_addr().ok());
    let (workers, threads) = start_workers(&deps).map_err(ProxyError::Worker)?;
    inbound::serve(&workers, &inbound, acceptor).map_err(ProxyError::Worker)?;
    if let Some(http) = http {
        outbound::serve_http_listener(&workers, &http).map_err(ProxyError::Worker)?;
    }
    let (sender, states) = tokio::sync::watch::channel(Vec::new());
    let first = &workers[0];
    first.spawn_accepting(listener::follow(Arc::clone(&workers), sender));
    first.spawn(connections::recheck(Arc::clone(&workers), first.live.changed()));
    Ok(ProxyHandle { workers, threads, states, inbound: inbound_address, http: http_address })
}

type Started = (Arc<[Arc<Proxy>]>, Vec<worker::Thread>);

/// Starts the workers, one at least.
fn start_workers(deps: &ProxyDeps) -> std::io::Result<Started> {
    let (mut workers, mut threads) = (Vec::new(), Vec::new());
    let accepting = TaskTracker::new();
    let count = deps.workers.max(1);
    for number in 0..count {
        let (thread, runtime) = worker::start(number)?;
        threads.push(thread);
        workers.push(Arc::new(Proxy {
            live: deps.live.clone(),
            identities: deps.identities.clone(),
            callers: deps.callers.clone(),
            metrics: deps.metrics.clone(),
            access_log: deps.access_log,
            local_callers: deps.local_callers,
            zone: deps.zone.clone(),
            limits: deps.limits,
            known: observe::Known::default(),
            endpoints: endpoints::Endpoints::new(),
            connections: connections::Connections::new(),
            links: pool::Links::new(LINKS_MAX / count),
            apps: Arc::default(),
            h2_apps: {
                let runtime = runtime.clone();
                http2::Client::new(move |work| drop(runtime.spawn(work)))
            },
            runtime,
            accepting: accepting.clone(),
            closing: deps.shutdown.clone(),
        }));
    }
    Ok((workers.into(), threads))
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
        let Self { workers, threads, .. } = self;
        let first = &workers[0];
        first.closing.cancelled().await;
        first.accepting.close();
        let draining = async {
            // in this order: what was accepted is registered, and local callers need links
            first.accepting.wait().await;
            join_all(workers.iter().map(|worker| worker.connections.callers_gone())).await;
            workers.iter().for_each(|worker| worker.links.close_gracefully());
            join_all(workers.iter().map(|worker| worker.connections.idle())).await;
        };
        let drained = tokio::time::timeout(first.limits.drain, draining).await;
        if drained.is_err() {
            let open: usize = workers.iter().map(|worker| worker.connections.open()).sum();
            tracing::warn!(open, "drain time is over, closing the rest");
        }
        let stop = move || threads.into_iter().for_each(worker::Thread::stop);
        if let Err(error) = tokio::task::spawn_blocking(stop).await {
            tracing::error!(%error, "a worker did not end well");
        }
    }
}

#[cfg(test)]
mod tests;
