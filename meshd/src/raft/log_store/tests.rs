//! openraft's own storage suite on real files, with the least state machine that it accepts; then
//! what the suite does not ask: reopening, order, errors.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{Stream, TryStreamExt};
use openraft::alias::{SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::storage::{EntryResponder, RaftLogStorageExt, RaftStateMachine, Snapshot};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, Membership, RaftSnapshotBuilder, StorageError};
use tempfile::TempDir;

use super::*;
use crate::raft::ServerNode;
use crate::raft::wal::Options;

/// Applies nothing but log ids and memberships.
#[derive(Clone, Default)]
struct Machine(Arc<Mutex<Applied>>);

#[derive(Clone, Default)]
struct Applied {
    last: Option<LogIdOf<TypeConfig>>,
    membership: StoredMembershipOf<TypeConfig>,
    snapshot: Option<SnapshotMetaOf<TypeConfig>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, ()>, io::Error> {
        let mut state = self.0.lock().unwrap();
        let meta = SnapshotMetaOf::<TypeConfig> {
            last_log_id: state.last,
            last_membership: state.membership.clone(),
        };
        state.snapshot = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<TypeConfig>>, StoredMembershipOf<TypeConfig>), io::Error> {
        let state = self.0.lock().unwrap();
        Ok((state.last, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            assert!(responder.is_none(), "the suite expects no answers");
            let mut state = self.0.lock().unwrap();
            state.last = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                state.membership = StoredMembershipOf::<TypeConfig>::new(state.last, membership);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self, meta: &SnapshotMetaOf<TypeConfig>, (): (),
    ) -> Result<(), io::Error> {
        let mut state = self.0.lock().unwrap();
        state.last = meta.last_log_id;
        state.membership = meta.last_membership.clone();
        state.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, ()>>, io::Error> {
        let meta = self.0.lock().unwrap().snapshot.clone();
        Ok(meta.map(|meta| Snapshot { meta, snapshot: () }))
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        Ok((dir, store, Machine::default()))
    }
}

fn open(dir: &Path) -> LogStore {
    let options = Options { segment_bytes: 1_000, ..Options::default() };
    LogStore::new(Wal::open(dir, options).unwrap())
}

fn log_id(term: u64, index: u64) -> LogIdOf<TypeConfig> {
    use openraft::vote::RaftLeaderIdExt;
    type Leader = openraft::alias::LeaderIdOf<TypeConfig>;
    LogIdOf::<TypeConfig>::new(Leader::new_committed(term, 1), index)
}

fn blank(term: u64, index: u64) -> EntryOf<TypeConfig> {
    EntryOf::<TypeConfig>::new_blank(log_id(term, index))
}

async fn append(store: &mut LogStore, entries: Vec<EntryOf<TypeConfig>>) {
    let append = store.blocking_append(entries);
    tokio::time::timeout(Duration::from_secs(20), append).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}

#[tokio::test]
async fn everything_raft_knows_survives_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let vote = VoteOf::<TypeConfig>::new_committed(7, 3);
    let node = ServerNode {
        name: "s1".parse().unwrap(),
        raft_address: "h:7301".into(),
        api_address: "h:7300".into(),
    };
    let nodes = std::collections::BTreeMap::from([(1, node)]);
    let membership = Membership::new(vec![[1].into()], nodes).unwrap();
    store.save_vote(&vote).await.unwrap();
    let config = EntryOf::<TypeConfig>::new_membership(log_id(7, 9), membership.clone());
    append(&mut store, (0..9).map(|i| blank(2, i)).chain([config]).collect()).await;
    store.purge(log_id(2, 3)).await.unwrap();
    store.save_committed(Some(log_id(2, 5))).await.unwrap();
    store.wal().close().unwrap();
    let mut store = open(dir.path());
    assert_eq!(store.read_vote().await.unwrap(), Some(vote));
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(2, 5)));
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(2, 3)));
    assert_eq!(state.last_log_id, Some(log_id(7, 9)));
    let entries = store.try_get_log_entries(..).await.unwrap();
    assert_eq!(entries.len(), 6);
    assert_eq!(entries[5].payload, EntryPayload::Membership(membership));
}

#[tokio::test]
async fn replication_reads_stop_at_their_bound_and_never_come_back_empty() {
    use mesh_core::command::{Command, CommandKind};
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let command = |size: usize| {
        let kind = CommandKind::ApplyPolicy1(mesh_core::command::ApplyPolicy1 {
            expected: None,
            files: vec![],
            remove: vec![],
            message: "x".repeat(size),
        });
        let by = mesh_core::trust::Principal::Anonymous;
        Command { at: mesh_core::time::UnixMillis(1), by, kind }
    };
    let entries = (0..6).map(|index| {
        let size = if index == 0 { 3 << 20 } else { 400 << 10 };
        EntryOf::<TypeConfig>::new_normal(log_id(1, index), crate::raft::Request(command(size)))
    });
    append(&mut store, entries.clone().collect()).await;
    let lens = [(0, 1), (1, 2), (5, 1)];
    for (start, want) in lens {
        assert_eq!(store.limited_get_log_entries(start, 6).await.unwrap().len(), want, "{start}");
    }
    let read = store.try_get_log_entries(..).await.unwrap();
    assert_eq!(read, entries.collect::<Vec<_>>(), "commands read back as they were");
}

#[tokio::test]
async fn a_closed_log_answers_every_call_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.wal().close().unwrap();
    assert!(store.save_vote(&VoteOf::<TypeConfig>::new(1, 1)).await.is_err());
    assert!(store.append([blank(1, 0)], IOFlushed::noop()).await.is_err());
    assert!(store.read_vote().await.is_err());
    assert!(store.get_log_state().await.is_err());
}

#[tokio::test]
async fn a_hole_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store, vec![blank(1, 0)]).await;
    let error = store.append([blank(1, 2)], IOFlushed::noop()).await.unwrap_err();
    assert_eq!(error.to_string(), "entry has index 2, expected 1");
}
