//! Assembles a server and runs it: the only file that knows every part.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_net::tasks::{TaskError, Tasks};
use mesh_net::tls::{SvidSource, TrustStore};
use mesh_net::{clock, notify, open_files};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Budgets, Listener, bind};
use crate::ca::{Kek, KekError};
use crate::config::{Config, KekSource};
use crate::disk::Disk;
use crate::error::RunError;
use crate::lease::{self, Agents, App, Rules};
use crate::limits::run::{HAND_OVER_MAX, STOP_MAX, STREAMS_MAX};
use crate::membership;
use crate::metrics::Metrics;
use crate::raft::{Node, NodeFailed, Options, Parts, ServerIdentity, Start};
use crate::server::{self, IssuerCell, Server};
use crate::watch::Cache;

/// What a server gets from outside.
pub struct Deps {
    /// Where it registers its metrics.
    pub registry: Arc<Mutex<Registry>>,
    /// Tells it to stop.
    pub shutdown: CancellationToken,
    /// Whether to tell systemd how it goes.
    pub notify: bool,
}

impl Default for Deps {
    fn default() -> Self {
        Self { registry: Arc::default(), shutdown: CancellationToken::new(), notify: false }
    }
}

/// Runs a server that was set up before, until it is told to stop or fails.
///
/// # Errors
/// [`RunError`].
pub async fn run(config: Config, deps: Deps) -> Result<(), RunError> {
    start(config, deps).await?.wait().await
}

/// A server that serves.
pub struct Running {
    server: Arc<Server>,
    tasks: Tasks<Infallible>,
    shutdown: CancellationToken,
    notify: bool,
    api: SocketAddr,
}

/// Starts a server that was set up before; when this returns, its ports are open.
///
/// # Errors
/// [`RunError`]; nothing runs then.
pub async fn start(config: Config, deps: Deps) -> Result<Running, RunError> {
    let disk = Disk::new(&config.data_dir);
    let (me, svid, trust, kek) = {
        let (disk, config) = (disk.clone(), config.clone());
        tokio::task::spawn_blocking(move || read_disk(&disk, &config)).await??
    };
    let raft_listener = bind("raft", config.raft).await.map_err(Box::new)?;
    let connections = open_files::connections(config.limits.connections, open_files::raise());
    let listener = Listener::bind(config.api, &svid, &trust, connections);
    let listener = listener.await.map_err(Box::new)?;
    let api = listener.address().unwrap_or(config.api);
    // Join is Resume for a server that is a member, and waits for the leader otherwise.
    let parts = parts(&config, &disk, me, raft_listener, &svid, &trust);
    let node = Node::open(Start::Join, parts).await.map_err(Box::new)?;
    let server = assemble(&config, &deps, node, trust, kek);
    server.node.set_app(Arc::new(App(Arc::downgrade(&server))));
    if clock::now() >= svid.current().half_life() && server.node.state().mesh.is_some() {
        // It was off for long: others would not even shake hands with the old certificate.
        server::renew(&server, &svid, &disk).await;
    }
    let tasks = spawn(&server, listener, svid, disk);
    tracing::info!(server = %server.name, %api, raft = %config.raft, "serving");
    if deps.notify {
        notify::ready();
    }
    Ok(Running { server, tasks, shutdown: deps.shutdown, notify: deps.notify, api })
}

impl Running {
    /// Where the API listens: the port that the system chose, if the config asked for 0.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// Waits until the server is told to stop, or fails; then stops it.
    ///
    /// # Errors
    /// [`RunError`] if it failed, or did not stop well.
    pub async fn wait(mut self) -> Result<(), RunError> {
        let failed = self.server.node.failed();
        // All branches are cancel safe.
        let ended = tokio::select! {
            () = self.shutdown.cancelled() => Ok(()),
            NodeFailed(why) = failed => Err(RunError::Node(NodeFailed(why))),
            error = self.tasks.failure() => Err(RunError::Task(error)),
        };
        let stopped = self.stop().await;
        ended.and(stopped)
    }

