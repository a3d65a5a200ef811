//! The Raft cluster: the one place that knows openraft.
//!
//! State kind: *ground* (the log of commands) and its fold, *replicated* state.
//!
//! Reading order: [`Node`] is the handle. [`wal`] keeps the log on disk and [`log_store`] shows it
//! to openraft; `machine` folds it into the state, `checkpoint` keeps that on disk and `backup`
//! carries it elsewhere. `quorum` tells whether the leader has a majority behind it, `cluster` writes
//! and reads through it, `members` changes who takes part, `compact` keeps
//! the log short. `wire` says what goes over the Raft port, `server` and `service` answer there,
//! `peers` and `network` ask.

mod types;

mod codec;

mod options;

mod identity;

pub mod wal;

pub mod log_store;

mod checkpoint;

mod backup;

mod machine;

mod wire;

mod peers;

mod quorum;

mod network;

mod cluster;

mod members;

mod compact;

mod service;

mod server;

mod parts;

mod node;

#[cfg(test)]
mod tests;

pub use self::backup::{BackupError, Header, Inspection, decode_backup, encode_backup, inspect};
pub use self::checkpoint::CheckpointError;
pub use self::cluster::{Clock, ProposeError, ReadError};
pub use self::codec::{CodecError, state_hash};
pub use self::identity::{IdentityError, ServerIdentity};
pub use self::node::Node;
pub use self::options::{Options, Timing};
pub use self::parts::{Member, Metrics, NodeFailed, OpenError, Parts, Role, Start};
pub use self::peers::CallError;
pub use self::service::AppHandler;
pub use self::types::{Request, ServerNode, TypeConfig};
