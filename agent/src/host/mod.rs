//! What this host declares: files in `services.d`, and what came over the agent's socket.
//!
//! Ground state of the host's part: [`HostState`] is its fold, republished whole at each change.

mod files;
mod kept;
pub(crate) mod local;
mod peer;
mod socket;
mod watcher;

pub mod exposed;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use mesh_core::hostfile::InstanceFile;
use mesh_core::name::{InstanceId, ServiceName};
use mesh_core::resource::ResourceKey;
use mesh_core::snapshot::ProxySnapshot;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use files::Loader;
pub use socket::{Answer, Request, SocketError, bind};
pub(crate) use socket::{Service, serve};

use crate::health::Exec;
use crate::limits::host::{DEBOUNCE, RESCAN};
use watcher::Watcher;

/// Everything this host declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// The instances, by name.
    pub instances: BTreeMap<InstanceId, Arc<Declared>>,
    /// What is wrong with the files; what was good before stays in force.
    pub problems: Vec<Problem>,
}

/// One instance, with what its file is trusted to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// As declared.
    pub file: InstanceFile,
    /// The file it stands in.
    pub source: PathBuf,
    /// Whether its checks may run commands.
    pub exec: Exec,
}

impl Declared {
    /// Where the application listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.file.address, self.file.port)
    }
}

/// Something wrong with what the host declares, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// What is wrong, with line, column and excerpt where there is one.
    pub message: String,
}

impl HostState {
    /// The services that have an instance here, each once, in order.
    pub fn services(&self) -> Vec<ServiceName> {
        let mut all: Vec<ServiceName> =
            self.instances.values().map(|declared| declared.file.service.clone()).collect();
        all.sort();
        all.dedup();
        all
    }

    /// What an agent that hosts this must know.
    pub fn wanted(&self) -> Vec<ResourceKey> {
        let hosted: Vec<(ServiceName, Vec<ServiceName>)> = self
            .instances
            .values()
            .map(|declared| {
                let upstreams = declared.file.upstreams.iter().map(|u| u.service.clone());
                (declared.file.service.clone(), upstreams.collect())
            })
            .collect();
        ProxySnapshot::wanted(hosted.iter().map(|(service, ups)| (service, ups.as_slice())))
    }
}

/// A change of what the host declares, asked for over the socket.
#[derive(Debug)]
pub enum HostCommand {
    /// Declares the instances of a host file's text; answers with their names.
    Add {
        /// The text.
        text: String,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Vec<InstanceId>, String>>,
    },
    /// Takes back what [`HostCommand::Add`] declared.
    Remove {
        /// The instance.
        instance: InstanceId,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<(), String>>,
    },
}

/// Keeps `state` what the files say: on their changes, on `commands`, and every 30 s.
///
/// The caller has scanned once. Returns after `shutdown`; a scan under way is finished first.
pub async fn run(
    mut loader: Loader, state: watch::Sender<Arc<HostState>>,
    mut commands: mpsc::Receiver<HostCommand>, shutdown: CancellationToken,
) {
    let mut watcher = Watcher::new(loader.dirs());
    let mut rescan = tokio::time::interval(RESCAN);
    rescan.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Cancel safe: each branch takes one item or none.
        let command = tokio::select! {
            () = shutdown.cancelled() => return,
            command = commands.recv() => match command {
                Some(command) => Some(command),
                None => return,
            },
            () = watcher.changed() => {
                // A file is often written in several steps; look once they are over.
                tokio::time::sleep(DEBOUNCE).await;
                watcher.seen();
                None
            }
            _ = rescan.tick() => {
                watcher.rewatch();
                None
            }
        };
        let task = tokio::task::spawn_blocking(move || {
            let replied = command.map(|command| loader.carry_out(command));
            let found = loader.scan();
            (loader, found, replied)
        });
        let Ok((back, found, replied)) = task.await else {
            tracing::error!("reading services.d panicked; what it declares no longer changes");
            return shutdown.cancelled().await;
        };
        loader = back;
        publish(&state, found);
        if let Some(reply) = replied {
            // Only now: who asked sees the state with its change.
            reply.send();
        }
    }
}

fn publish(state: &watch::Sender<Arc<HostState>>, found: HostState) {
    state.send_if_modified(|held| {
        if **held == found {
            return false;
        }
        for problem in found.problems.iter().filter(|problem| !held.problems.contains(problem)) {
            tracing::error!(file = %problem.file, "host file: {}", problem.message);
        }
        *held = Arc::new(found);
        true
    });
}

#[cfg(test)]
pub(crate) mod tests;
