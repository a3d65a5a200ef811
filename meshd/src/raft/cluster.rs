//! What all parts of a node share: proposals, reads and the way to the leader.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_core::command::{Command, CommandKind, Outcome, Rejected};
use mesh_core::name::ServerName;
use mesh_core::time::UnixMillis;
use mesh_core::trust::Principal;
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::codec;
use super::machine::{Machine, Published};
use super::peers::{CallError, Peer, Peers, describe};
use super::quorum::Quorum;
use super::types::{Request, ServerNode, TypeConfig};
use super::wire::{self, Change, ChangeReply, Propose, ProposeReply, ReadIndex, ReadReply, millis};
use crate::limits::raft::RETRY_PAUSE;

/// Why a write has no outcome.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Surely not applied: there is no leader, or none within reach.
    #[error("no leader within {0:?}")]
    NoLeader(Duration),
    /// Surely not applied.
    #[error("the write was not accepted: {0}")]
    Unavailable(String),
    /// Perhaps applied, now or later: read before trying again.
    #[error("it is not known whether the write was applied: {0}")]
    Unknown(String),
    /// Surely not applied: the command is larger than the log takes.
    #[error("command has {found} bytes, expected at most {max}")]
    TooLarge {
        /// As found.
        found: usize,
        /// The bound.
        max: usize,
    },
    /// In the log, and refused the same by every replica.
    #[error(transparent)]
    Rejected(#[from] Rejected),
}

/// Why a read cannot be linearizable now.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No leader, or it could not reach a majority.
    #[error("no leader with a majority within {0:?}")]
    NoLeader(Duration),
    /// This server has not caught up.
    #[error("this server did not catch up within {0:?}")]
    Behind(Duration),
}

/// See the module.
pub(crate) struct Cluster {
    pub(crate) raft: openraft::Raft<TypeConfig, Machine>,
    pub(crate) published: Arc<Published>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) quorum: Arc<Quorum>,
    pub(crate) clock: Clock,
    pub(crate) changes: mpsc::Sender<(Change, oneshot::Sender<ChangeReply>)>,
}

/// Tells the time that commands are stamped with.
pub type Clock = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// Where the leader is.
enum Leader {
    Me,
    Other(Arc<Peer>),
    Nobody,
}

