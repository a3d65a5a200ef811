//! The task of one agent's stream: reads what it says, and sends it what changed.
//!
//! Sending is level-triggered: each batch is made from the newest state, so that an agent which is
//! slow to read misses nothing but steps in between, and costs no queue.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::channel::{Channel, Sender};
use mesh_core::catalog::CheckStatus;
use mesh_core::command::{CommandKind, HealthChange, SetHealth1};
use mesh_core::limits::{
    CHECK_OUTPUT_BYTES_MAX, INSTANCES_PER_NODE_MAX, META_KEYS_MAX, SUBSCRIPTIONS_MAX,
};
use mesh_core::name::{InstanceId, NodeName};
use mesh_core::resource::ResourceKey;
use mesh_core::revision::Revision;
use mesh_core::state::MeshState;
use mesh_core::stream::{AgentHello1, Batch1, Goodbye1, ServerHello1, Servers1, ToAgent, ToServer};
use mesh_core::trust::Principal;
use mesh_net::clock;
use mesh_net::stream::{FrameReader, encode};
use mesh_net::tls::PeerIdentity;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::plan::{Held, plan, wanted};
use crate::lease::Opened;
use crate::limits::watch::{
    CHUNK_BYTES, CHUNKS_MAX, EMPTY_EVERY, GOODBYE_MAX, HEALTH_EVERY, HELLO_MAX, STUCK_MAX,
};
use crate::raft::ProposeError;
use crate::server::Server;

/// Who opened the stream: authenticated.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) node: NodeName,
    pub(crate) peer: PeerIdentity,
}

/// The agent's messages, as the HTTP body gives them.
pub(crate) trait Incoming:
    Stream<Item = Result<Bytes, String>> + Send + Unpin + 'static
{
}

impl<T: Stream<Item = Result<Bytes, String>> + Send + Unpin + 'static> Incoming for T {}

/// Starts the stream's task and returns the body of the answer.
pub(crate) fn open(
    server: &Arc<Server>, caller: Caller, incoming: impl Incoming,
) -> Channel<Bytes, Infallible> {
    let (sender, body) = Channel::new(CHUNKS_MAX);
    let server_of_task = Arc::clone(server);
    server.streams.spawn(async move {
        let server = server_of_task;
        server.metrics.streams.inc();
        let mut out = Out(sender);
        let ended = run(&server, &caller, incoming, &mut out).await;
        server.metrics.streams.dec();
        if let Err(reason) = ended {
            tracing::info!(node = %caller.node, reason, "an agent's stream ended");
            let goodbye = ToAgent::Goodbye(Goodbye1 { reason });
            // The agent may be gone already.
            let _ = timeout(GOODBYE_MAX, out.message(&goodbye)).await;
        }
    });
    body
}

/// `Err` says why this server ends the stream; the agent ends it by `Ok`.
async fn run(
    server: &Arc<Server>, caller: &Caller, incoming: impl Incoming, out: &mut Out,
) -> Result<(), String> {
    let mut reader = Reader { incoming, frames: FrameReader::new() };
    let first = timeout(HELLO_MAX, reader.next()).await;
    let first = first.map_err(|_| format!("no hello within {HELLO_MAX:?}"))??;
    let Some(ToServer::Hello(hello)) = first else {
        return Err("the first message must be a hello".to_owned());
    };
    let link = Link::new(server, caller, &hello)?;
    tracing::info!(node = %caller.node, generation = hello.generation, "an agent opened its stream");
    // Cancelling a part drops what it was about to do, which the stream's end does anyway.
    let ended = tokio::select! {
        ended = link.read(&mut reader) => ended,
        ended = link.write(out) => ended,
        ended = link.report_health() => ended,
        ended = link.guard() => ended,
        () = server.stop.cancelled() => Err("this server is stopping".to_owned()),
    };
    server.agents.closed(&caller.node, link.opened);
    ended
}

/// What the parts of one stream share.
struct Link<'a> {
    server: &'a Arc<Server>,
    caller: &'a Caller,
    opened: Opened,
    cursor: Revision,
    held: Mutex<Held>,
    subscribed: Notify,
    health: Mutex<BTreeMap<InstanceId, HealthChange>>,
    unwell: Notify,
}

impl<'a> Link<'a> {
    fn new(
        server: &'a Arc<Server>, caller: &'a Caller, hello: &AgentHello1,
    ) -> Result<Self, String> {
        if hello.node != caller.node {
            let (found, expected) = (&hello.node, &caller.node);
            return Err(format!("hello is of node {found}, expected {expected} as certified"));
        }
        let mut held: Held = hello.subscriptions.iter().cloned().collect();
        held.entry(ResourceKey::Bundle).or_insert(Revision::ZERO);
        check_count(&held)?;
        Ok(Self {
            server,
            caller,
            opened: server.agents.opened(hello)?,
            cursor: hello.applied,
            held: Mutex::new(held),
            subscribed: Notify::new(),
            health: Mutex::default(),
            unwell: Notify::new(),
        })
    }