    #[cfg(test)]
    pub(crate) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Hands leadership over, lets requests and streams end, closes the log.
    async fn stop(self) -> Result<(), RunError> {
        let Self { server, tasks, notify, .. } = self;
        if notify {
            notify::stopping();
        }
        tracing::info!(server = %server.name, "stopping");
        if server.node.is_leader() && server.node.members().iter().filter(|m| m.voter).count() > 1 {
            // While this server still answers, so that no write falls between two leaders.
            let handed = tokio::time::timeout(HAND_OVER_MAX, server.node.transfer(None)).await;
            if !matches!(handed, Ok(Ok(()))) {
                tracing::warn!("leadership was not handed over");
            }
        }
        server.stop.cancel();
        server.streams.close();
        let tasks = tasks.stop(STOP_MAX).await;
        if tokio::time::timeout(STREAMS_MAX, server.streams.wait()).await.is_err() {
            tracing::warn!(left = server.streams.len(), "streams did not end in time");
        }
        let closed = server.node.shutdown().await;
        match tasks {
            Ok(()) => {}
            // Cut off, and so stopped.
            Err(error @ TaskError::Slow { .. }) => tracing::warn!(%error, "slow to stop"),
            Err(error @ (TaskError::Failed { .. } | TaskError::Panicked { .. })) => {
                return Err(RunError::Task(error));
            }
        }
        closed.map_err(|error| RunError::Close(mesh_net::tls::describe(&error)))
    }
}

type Read = (ServerIdentity, Arc<SvidSource>, Arc<TrustStore>, Kek);

fn read_disk(disk: &Disk, config: &Config) -> Result<Read, RunError> {
    let me = disk.membership()?;
    let svid = disk.svid(&disk.key()?)?;
    let trust = disk.trust(&me)?;
    Ok((me, svid, trust, load_kek(config).map_err(Box::new)?))
}

/// Reads the key-encryption key from where the settings say it lies. Blocks.
pub(crate) fn load_kek(config: &Config) -> Result<Kek, KekError> {
    match &config.kek {
        KekSource::File(path) => Kek::load(path, &config.data_dir),
        KekSource::Credential => {
            Kek::load_credential(std::env::var_os("CREDENTIALS_DIRECTORY").as_deref())
        }
    }
}

/// What the Raft node is made of.
pub(crate) fn parts(
    config: &Config, disk: &Disk, identity: ServerIdentity, listener: TcpListener,
    svid: &Arc<SvidSource>, trust: &Arc<TrustStore>,
) -> Parts {
    let options = Options {
        timing: config.profile,
        checkpoint_every: config.checkpoint_every,
        checkpoint_bytes: config.checkpoint_bytes,
        ..Options::default()
    };
    Parts {
        dir: disk.raft(),
        identity,
        raft_address: config.raft_address.clone(),
        api_address: config.api_address.clone(),
        listener,
        svid: Arc::clone(svid),
        trust: Arc::clone(trust),
        clock: Arc::new(clock::now),
        options,
        #[cfg(test)]
        cut: Arc::default(),
    }
}

fn assemble(
    config: &Config, deps: &Deps, node: Node, trust: Arc<TrustStore>, kek: Kek,
) -> Arc<Server> {
    let metrics = {
        let registry = deps.registry.lock();
        Metrics::new(&mut registry.unwrap_or_else(std::sync::PoisonError::into_inner))
    };
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Arc::new(Server {
        name: node.name().clone(),
        agents: Agents::new(node.name().clone()),
        node,
        cache: Cache::default(),
        trust,
        budgets: Budgets::new(),
        watches: Semaphore::new(config.limits.watches),
        rules: Rules { heartbeat: millis(config.heartbeat), ttl: millis(config.lease) },
        metrics,
        registry: Arc::clone(&deps.registry),
        streams: TaskTracker::new(),
        stop: CancellationToken::new(),
        kek,
        issuer: IssuerCell::default(),
    })
}

fn spawn(
    server: &Arc<Server>, listener: Listener, svid: Arc<SvidSource>, disk: Disk,
) -> Tasks<Infallible> {
    let mut tasks = Tasks::new();
    let stop = || tasks.stop_signal();
    let (a, b, c, d, e) = (stop(), stop(), stop(), stop(), stop());
    let shared = || Arc::clone(server);
    tasks.spawn("api", api::serve(shared(), listener, a));
    tasks.spawn("trust", server::follow_trust(shared(), disk.clone(), b));
    tasks.spawn("certificate", server::renew_own(shared(), svid, disk, c));
    tasks.spawn("leases", lease::run(shared(), server.rules, d));
    tasks.spawn("membership", membership::run(shared(), e));
    tasks
}
