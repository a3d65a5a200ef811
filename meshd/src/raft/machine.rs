//! The state machine: folds committed commands into [`MeshState`] and publishes it.
//!
//! State kind: *replicated*. In memory; on disk as checkpoints, from which a restart folds the log
//! on.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use futures_util::{Stream, TryStreamExt};
use mesh_core::command::Outcome;
use mesh_core::revision::Revision;
use mesh_core::state::MeshState;
use openraft::alias::SnapshotOf;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::watch;

use super::checkpoint::{self, Checkpoint, CheckpointError};
use super::types::{LogId, Membership, SnapshotMeta, TypeConfig};

/// The state in force: readers never wait, and see whole batches.
#[derive(Debug)]
pub(crate) struct Published {
    state: ArcSwap<MeshState>,
    revision: watch::Sender<Revision>,
}

impl Published {
    pub(crate) fn load(&self) -> Arc<MeshState> {
        self.state.load_full()
    }

    pub(crate) fn changed(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    fn publish(&self, state: &Arc<MeshState>) {
        self.state.store(Arc::clone(state));
        self.revision.send_if_modified(|revision| {
            std::mem::replace(revision, state.revision) != state.revision
        });
    }
}

/// openraft's state machine.
#[derive(Debug)]
pub(crate) struct Machine {
    published: Arc<Published>,
    state: Arc<MeshState>,
    last_applied: Option<LogId>,
    membership: Membership,
    store: Store,
}

impl Machine {
    /// Starts from the newest checkpoint below `root`; the log was purged up to `purged`. Blocks.
    ///
    /// # Errors
    /// As [`checkpoint::newest`].
    pub(crate) fn open(root: PathBuf, purged: Option<u64>) -> Result<Self, CheckpointError> {
        let current = checkpoint::newest(&root, purged)?;
        let (meta, state) = match &current {
            Some(found) => (found.meta.clone(), Arc::clone(&found.state)),
            None => (SnapshotMeta::default(), Arc::default()),
        };
        let published = Arc::new(Published {
            state: ArcSwap::new(Arc::clone(&state)),
            revision: watch::Sender::new(state.revision),
        });
        let store = Store { root, current: Arc::new(Mutex::new(current)) };
        let SnapshotMeta { last_log_id: last_applied, last_membership: membership } = meta;
        Ok(Self { published, state, last_applied, membership, store })
    }

    pub(crate) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Arc<MeshState>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        Ok((self.last_applied, self.membership.clone()))
    }

    /// Callers are answered after the batch is published, so that each reads its own write.
    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut next = MeshState::clone(&self.state);
        let mut answers = Vec::new();
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcome = match &entry.payload {
                EntryPayload::Normal(request) => next.apply(entry.log_id.index, &request.0),
                EntryPayload::Blank => Outcome::Done(next.revision),
                EntryPayload::Membership(membership) => {
                    self.membership = Membership::new(Some(entry.log_id), membership.clone());
                    Outcome::Done(next.revision)
                }
            };
            self.last_applied = Some(entry.log_id);
            answers.extend(responder.map(|responder| (responder, outcome)));
        }
        self.state = Arc::new(next);
        self.published.publish(&self.state);
        for (responder, outcome) in answers {
            responder.send(outcome);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        let meta = SnapshotMeta {
            last_log_id: self.last_applied,
            last_membership: self.membership.clone(),
        };
        let checkpoint = Checkpoint { meta, state: Arc::clone(&self.state) };
        Builder { store: self.store.clone(), checkpoint }
    }

    async fn install_snapshot(
        &mut self, meta: &SnapshotMeta, state: Self::SnapshotData,
    ) -> Result<(), io::Error> {
        let checkpoint = Checkpoint { meta: meta.clone(), state: Arc::clone(&state) };
        self.store.clone().save(checkpoint).await?;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.state = state;
        self.published.publish(&self.state);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, Self::SnapshotData>>, io::Error> {
        Ok(self.store.current().clone().map(into_snapshot))
    }
}

/// Writes one checkpoint, of the state at the time it was asked for.
#[derive(Debug)]
pub(crate) struct Builder {
    store: Store,
    checkpoint: Checkpoint,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Arc<MeshState>;

    async fn build_snapshot(
        &mut self,
    ) -> Result<SnapshotOf<TypeConfig, Self::SnapshotData>, io::Error> {
        self.store.clone().save(self.checkpoint.clone()).await?;
        Ok(into_snapshot(self.checkpoint.clone()))
    }
}

/// Checkpoints on disk, and the newest of them in memory, where it shares most with the state.
#[derive(Clone, Debug)]
struct Store {
    root: PathBuf,
    /// Held while one is written, so that a build and an install do not cross.
    current: Arc<Mutex<Option<Checkpoint>>>,
}

impl Store {
    /// Writes `checkpoint` unless a newer one is there.
    async fn save(self, checkpoint: Checkpoint) -> io::Result<()> {
        let write = move || {
            let mut current = self.current();
            let newer = current
                .as_ref()
                .is_some_and(|now| now.meta.last_log_id > checkpoint.meta.last_log_id);
            if !newer {
                checkpoint::write(&self.root, &checkpoint)?;
                *current = Some(checkpoint);
            }
            Ok(())
        };
        let outcome = tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?;
        outcome.map_err(|error: CheckpointError| {
            tracing::error!(%error, source = ?std::error::Error::source(&error),
                "checkpoint was not written");
            io::Error::other(error)
        })
    }

    fn current(&self) -> MutexGuard<'_, Option<Checkpoint>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn into_snapshot(Checkpoint { meta, state }: Checkpoint) -> SnapshotOf<TypeConfig, Arc<MeshState>> {
    SnapshotOf::<TypeConfig, _> { meta, snapshot: state }
}