    async fn read<I: Incoming>(&self, reader: &mut Reader<I>) -> Result<(), String> {
        let (agents, node) = (&self.server.agents, &self.caller.node);
        while let Some(message) = reader.next().await? {
            match message {
                ToServer::Hello(_) => return Err("a second hello".to_owned()),
                ToServer::Subscribe(subscribe) => {
                    let mut held = lock(&self.held);
                    subscribe.remove.iter().for_each(|key| {
                        held.remove(key);
                    });
                    held.extend(subscribe.add.into_iter().map(|key| (key, Revision::ZERO)));
                    check_count(&held)?;
                    self.subscribed.notify_one();
                }
                ToServer::Ack(ack) => agents.acked(node, self.opened, ack.revision),
                ToServer::Nack(nack) => {
                    tracing::warn!(%node, revision = %nack.revision, "an agent refused a batch");
                    self.server.metrics.nacks.inc();
                    agents.refused(node, self.opened, nack.revision, &nack.error);
                }
                ToServer::Heartbeat(report) => agents.heard(node, self.opened, report),
                ToServer::Health(report) => {
                    let (all, mut health) = (report.changes.len(), lock(&self.health));
                    let sound = report.changes.into_iter().filter(|(_, change)| is_sound(change));
                    let taken: BTreeMap<_, _> = sound.collect();
                    if taken.len() < all {
                        let dropped = all - taken.len();
                        tracing::warn!(%node, dropped, "health reports are over their bounds");
                    }
                    health.extend(taken);
                    if health.len() > INSTANCES_PER_NODE_MAX {
                        return Err(format!("health of over {INSTANCES_PER_NODE_MAX} instances"));
                    }
                    self.unwell.notify_one();
                }
            }
        }
        Ok(())
    }

    async fn write(&self, out: &mut Out) -> Result<(), String> {
        let node = &self.server.node;
        let mut changed = node.changed();
        let mut cursor = self.cursor;
        let mut last_batch: Option<Instant> = None;
        let hello = self.hello(&node.state());
        let mut told = hello.servers.clone();
        out.message(&ToAgent::Hello(hello)).await?;
        loop {
            changed.borrow_and_update();
            let state = node.state();
            self.check_caller(&state)?;
            let servers = addresses(&state);
            if servers != told {
                told.clone_from(&servers);
                out.message(&ToAgent::Servers(Servers1 { servers })).await?;
            }
            let planned = {
                let held = lock(&self.held);
                let newest = wanted(&state, &self.caller.node, &held);
                self.server.agents.wants(&self.caller.node, self.opened, newest);
                plan(&state, &self.caller.node, &held, cursor)
            };
            let idle = last_batch.is_none_or(|at| at.elapsed() >= EMPTY_EVERY);
            if let Some(batch) = planned
                && (batch.full || !batch.resources.is_empty() || idle)
            {
                self.send(out, &state, &batch).await?;
                (cursor, last_batch) = (batch.revision, Some(Instant::now()));
                continue;
            }
            // All branches are cancel safe.
            tokio::select! {
                changed = changed.changed() => {
                    changed.map_err(|_| "this server is stopping".to_owned())?;
                }
                () = self.subscribed.notified() => {}
                () = tokio::time::sleep(EMPTY_EVERY) => {}
            }
        }
    }

    async fn send(
        &self, out: &mut Out, state: &MeshState, batch: &super::plan::Plan,
    ) -> Result<(), String> {
        let cache = &self.server.cache;
        let frames: Vec<Bytes> = batch
            .resources
            .iter()
            .filter_map(|(key, modified)| cache.frame(state, key, *modified))
            .collect();
        {
            let mut held = lock(&self.held);
            if batch.full {
                held.values_mut().for_each(|has| *has = Revision::ZERO);
            }
            for (key, modified) in &batch.resources {
                // Unsubscribed or asked for anew meanwhile: then the next batch knows better.
                held.entry(key.clone()).and_modify(|has| *has = *modified);
            }
        }
        let resources = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        let head = Batch1 { revision: batch.revision, full: batch.full, resources };
        out.message(&ToAgent::Batch(head)).await?;
        for frame in frames {
            out.bytes(frame).await?;
        }
        self.server.metrics.batches.inc();
        Ok(())
    }

