//! Puts an agent together, runs it, and takes it apart again.

mod announce;
mod start;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::api::AddressRequest;
use mesh_net::open_files;
use mesh_net::tasks::Tasks;
use mesh_net::tls::{Svid, SvidSource, TrustStore};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::callers::Callers;
use crate::config::Config;
use crate::control::cache::Cache;
use crate::control::register::Registrar;
use crate::control::stream::{Reports, Streamer};
use crate::control::{Clients, cache, register, stream};
use crate::error::RunError;
use crate::health::{self, HealthStore, Report};
use crate::host::local::{self, Local};
use crate::host::{self, HostCommand, HostState, Loader, exposed};
use crate::identity::{self, Enrolled, Identities, IdentityStore, Join, Keeper, load_or_enrol};
use crate::limits::run::{COMMANDS_MAX, STATUS_EVERY, STOP_WITHIN};
use crate::live::Live;
use crate::metrics::ControlMetrics;
use crate::proxy::{self, ListenerState, ProxyDeps, ProxyHandle, ProxyLimits, ProxyMetrics};
use crate::status::{Board, ListenerLine};
use crate::{Clock, generation};
use announce::announce;
use start::{advertised, first_snapshot, lock};

/// What an agent is given by whoever runs it.
pub struct Deps {
    /// The wall clock.
    pub clock: Clock,
    /// Where metrics are entered; shown by the admin listener.
    pub registry: Registry,
    /// Cancelled, the agent drains and stops.
    pub shutdown: CancellationToken,
}

/// Runs an agent until `deps.shutdown`.
///
/// Owns everything it starts: when it returns, nothing of it is left.
///
/// # Errors
/// [`RunError`] if it cannot start, or a part of it fails.
pub async fn run(config: Config, deps: Deps) -> Result<(), RunError> {
    let Deps { clock, registry, shutdown } = deps;
    let lock = lock(&config.data_dir)?;
    let address = advertised(&config)?;
    let store = IdentityStore::open(&config.data_dir)?;
    let join = Join {
        node: &config.node,
        servers: &config.servers,
        token_file: config.token_file.as_deref(),
        address,
        // One that the system chooses is told once it is known.
        port: Some(config.inbound.port()).filter(|port| *port != 0).unwrap_or(INBOUND_PORT),
    };
    let Some(joined) = shutdown.run_until_cancelled(load_or_enrol(&store, join)).await else {
        return Ok(());
    };
    let (enrolled, svid) = joined?;
    let generation = generation::next(&config.data_dir)?;
    let board = Board::new(config.node.clone(), generation, clock());
    let parts = Parts::new(config, enrolled, svid, store, Arc::new(board), clock)?;
    let result = parts.serve(address, generation, registry, shutdown).await;
    drop(lock);
    result
}

/// What the tasks of an agent share.
struct Parts {
    config: Config,
    enrolled: Enrolled,
    store: IdentityStore,
    identities: Arc<Identities>,
    clients: Arc<Clients>,
    live: Arc<Live>,
    cache: Cache,
    callers: Arc<Callers>,
    board: Arc<Board>,
    clock: Clock,
}

/// The cells through which tasks tell each other of changes.
struct Cells {
    host: watch::Sender<Arc<HostState>>,
    health: watch::Sender<Arc<Report>>,
    exposed: watch::Sender<Vec<mesh_core::stream::ExposedPort>>,
    connected: watch::Sender<u64>,
    registered: watch::Sender<u64>,
}

/// The listeners that are not the proxy's.
struct Listeners {
    socket: Option<UnixListener>,
    admin: Option<TcpListener>,
}

impl Parts {
    fn new(
        config: Config, enrolled: Enrolled, svid: Svid, store: IdentityStore, board: Arc<Board>,
        clock: Clock,
    ) -> Result<Self, RunError> {
        let (cache, found) = Cache::open(&config.data_dir, &enrolled.host);
        tracing::info!("{}", found.note);
        let snapshot = match found.snapshot {
            Some(snapshot) => snapshot,
            None => first_snapshot(&enrolled)?,
        };
        let trust = TrustStore::new(&snapshot.bundle).map_err(RunError::Trust)?;
        board.update(|status| {
            status.cache = found.note;
            status.revision = snapshot.revision;
        });
        let node = SvidSource::new(svid);
        let servers = config.servers.clone();
        let clients = Clients::new(node.clone(), trust.clone(), servers, &enrolled.servers)
            .map_err(RunError::Client)?;
        let callers = Callers::new(config.cgroup_root.clone(), Vec::new())?;
        Ok(Self {
            identities: Arc::new(Identities::new(node, trust)),
            clients: Arc::new(clients),
            live: Live::new(snapshot),
            callers: Arc::new(callers),
            config,
            enrolled,
            store,
            cache,
            board,
            clock,
        })
    }

