//! [`Board`]: what the agent says of itself, to people and to probes.
//!
//! Ephemeral: each part writes its own lines, the admin listener and the socket read them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mesh_core::catalog::Health;
use mesh_core::name::{InstanceId, NodeName, ServiceName};
use mesh_core::revision::Revision;
use mesh_core::stream::ExposedPort;
use mesh_core::time::UnixMillis;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::host::Problem;

/// The agent's state, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// This node.
    pub node: NodeName,
    /// Software version.
    pub version: String,
    /// The agent's process, counted over its life.
    pub generation: u64,
    /// When this process started.
    pub started_at: UnixMillis,
    /// The config in force.
    pub revision: Revision,
    /// Whether the listeners are open.
    pub listening: bool,
    /// The explicit ports.
    pub listeners: Vec<ListenerLine>,
    /// Since when no server confirms the config; `None` while a stream is live.
    pub stale_since: Option<UnixMillis>,
    /// The server of the live stream, as dialled.
    pub server: Option<String>,
    /// Why there is no live stream.
    pub stream_error: Option<String>,
    /// What became of the cache on disk at the start.
    pub cache: String,
    /// Certificates held: identity and end of life.
    pub leaves: BTreeMap<String, UnixMillis>,
    /// Services whose certificate could not be had or renewed, and why.
    pub identity_errors: BTreeMap<String, String>,
    /// The instances of this host.
    pub instances: BTreeMap<InstanceId, InstanceLine>,
    /// Instances that the servers refuse, and why.
    pub refused: BTreeMap<InstanceId, String>,
    /// Why nothing could be registered.
    pub register_error: Option<String>,
    /// What is wrong with the host's files.
    pub problems: Vec<Problem>,
    /// Ports that answer without the agent.
    pub exposed: Vec<ExposedPort>,
}

/// One instance of [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceLine {
    /// Its service.
    pub service: ServiceName,
    /// Where the application listens.
    pub address: SocketAddr,
    /// Folded from its checks.
    pub health: Health,
    /// Checks that fail, and what they say.
    pub failing: BTreeMap<String, String>,
}

/// An explicit port, in [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerLine {
    /// Where it listens.
    pub address: SocketAddr,
    /// The instance that declares it.
    pub instance: InstanceId,
    /// The service called through it.
    pub service: ServiceName,
    /// Why it is not open, if it is not.
    pub error: Option<String>,
}

impl Status {
    fn new(node: NodeName, generation: u64, now: UnixMillis) -> Self {
        Self {
            node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation,
            started_at: now,
            revision: Revision::ZERO,
            listening: false,
            listeners: Vec::new(),
            stale_since: Some(now),
            server: None,
            stream_error: None,
            cache: String::new(),
            leaves: BTreeMap::new(),
            identity_errors: BTreeMap::new(),
            instances: BTreeMap::new(),
            refused: BTreeMap::new(),
            register_error: None,
            problems: Vec::new(),
            exposed: Vec::new(),
        }
    }

    /// Whether the agent serves.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn ready(&self) -> Result<(), String> {
        if self.revision == Revision::ZERO {
            let why = self.stream_error.as_deref().unwrap_or("no server has answered yet");
            return Err(format!("no config in force: {why}"));
        }
        if !self.listening {
            return Err("listeners are not open".to_owned());
        }
        Ok(())
    }
}

/// The agent's [`Status`], written by its parts.
#[derive(Debug)]
pub struct Board(watch::Sender<Status>);

impl Board {
    /// A board of an agent that has just started.
    pub fn new(node: NodeName, generation: u64, now: UnixMillis) -> Self {
        Self(watch::Sender::new(Status::new(node, generation, now)))
    }

    /// The state now.
    pub fn status(&self) -> Status {
        self.0.borrow().clone()
    }

    /// Changes the state; who waits is told only if that changed something.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        self.0.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }

    /// Tells of changes.
    pub fn changed(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn ready_needs_a_config_and_listeners() {
        let board = Board::new("web-7".parse().unwrap(), 1, UnixMillis(5));
        let why = |board: &Board| board.status().ready().unwrap_err();
        assert_eq!(why(&board), "no config in force: no server has answered yet");
        board.update(|status| status.revision = Revision::new(1, 1));
        assert_eq!(why(&board), "listeners are not open");
        board.update(|status| status.listening = true);
        assert_eq!(board.status().ready(), Ok(()));
    }
}