    /// Writes what changed, together with what changes meanwhile, four times a second at most.
    async fn report_health(&self) -> Result<(), String> {
        loop {
            self.unwell.notified().await;
            let changes = std::mem::take(&mut *lock(&self.health));
            if changes.is_empty() {
                continue;
            }
            let node = self.caller.node.clone();
            let kind = SetHealth1 { node: node.clone(), changes: changes.clone() };
            let kind = CommandKind::SetHealth1(kind);
            let written = self.server.node.propose(Principal::Node(node.clone()), kind).await;
            match written {
                Ok(_) => {}
                // The same again would fare no better.
                Err(error @ (ProposeError::Rejected(_) | ProposeError::TooLarge { .. })) => {
                    tracing::warn!(%node, %error, "the health an agent reported was refused");
                }
                Err(error) => {
                    tracing::warn!(%node, %error, "health was not written, trying again");
                    let mut health = lock(&self.health);
                    for (instance, change) in changes {
                        // What came meanwhile is newer.
                        health.entry(instance).or_insert(change);
                    }
                    self.unwell.notify_one();
                }
            }
            tokio::time::sleep(HEALTH_EVERY).await;
        }
    }

    /// Ends when the caller may no longer have a stream, also while the agent reads nothing.
    async fn guard(&self) -> Result<(), String> {
        let node = &self.server.node;
        let mut changed = node.changed();
        loop {
            changed.borrow_and_update();
            self.check_caller(&node.state())?;
            // Cancel safe, both.
            tokio::select! {
                changed = changed.changed() => {
                    changed.map_err(|_| "this server is stopping".to_owned())?;
                }
                () = tokio::time::sleep(EMPTY_EVERY) => {}
            }
        }
    }

    fn hello(&self, state: &MeshState) -> ServerHello1 {
        ServerHello1 {
            server: self.server.name.clone(),
            revision: state.revision,
            heartbeat_ms: self.server.rules.heartbeat,
            lease_ms: self.server.rules.ttl,
            servers: addresses(state),
        }
    }

    /// Ends the stream of a node that was removed or revoked, or whose certificate ended.
    fn check_caller(&self, state: &MeshState) -> Result<(), String> {
        let Caller { node, peer } = self.caller;
        match state.nodes.get(node) {
            Some(known) if known.key == peer.key => {}
            Some(_) | None => return Err(format!("node {node} is not enrolled with this key")),
        }
        if self.server.trust.is_revoked(peer) {
            return Err(format!("the certificate of node {node} is on the deny list"));
        }
        if clock::now() > peer.not_after {
            return Err("the certificate of this stream ended: renew it and connect again".into());
        }
        Ok(())
    }
}

/// Whether `change` keeps the bounds of an instance's checks.
pub(super) fn is_sound(change: &HealthChange) -> bool {
    let fits = |(name, status): (&String, &CheckStatus)| {
        name.len().max(status.output.len()) <= CHECK_OUTPUT_BYTES_MAX
    };
    change.checks.len() <= META_KEYS_MAX && change.checks.iter().all(fits)
}

fn check_count(held: &Held) -> Result<(), String> {
    let found = held.len();
    // The bundle comes on top.
    if found <= SUBSCRIPTIONS_MAX + 1 {
        return Ok(());
    }
    Err(format!("{found} subscriptions, expected at most {SUBSCRIPTIONS_MAX}"))
}

/// The agent's messages, one after another.
struct Reader<I> {
    incoming: I,
    frames: FrameReader<ToServer>,
}

impl<I: Incoming> Reader<I> {
    /// The next message, or `None` when the agent ended the stream. Cancel safe.
    async fn next(&mut self) -> Result<Option<ToServer>, String> {
        loop {
            if let Some(message) = self.frames.next().map_err(|error| error.to_string())? {
                return Ok(Some(message));
            }
            match self.incoming.next().await {
                Some(Ok(chunk)) => self.frames.push(chunk),
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

/// The way to the agent: a few chunks deep, then it waits for the agent to read.
struct Out(Sender<Bytes, Infallible>);

impl Out {
    async fn message(&mut self, message: &ToAgent) -> Result<(), String> {
        let frame = encode(message).map_err(|error| error.to_string())?;
        self.bytes(frame).await
    }

    async fn bytes(&mut self, mut bytes: Bytes) -> Result<(), String> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK_BYTES));
            match timeout(STUCK_MAX, self.0.send_data(chunk)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err("the agent closed the stream".to_owned()),
                Err(_) => return Err(format!("the agent read nothing for {STUCK_MAX:?}")),
            }
        }
        Ok(())
    }
}

fn addresses(state: &MeshState) -> Vec<String> {
    state.servers.values().map(|record| record.api_address.clone()).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