    async fn serve(
        self, address: IpAddr, generation: u64, mut registry: Registry, shutdown: CancellationToken,
    ) -> Result<(), RunError> {
        let metrics = ControlMetrics::register(&mut registry);
        let proxy_metrics = ProxyMetrics::register(&mut registry);
        let mut loader = Loader::new(&self.config.services_dir, &self.config.data_dir);
        let found = loader.scan();
        let store = HealthStore::new(&self.config.data_dir);
        let cells = Cells::new(health::initial(&found, &store), found);
        let listeners = self.listen().await?;
        // The host's part is in force before the first connection is accepted.
        let mut local = self.local(&cells);
        local.publish();
        local.recognise(&mut Vec::new()).await;
        let proxy_stop = CancellationToken::new();
        let proxy = proxy::start(self.proxy(proxy_metrics, proxy_stop.clone())).await?;
        self.board.update(|status| status.listening = true);

        let inner = CancellationToken::new();
        let mut tasks = Tasks::new();
        let live = self.live.clone();
        let told = AddressRequest { address, port: proxy.inbound().port() };
        let board = self.board.clone();
        spawn(&mut tasks, "local", local::run(local, inner.clone()));
        self.spawn_host(&mut tasks, &cells, loader, listeners.socket, address, &inner);
        if let Some(listener) = listeners.admin {
            let admin = Admin {
                live: live.clone(),
                board: board.clone(),
                metrics: metrics.clone(),
                registry,
            };
            spawn(&mut tasks, "admin", crate::admin::serve(listener, admin, inner.clone()));
        }
        self.spawn_control(&mut tasks, cells, told, generation, metrics, &inner);
        spawn(&mut tasks, "ready", announce(board.clone(), inner.clone()));
        let stop_feeding = inner.clone();
        spawn(&mut tasks, "watchdog", async move {
            // What it shows is that the runtime still turns.
            let _ = stop_feeding.run_until_cancelled(mesh_net::notify::watchdog(|| true)).await;
        });

        let failed = loop {
            // Cancel safe: `failure` loses none, the others take nothing.
            tokio::select! {
                () = shutdown.cancelled() => break None,
                failure = tasks.failure() => break Some(failure),
                () = tokio::time::sleep(STATUS_EVERY) => show_listeners(&board, &proxy),
            }
        };
        mesh_net::notify::stopping();
        stop(proxy, &proxy_stop, tasks, &inner).await?;
        failed.map_or(Ok(()), |failure| Err(failure.into()))
    }

