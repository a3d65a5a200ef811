//! The agents' stream: config comes and is put in force; acknowledgements, heartbeats, health and
//! subscriptions go.

mod report;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::resource::{Resource, ResourceKey};
use mesh_core::revision::Revision;
use mesh_core::stream::{Ack1, AgentHello1, Nack1, ServerHello1, ToServer};
use mesh_net::client::{ClientError, StreamReceiver, StreamSender};
use mesh_net::telemetry::Chain;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use super::session::{Event, ProtocolError, Session};
use super::{Clients, backoff, wants};
use crate::Clock;
use crate::host::HostState;
use crate::identity::Identities;
use crate::limits::control::{
    HEARTBEAT_LEAST, HEARTBEAT_MOST, STREAM_GREETING, STREAM_OPEN, STREAM_SEND,
};
use crate::live::{Live, MeshBatch, Refused};
use crate::metrics::{ControlMetrics, OutcomeLabels};
use crate::status::Board;
pub(crate) use report::Reports;

/// What the stream works with.
pub(crate) struct Streamer {
    pub(crate) live: Arc<Live>,
    pub(crate) identities: Arc<Identities>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) host: watch::Receiver<Arc<HostState>>,
    pub(crate) reports: Reports,
    /// Counts streams that a server greeted on.
    pub(crate) connected: watch::Sender<u64>,
    pub(crate) board: Arc<Board>,
    pub(crate) metrics: ControlMetrics,
    pub(crate) clock: Clock,
    /// Rises with each process of the agent.
    pub(crate) generation: u64,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("server ended the stream")]
    Closed,
    #[error("server ends the stream: {0}")]
    Goodbye(String),
    #[error("{0} not done within {1:?}")]
    Late(&'static str, Duration),
    #[error("batch refused, connecting again: {0}")]
    Refused(Refused),
    /// Not an error: the node's certificate is new.
    #[error("connecting again with the new certificate")]
    Renewed,
}

/// Keeps a stream to some server, until `shutdown`.
pub(crate) async fn run(mut streamer: Streamer, shutdown: CancellationToken) {
    let mut attempt: u32 = 0;
    let mut renewed = streamer.clients.renewed();
    let work = async {
        loop {
            let streams = *streamer.connected.borrow();
            let ended = match streamer.converse(&mut renewed).await {
                Err(ended) => ended,
                Ok(never) => match never {},
            };
            streamer.lost(&ended);
            if matches!(ended, Ended::Renewed) {
                continue;
            }
            // A server that says goodbye, or is not understood, is not asked again at once.
            streamer.clients.current().prefer_next();
            let greeted = *streamer.connected.borrow() > streams;
            attempt = if greeted { 1 } else { attempt.saturating_add(1) };
            let wait = backoff::wait_before(attempt, backoff::random_permille());
            // Cancel safe: nothing is taken.
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = renewed.changed() => attempt = 0,
            }
        }
    };
    let _: Option<()> = shutdown.run_until_cancelled(work).await;
}

/// One open stream.
struct Open {
    sender: StreamSender,
    receiver: StreamReceiver,
    session: Session,
    /// What the server knows that we want.
    told: BTreeSet<ResourceKey>,
    heartbeat: Interval,
}

impl Streamer {
    /// Opens a stream and serves it until it ends.
    async fn converse(
        &mut self, renewed: &mut watch::Receiver<u64>,
    ) -> Result<std::convert::Infallible, Ended> {
        renewed.mark_unchanged();
        let mut open = self.open().await?;
        let mut wanted_changed = self.live.wanted_changed();
        self.reports.start();
        loop {
            // Cancel safe: `recv` keeps what it has, the others take nothing.
            tokio::select! {
                message = open.receiver.recv() => {
                    let message = message?.ok_or(Ended::Closed)?;
                    if let Some(event) = open.session.take(message)? {
                        self.handle(&mut open, event).await?;
                    }
                }
                _ = open.heartbeat.tick() => {
                    let beat = self.reports.heartbeat(self.live.load().revision, &self.identities);
                    open.send(ToServer::Heartbeat(beat)).await?;
                }
                () = self.reports.changed() => {
                    for report in self.reports.health() {
                        open.send(ToServer::Health(report)).await?;
                    }
                }
                changed = self.host.changed() => match changed {
                    Ok(()) => self.subscribe(&mut open).await?,
                    Err(_) => return Err(Ended::Closed),
                },
                _ = wanted_changed.changed() => self.subscribe(&mut open).await?,
                _ = renewed.changed() => return Err(Ended::Renewed),
            }
        }
    }

    /// Opens a stream, and waits until a server has greeted.
    async fn open(&mut self) -> Result<Open, Ended> {
        let wanted = self.wanted();
        let hello = self.hello(&wanted);
        let client = self.clients.current();
        let opened = timeout(STREAM_OPEN, client.stream(hello)).await;
        let (sender, mut receiver) =
            opened.map_err(|_| Ended::Late("opening the stream", STREAM_OPEN))??;
        let mut session = Session::default();
        let greeting = async {
            let message = receiver.recv().await?.ok_or(Ended::Closed)?;
            Ok::<_, Ended>(session.take(message)?)
        };
        let event = timeout(STREAM_GREETING, greeting).await;
        let event = event.map_err(|_| Ended::Late("the server's hello", STREAM_GREETING))??;
        let hello = match event {
            Some(Event::Hello(hello)) => hello,
            Some(Event::Goodbye(reason)) => return Err(Ended::Goodbye(reason)),
            // The session lets nothing else come first.
            Some(Event::Batch(_) | Event::Servers(_)) | None => return Err(Ended::Closed),
        };
        let heartbeat = heartbeat(&hello);
        self.greeted(receiver.server().to_owned(), &hello);
        Ok(Open { sender, receiver, session, told: wanted, heartbeat })
    }

