//! What a [`Node`](super::Node) is made of, and what it says about itself.

use std::path::PathBuf;
use std::sync::Arc;

use mesh_net::tls::{SvidSource, TlsError, TrustStore};
use tokio::net::TcpListener;

use super::checkpoint::CheckpointError;
use super::cluster::Clock;
use super::identity::{IdentityError, ServerIdentity};
use super::options::Options;
use super::types::ServerNode;
use super::wal::WalError;

/// How a server begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As the first server of a new cluster. If the directory holds one already, as
    /// [`Start::Resume`].
    Init,
    /// As a newcomer that waits to be added by the leader, or from its directory if it was.
    Join,
    /// From its directory.
    Resume,
}

/// What a node is made of.
pub struct Parts {
    /// `<data>/raft`: made if missing.
    pub dir: PathBuf,
    /// Who this server is.
    pub identity: ServerIdentity,
    /// Where members reach `listener`, as `host:port`.
    pub raft_address: String,
    /// Where agents and operators reach the API, as `host:port`.
    pub api_address: String,
    /// The Raft port.
    pub listener: TcpListener,
    /// This server's certificate, kept fresh by its owner.
    pub svid: Arc<SvidSource>,
    /// Whom to trust, kept fresh by its owner.
    pub trust: Arc<TrustStore>,
    /// Stamps commands.
    pub clock: Clock,
    /// Timings and sizes.
    pub options: Options,
    /// Cuts this server off, in tests.
    #[cfg(test)]
    pub(crate) cut: Arc<std::sync::atomic::AtomicBool>,
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory is not this server's, or is incomplete.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// [`Start::Resume`] without anything to resume.
    #[error("data directory {0:?} is empty, expected a server that was initialised or has joined")]
    Empty(PathBuf),
    /// The log cannot be used.
    #[error("cannot open the log")]
    Wal(#[from] WalError),
    /// No checkpoint fits the log.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The Raft port cannot be secured.
    #[error("cannot set up TLS on the Raft port")]
    Tls(#[from] TlsError),
    /// Anything of Raft itself.
    #[error("cannot start Raft: {0}")]
    Raft(String),
}

/// Why a running node must end: what it holds may no longer be what the others hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Raft stopped: {0}")]
pub struct NodeFailed(pub String);

/// A member of the cluster, as seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its Raft id.
    pub id: u64,
    /// Its name and addresses.
    pub node: ServerNode,
    /// Whether it votes; a learner only follows.
    pub voter: bool,
    /// Whether it leads.
    pub leader: bool,
    /// The last log index it is known to have; only the leader knows others'.
    pub matched: Option<u64>,
}

/// What part a server plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes writes: a majority is behind it.
    Leader,
    /// It votes and follows.
    Follower,
    /// It asks to lead, or leads nobody: no majority answers it.
    Candidate,
    /// It follows without a vote, or is no member.
    Learner,
    /// It is stopping.
    Stopped,
}

/// Raft at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// The term.
    pub term: u64,
    /// What this server is.
    pub role: Role,
    /// The last index in the log.
    pub last_log: Option<u64>,
    /// The last index applied.
    pub applied: Option<u64>,
    /// The last index in a checkpoint.
    pub checkpoint: Option<u64>,
    /// The last index the log dropped.
    pub purged: Option<u64>,
    /// Bytes of the log's entries.
    pub log_bytes: usize,
}