impl Cluster {
    /// See `Node::propose_within`.
    pub(crate) async fn propose(
        &self, by: Principal, kind: CommandKind, limit: Duration,
    ) -> Result<Outcome, ProposeError> {
        let end = Instant::now() + limit;
        let mut last = ProposeError::NoLeader(limit);
        while Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            let reply = match self.leader() {
                Leader::Me => self.propose_here(by.clone(), kind.clone(), left).await,
                Leader::Other(peer) => {
                    let timeout_ms = millis(left);
                    let body = Propose { by: by.clone(), kind: kind.clone(), timeout_ms };
                    match ask(&peer, wire::PROPOSE, &body, left).await {
                        Ok(reply) => reply,
                        Err(error) if error.was_not_done() => {
                            ProposeReply::Unavailable(error.to_string())
                        }
                        Err(error) => ProposeReply::Unknown(error.to_string()),
                    }
                }
                Leader::Nobody => ProposeReply::NotLeader,
            };
            match reply {
                ProposeReply::Done(Outcome::Rejected(why)) => return Err(why.into()),
                ProposeReply::Done(outcome) => return Ok(outcome),
                ProposeReply::Unknown(why) => return Err(ProposeError::Unknown(why)),
                ProposeReply::Unavailable(why) => last = ProposeError::Unavailable(why),
                ProposeReply::NotLeader => {}
            }
            self.pause(end).await;
        }
        Err(last)
    }

    /// Writes as the leader; never forwards, so that requests do not go in circles.
    pub(crate) async fn propose_here(
        &self, by: Principal, kind: CommandKind, limit: Duration,
    ) -> ProposeReply {
        // before the log: a server that could not read the entry would have to stop
        let state = self.published.load();
        let (now, found) = (state.feature_level, kind.level());
        if state.mesh.is_some() && found > now {
            return ProposeReply::Done(Outcome::Rejected(Rejected::FeatureLevel { now, found }));
        }
        let command = Command { at: (self.clock)(), by, kind };
        match timeout(limit, self.raft.client_write(Request(command))).await {
            Ok(Ok(written)) => ProposeReply::Done(written.data),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                ProposeReply::NotLeader
            }
            Ok(Err(RaftError::APIError(error @ ClientWriteError::LogEntryDiscarded(_)))) => {
                ProposeReply::Unknown(describe(&error))
            }
            Ok(Err(RaftError::APIError(
                error @ (ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_)),
            ))) => ProposeReply::Unavailable(describe(&error)),
            // It may have been written before the node failed.
            Ok(Err(RaftError::Fatal(error))) => ProposeReply::Unknown(describe(&error)),
            Err(_) => ProposeReply::Unknown(format!("no majority within {limit:?}")),
        }
    }

    /// See `Node::linearizable`.
    pub(crate) async fn linearizable(&self, limit: Duration) -> Result<(), ReadError> {
        let end = Instant::now() + limit;
        let index = loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ReadError::NoLeader(limit));
            }
            let reply = match self.leader() {
                Leader::Me => self.read_index_here(left).await,
                Leader::Other(peer) => {
                    let body = ReadIndex { timeout_ms: millis(left) };
                    let reply = ask(&peer, wire::READ_INDEX, &body, left).await;
                    reply.unwrap_or_else(|error| ReadReply::Failed(error.to_string()))
                }
                Leader::Nobody => ReadReply::NotLeader,
            };
            match reply {
                ReadReply::Index(index) => break index,
                ReadReply::Failed(why) => tracing::debug!(why, "no read index"),
                ReadReply::NotLeader => {}
            }
            self.pause(end).await;
        };
        let left = end.saturating_duration_since(Instant::now());
        let applied = self.raft.wait(Some(left)).applied_index_at_least(Some(index), "read").await;
        applied.map(drop).map_err(|_| ReadError::Behind(limit))
    }

    /// The index up to which somebody must have applied the log for a linearizable read, if we
    /// lead.
    pub(crate) async fn read_index_here(&self, limit: Duration) -> ReadReply {
        match timeout(limit, self.raft.get_read_log_id(ReadPolicy::ReadIndex)).await {
            Ok(Ok((id, _))) => ReadReply::Index(id.index()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_)))) => {
                ReadReply::NotLeader
            }
            Ok(Err(error)) => ReadReply::Failed(describe(&error)),
            Err(_) => ReadReply::Failed(format!("no majority within {limit:?}")),
        }
    }

    /// Has the leader change the membership; tries again while there is no leader.
    pub(crate) async fn change(&self, change: Change, limit: Duration) -> Result<(), String> {
        let end = Instant::now() + limit;
        let mut last = format!("no leader within {limit:?}");
        while Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            let reply = match self.leader() {
                Leader::Me => timeout(left, self.change_here(change.clone()))
                    .await
                    .unwrap_or_else(|_| ChangeReply::Failed(format!("not done in {limit:?}"))),
                Leader::Other(peer) => match ask(&peer, wire::MEMBERS, &change, left).await {
                    Ok(reply) => reply,
                    Err(error) if error.was_not_done() => {
                        last = error.to_string();
                        ChangeReply::NotLeader
                    }
                    Err(error) => ChangeReply::Failed(error.to_string()),
                },
                Leader::Nobody => ChangeReply::NotLeader,
            };
            match reply {
                ChangeReply::Done => return Ok(()),
                ChangeReply::Failed(why) => return Err(why),
                ChangeReply::NotLeader => self.pause(end).await,
            }
        }
        Err(last)
    }

    /// Queues a change for the one task that makes them.
    pub(crate) async fn change_here(&self, change: Change) -> ChangeReply {
        let (tx, rx) = oneshot::channel();
        if self.changes.try_send((change, tx)).is_err() {
            return ChangeReply::Failed("too many changes of membership are waiting".to_owned());
        }
        match timeout(wire::FORWARD_MAX, rx).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => ChangeReply::Failed("the server is stopping".to_owned()),
            Err(_) => ChangeReply::Failed(format!("not done in {:?}", wire::FORWARD_MAX)),
        }
    }

    /// POSTs to one member by name.
    pub(crate) async fn call(
        &self, to: &ServerName, name: &str, body: Bytes, limit: Duration,
    ) -> Result<Bytes, CallError> {
        let found = self.nodes().into_iter().find(|(_, node)| node.name == *to);
        let Some((id, node)) = found else {
            let why = "it is no member of the cluster".to_owned();
            return Err(CallError::Unreachable { peer: to.clone(), why });
        };
        let route = format!("{}{name}", wire::CALL);
        self.peers.get(id, &node).call(&route, body, wire::CALL_BYTES_MAX, limit).await
    }

    /// The leader this server knows of, while a majority is behind it: id and node.
    pub(crate) fn leader_node(&self) -> Option<(u64, ServerNode)> {
        let id = self.quorum.leader()?;
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        Some((id, metrics.membership_config.get_node(&id)?.clone()))
    }

    /// Whether this server leads, and a majority is behind it.
    pub(crate) fn is_leader(&self) -> bool {
        self.quorum.leader() == Some(self.peers.me().id)
    }

    /// All members, voters and learners.
    pub(crate) fn nodes(&self) -> Vec<(u64, ServerNode)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.nodes().map(|(id, node)| (*id, node.clone())).collect()
    }

    fn leader(&self) -> Leader {
        match self.leader_node() {
            Some((id, _)) if id == self.peers.me().id => Leader::Me,
            Some((id, node)) => Leader::Other(self.peers.get(id, &node)),
            None => Leader::Nobody,
        }
    }

    /// Waits for news of the cluster, a moment at most.
    async fn pause(&self, end: Instant) {
        let mut metrics = self.raft.server_metrics();
        let moment = end.min(Instant::now() + RETRY_PAUSE);
        // Cancel safe; an error means that Raft stopped, which the next attempt says better.
        if !matches!(timeout_at(moment, metrics.changed()).await, Ok(Ok(()))) {
            sleep_until(moment).await;
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("me", self.peers.me()).finish_non_exhaustive()
    }
}

/// Refuses a command that the log would not take.
pub(crate) fn check_size(kind: &CommandKind) -> Result<(), ProposeError> {
    let encoded = codec::encode(kind).map_err(|e| ProposeError::Unavailable(e.to_string()))?;
    let (found, max) = (encoded.len(), wire::COMMAND_BYTES_MAX - SLACK);
    if found <= max { Ok(()) } else { Err(ProposeError::TooLarge { found, max }) }
}

async fn ask<A: Serialize, B: DeserializeOwned>(
    peer: &Peer, route: &str, message: &A, limit: Duration,
) -> Result<B, CallError> {
    let peer_name = || peer.name().clone();
    let body = codec::encode(message)
        .map_err(|e| CallError::Unreachable { peer: peer_name(), why: e.to_string() })?;
    let answer = peer.call(route, body.into(), wire::META_BYTES_MAX, limit).await?;
    codec::decode(&answer).map_err(|e| CallError::Lost { peer: peer_name(), why: describe(&e) })
}

/// For what is around a command in a log entry and in a request.
const SLACK: usize = 4096;