    fn hello(&self, wanted: &BTreeSet<ResourceKey>) -> AgentHello1 {
        let now = self.live.load();
        let held = now.held();
        let revision = |key: &ResourceKey| held.get(key).copied().unwrap_or(Revision::ZERO);
        AgentHello1 {
            node: now.host.node.clone(),
            generation: self.generation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            applied: now.revision,
            subscriptions: wanted.iter().map(|key| (key.clone(), revision(key))).collect(),
        }
    }

    fn wanted(&self) -> BTreeSet<ResourceKey> {
        let declared = self.host.borrow().wanted();
        wants::wanted(&declared, &self.live.wanted(), &self.live.load())
    }

    /// Tells the server what is wanted now, if it does not know.
    async fn subscribe(&mut self, open: &mut Open) -> Result<(), Ended> {
        self.host.mark_unchanged();
        let wanted = self.wanted();
        if let Some(change) = wants::change(&open.told, &wanted) {
            open.send(ToServer::Subscribe(change)).await?;
            open.told = wanted;
        }
        Ok(())
    }

    async fn handle(&mut self, open: &mut Open, event: Event) -> Result<(), Ended> {
        match event {
            // The session refuses a second one.
            Event::Hello(_) => Ok(()),
            Event::Goodbye(reason) => Err(Ended::Goodbye(reason)),
            Event::Servers(servers) => {
                self.clients.told(&servers);
                Ok(())
            }
            Event::Batch(batch) => self.apply(open, batch).await,
        }
    }

    /// Puts `batch` in force and acknowledges it; or says why not, and keeps what was in force.
    async fn apply(&mut self, open: &mut Open, batch: MeshBatch) -> Result<(), Ended> {
        let revision = batch.revision;
        let applied = self.put_in_force(&batch);
        let outcome = if applied.is_ok() { "applied" } else { "refused" };
        self.metrics.batches.get_or_create(&OutcomeLabels { outcome }).inc();
        let error = match applied {
            Ok(()) => {
                self.board.update(|status| status.revision = revision);
                open.send(ToServer::Ack(Ack1 { revision })).await?;
                // Routes that came may lead to services not asked for yet.
                return self.subscribe(open).await;
            }
            Err(error) => error,
        };
        tracing::error!(%revision, "batch is not put in force: {error}");
        open.send(ToServer::Nack(Nack1 { revision, error: error.to_string() })).await?;
        match error {
            NotApplied::Refused(why @ Refused::EpochNotFull { .. }) => Err(Ended::Refused(why)),
            NotApplied::Refused(Refused::Older { .. }) | NotApplied::Trust(_) => Ok(()),
        }
    }

    fn put_in_force(&self, batch: &MeshBatch) -> Result<(), NotApplied> {
        self.live.accepts(batch)?;
        let bundle = batch.resources.iter().find_map(|resource| match resource {
            Resource::Bundle(bundle) => Some(bundle),
            Resource::Routes(_) | Resource::Endpoints(_) | Resource::Access(_) => None,
        });
        // Trust first: endpoints may name agents whose certificates only the new roots verify.
        if let Some(bundle) = bundle {
            self.identities
                .trust()
                .update(bundle)
                .map_err(|why| NotApplied::Trust(Chain(&why).to_string()))?;
        }
        Ok(self.live.publish_mesh(batch, &self.wanted())?)
    }

    fn greeted(&mut self, address: String, hello: &ServerHello1) {
        tracing::info!(server = %hello.server, %address, revision = %hello.revision, "stream is open");
        self.clients.told(&hello.servers);
        self.metrics.streams.inc();
        self.board.update(|status| {
            status.server = Some(address);
            status.stale_since = None;
            status.stream_error = None;
        });
        self.connected.send_modify(|count| *count += 1);
    }

    fn lost(&self, ended: &Ended) {
        let now = (self.clock)();
        let why = Chain(ended).to_string();
        let first = self.board.status().stream_error.as_ref() != Some(&why);
        match ended {
            Ended::Renewed => tracing::debug!("{why}"),
            _ if first => tracing::warn!("stream is not open: {why}"),
            _ => tracing::debug!("stream is not open: {why}"),
        }
        self.board.update(|status| {
            status.server = None;
            status.stale_since.get_or_insert(now);
            status.stream_error = Some(why);
        });
    }
}

/// Why a batch is not in force.
#[derive(Debug, thiserror::Error)]
enum NotApplied {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("bundle cannot be used: {0}")]
    Trust(String),
}

impl Open {
    async fn send(&mut self, message: ToServer) -> Result<(), Ended> {
        let sent = timeout(STREAM_SEND, self.sender.send(&message)).await;
        Ok(sent.map_err(|_| Ended::Late("sending", STREAM_SEND))??)
    }
}

fn heartbeat(hello: &ServerHello1) -> Interval {
    let every = Duration::from_millis(hello.heartbeat_ms).clamp(HEARTBEAT_LEAST, HEARTBEAT_MOST);
    let mut heartbeat = tokio::time::interval_at(Instant::now(), every);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat
}
