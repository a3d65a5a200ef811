//! What servers say to each other on the Raft port: routes, bounds and messages.
//!
//! Every request is a POST with a MessagePack body, and names the cluster (`mesh-cluster`, the
//! trust domain), the Raft id it is meant for (`mesh-to`) and the sender's (`mesh-from`).

use std::time::Duration;

use mesh_core::command::{CommandKind, Outcome, ServerRecord};
use mesh_core::name::ServerName;
use mesh_core::trust::Principal;
use serde::{Deserialize, Serialize};

use super::types::{SnapshotMeta, Vote};
pub(crate) use crate::limits::raft::{
    APPEND_BYTES_MAX, CALL_BYTES_MAX, COMMAND_BYTES_MAX, FORWARD_MAX, META_BYTES_MAX,
    SNAPSHOT_BYTES_MAX,
};

pub(crate) const CLUSTER: &str = "mesh-cluster";
pub(crate) const TO: &str = "mesh-to";
pub(crate) const FROM: &str = "mesh-from";

/// What all routes of Raft itself begin with.
pub(crate) const RAFT: &str = "/raft/";
pub(crate) const APPEND: &str = "/raft/append";
pub(crate) const VOTE: &str = "/raft/vote";
pub(crate) const PRE_VOTE: &str = "/raft/pre_vote";
pub(crate) const SNAPSHOT: &str = "/raft/snapshot";
pub(crate) const TRANSFER: &str = "/raft/transfer_leader";
pub(crate) const PROPOSE: &str = "/app/propose";
pub(crate) const READ_INDEX: &str = "/app/read_index";
pub(crate) const MEMBERS: &str = "/app/members";
/// Followed by the name of what is called.
pub(crate) const CALL: &str = "/app/call/";

/// Entries of the leader, or its heartbeat.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Append<R> {
    /// How long ago a majority stood behind the leader; none if it has not yet.
    pub(crate) quorum_ms: Option<u64>,
    /// openraft's request.
    pub(crate) rpc: R,
}

/// A write, forwarded to the leader.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Propose {
    pub(crate) by: Principal,
    pub(crate) kind: CommandKind,
    pub(crate) timeout_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum ProposeReply {
    /// It is in the log, and this is what it did.
    Done(Outcome),
    /// Not tried.
    NotLeader,
    /// Surely not applied.
    Unavailable(String),
    /// Perhaps applied.
    Unknown(String),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadIndex {
    pub(crate) timeout_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum ReadReply {
    /// Whoever has applied this much may answer.
    Index(u64),
    NotLeader,
    Failed(String),
}

/// A change of membership, for the leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Change {
    Add(ServerRecord),
    Remove(ServerName),
    /// Leadership goes to this server, or to the one that is furthest along.
    Transfer(Option<ServerName>),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum ChangeReply {
    Done,
    NotLeader,
    Failed(String),
}

/// What stands before the state in a snapshot's body, after its length as u32 (big-endian).
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
}

/// A time as messages carry it.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