    async fn listen(&self) -> Result<Listeners, RunError> {
        let socket = self.config.socket.as_deref().map(host::bind).transpose()?;
        let admin = match self.config.admin {
            None => None,
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .map_err(|source| RunError::Admin { address, source })?,
            ),
        };
        Ok(Listeners { socket, admin })
    }

    fn local(&self, cells: &Cells) -> Local {
        Local {
            live: self.live.clone(),
            callers: self.callers.clone(),
            board: self.board.clone(),
            host: cells.host.subscribe(),
            health: cells.health.subscribe(),
            exposed: cells.exposed.subscribe(),
        }
    }

    fn proxy(&self, metrics: ProxyMetrics, shutdown: CancellationToken) -> ProxyDeps {
        let limits = &self.config.limits;
        ProxyDeps {
            live: self.live.clone(),
            identities: self.identities.clone(),
            callers: self.callers.clone(),
            metrics,
            access_log: self.config.access_log,
            local_callers: self.config.local_callers,
            inbound: self.config.inbound,
            http: self.config.http,
            zone: self.config.zone.clone(),
            workers: self.config.workers,
            limits: ProxyLimits {
                connections_max: open_files::connections(limits.connections, open_files::raise()),
                drain: limits.drain,
                ..ProxyLimits::default()
            },
            shutdown,
        }
    }

    /// What concerns this host alone: its files, its socket, its checks, its ports.
    fn spawn_host(
        &self, tasks: &mut Tasks<Infallible>, cells: &Cells, loader: Loader,
        socket: Option<UnixListener>, address: IpAddr, stop: &CancellationToken,
    ) {
        let (commands, taken) = mpsc::channel::<HostCommand>(COMMANDS_MAX);
        if let Some(listener) = socket {
            let (host, board) = (cells.host.subscribe(), self.board.clone());
            let service = host::Service { commands: commands.clone(), host, board };
            spawn(tasks, "socket", host::serve(listener, service, stop.clone()));
        }
        let work = host::run(loader, cells.host.clone(), taken, stop.clone());
        // Without a socket nobody else keeps the queue open.
        spawn(tasks, "host", async move {
            work.await;
            drop(commands);
        });
        let store = HealthStore::new(&self.config.data_dir);
        let work = health::run(cells.host.subscribe(), cells.health.clone(), store, stop.clone());
        spawn(tasks, "health", work);
        let (host, found) = (cells.host.subscribe(), cells.exposed.clone());
        spawn(tasks, "exposed", exposed::run(host, address, found, stop.clone()));
    }

    /// What concerns the servers.
    fn spawn_control(
        self, tasks: &mut Tasks<Infallible>, cells: Cells, address: AddressRequest,
        generation: u64, metrics: ControlMetrics, stop: &CancellationToken,
    ) {
        let (host, health) = (cells.host.subscribe(), cells.health.subscribe());
        let registered = cells.registered.subscribe();
        let exposed = cells.exposed.subscribe();
        let streamer = Streamer {
            live: self.live.clone(),
            identities: self.identities.clone(),
            clients: self.clients.clone(),
            host: cells.host.subscribe(),
            reports: Reports::new(health.clone(), registered.clone(), exposed, host.clone()),
            connected: cells.connected.clone(),
            board: self.board.clone(),
            metrics,
            clock: self.clock.clone(),
            generation,
        };
        let registrar = Registrar {
            clients: self.clients.clone(),
            host: host.clone(),
            health,
            connected: cells.connected.subscribe(),
            registered: cells.registered,
            board: self.board.clone(),
            address,
        };
        let keeper = Keeper {
            identities: self.identities,
            store: self.store,
            enrolled: self.enrolled,
            clients: self.clients,
            host,
            registered,
            board: self.board,
            clock: self.clock,
        };
        let kept = self.live.load();
        spawn(tasks, "cache", cache::run(self.cache, self.live, kept, stop.clone()));
        spawn(tasks, "identity", identity::run(keeper, stop.clone()));
        spawn(tasks, "register", register::run(registrar, stop.clone()));
        spawn(tasks, "stream", stream::run(streamer, stop.clone()));
    }
}

impl Cells {
    fn new(health: Report, host: HostState) -> Self {
        Self {
            host: watch::Sender::new(Arc::new(host)),
            health: watch::Sender::new(Arc::new(health)),
            exposed: watch::Sender::default(),
            connected: watch::Sender::new(0),
            registered: watch::Sender::new(0),
        }
    }
}

fn spawn(
    tasks: &mut Tasks<Infallible>, name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) {
    tasks.spawn(name, async move {
        work.await;
        Ok(())
    });
}

/// Puts the explicit ports on the board, with those that could not be opened.
fn show_listeners(board: &Board, proxy: &ProxyHandle) {
    let line = |state: ListenerState| {
        let ListenerState { address, instance, service, error } = state;
        ListenerLine { address, instance, service, error }
    };
    let listeners = proxy.listeners().into_iter().map(line).collect();
    board.update(|status| status.listeners = listeners);
}

/// Drains the proxy while the control side still serves it, then stops the rest.
async fn stop(
    proxy: ProxyHandle, proxy_stop: &CancellationToken, tasks: Tasks<Infallible>,
    inner: &CancellationToken,
) -> Result<(), RunError> {
    proxy_stop.cancel();
    // Bounded by the proxy's own drain.
    proxy.stopped().await;
    inner.cancel();
    Ok(tasks.stop(STOP_WITHIN).await?)
}

const INBOUND_PORT: u16 = 7443;

#[cfg(test)]
mod tests;
