//! Keeps the log short in bytes, as openraft keeps it short in entries: the log's entries are in
//! memory, and a policy of 1 MiB is an entry like any other.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::async_runtime::watch::WatchReceiver;
use tokio_util::sync::CancellationToken;

use super::checkpoint;
use super::cluster::Cluster;
use super::wal::{Wal, WalState};
use crate::limits::raft::{CHECKPOINTS_KEPT, COMPACT_EVERY};

/// How long the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sizes {
    /// Bytes of all entries.
    live: usize,
    /// Bytes of the entries after the newest checkpoint.
    since_checkpoint: usize,
    /// The last entry that the log dropped.
    purged: Option<u64>,
    /// Indices of the checkpoints on disk, newest first.
    checkpoints: Vec<u64>,
}

/// What makes it shorter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Steps {
    /// Write a checkpoint.
    checkpoint: bool,
    /// Drop the entries up to and with this one.
    purge: Option<u64>,
}

/// A checkpoint every `bytes`, and nothing kept that the older of two checkpoints has: so the log
/// holds about three times `bytes` at most, and either checkpoint is still of use.
fn steps(sizes: &Sizes, bytes: usize) -> Steps {
    let older = sizes.checkpoints.get(CHECKPOINTS_KEPT - 1).copied();
    let long = sizes.live >= bytes.saturating_mul(2);
    Steps {
        checkpoint: sizes.since_checkpoint >= bytes,
        purge: older.filter(|older| long && Some(*older) > sizes.purged),
    }
}

/// Looks at the log's size until `stop`; `root` is where checkpoints are.
pub(crate) async fn run(
    cluster: Arc<Cluster>, wal: Wal, root: PathBuf, bytes: usize, stop: CancellationToken,
) {
    let work = async {
        let mut look = tokio::time::interval(COMPACT_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            if let Err(error) = turn(&cluster, &wal, &root, bytes).await {
                // a log or a Raft that failed is told of where the server ends for it
                tracing::warn!(%error, "the log's size could not be looked at");
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

async fn turn(cluster: &Cluster, wal: &Wal, root: &Path, bytes: usize) -> io::Result<()> {
    let WalState { live_bytes: live, purged, .. } = wal.state()?;
    if live < bytes {
        return Ok(());
    }
    let newest = cluster.raft.metrics().borrow_watched().snapshot.map(|id| id.index);
    let (wal, root) = (wal.clone(), root.to_owned());
    let measure = move || -> io::Result<Sizes> {
        let since_checkpoint = wal.bytes_after(newest)?;
        let checkpoints = checkpoint::indices(&root).map_err(io::Error::other)?;
        let purged = purged.map(|mark| mark.index);
        Ok(Sizes { live, since_checkpoint, purged, checkpoints })
    };
    let sizes = tokio::task::spawn_blocking(measure).await.map_err(io::Error::other)??;
    let Steps { checkpoint, purge } = steps(&sizes, bytes);
    if checkpoint {
        // one that is being written already is not begun anew
        cluster.raft.trigger().snapshot().await.map_err(io::Error::other)?;
    }
    if let Some(upto) = purge {
        tracing::debug!(live, upto, "the log is cut");
        cluster.raft.trigger().purge_log(upto).await.map_err(io::Error::other)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_gets_a_checkpoint_and_is_cut_at_the_older_one() {
        let none = Steps::default();
        let write = Steps { checkpoint: true, purge: None };
        let cut = |upto| Steps { checkpoint: false, purge: Some(upto) };
        type Case<'a> = (&'a str, usize, usize, Option<u64>, &'a [u64], Steps);
        let cases: &[Case<'_>] = &[
            ("short", 99, 99, None, &[], none),
            ("long, no checkpoint yet", 100, 100, None, &[], write),
            ("long since the only one", 150, 100, None, &[7], write),
            ("one checkpoint is not cut at", 500, 10, None, &[7], none),
            ("two, but not long", 199, 50, None, &[9, 7], none),
            ("two, long", 200, 50, None, &[9, 7], cut(7)),
            ("cut there before", 200, 50, Some(7), &[9, 7], none),
            ("cut past it before", 200, 50, Some(8), &[9, 7], none),
            ("both", 250, 100, Some(3), &[9, 7], Steps { checkpoint: true, purge: Some(7) }),
        ];
        for (name, live, since_checkpoint, purged, checkpoints, expected) in cases {
            let sizes = Sizes {
                live: *live,
                since_checkpoint: *since_checkpoint,
                purged: *purged,
                checkpoints: checkpoints.to_vec(),
            };
            assert_eq!(steps(&sizes, 100), *expected, "{name}");
        }
    }
}
