//! The types Raft is used with, and short names for openraft's.

use std::fmt;

use mesh_core::command::{Command, Outcome};
use mesh_core::name::ServerName;
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// The types Raft is used with.
    pub TypeConfig:
        D = Request,
        R = Outcome,
        NodeId = u64,
        Node = ServerNode,
        // one vote per term, as in the Raft paper; openraft's default may grant two
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
);

/// A [`Command`] as a log entry's payload. On disk and wire it is the command itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Request(pub Command);

/// A member of the cluster, as its membership entries name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerNode {
    /// The server's name.
    pub name: ServerName,
    /// Where members reach its Raft port, as `host:port`.
    pub raft_address: String,
    /// Where agents and operators reach its API, as `host:port`.
    pub api_address: String,
}

/// For openraft's logs: whose command, never what is in it.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} at {}", self.0.by, self.0.at)
    }
}

pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Membership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;

/// openraft's test suite of log stores wants one.
#[cfg(test)]
impl Default for ServerNode {
    #[allow(clippy::expect_used, reason = "a literal of the alphabet")]
    fn default() -> Self {
        let (raft_address, api_address) = Default::default();
        Self { name: "s0".parse().expect("a name"), raft_address, api_address }
    }
}
