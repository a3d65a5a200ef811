//! The write-ahead log: Raft's vote, entries, commit index and purge mark on disk.
//!
//! State kind: *ground*. Everything else a server knows follows from it.
//!
//! Promises, each held by a test here:
//! - What was acknowledged survives a power cut; a vote never goes back; there is never a hole.
//! - Records reach the disk in the order in which the calls were made, whatever their kind.
//! - One sync serves all that waits (group commit), on a thread of its own.
//! - The first error of a write or a sync ends the log. Nothing is retried: a kernel that failed a
//!   sync may have dropped the data and say `Ok` the next time.
//! - A write cut short by a power cut is dropped; damage to what was once on disk is refused.
//!
//! Reading order: [`Wal`] is the handle; `image` is the log in memory; `writer` is the thread; `disk`
//! writes and recovers segments; `segment` and `record` are the format; `vfs` is the file system.
//! docs/decisions/0001-log-storage.md says why it is our own.

mod error;

mod writer;

mod image;

mod disk;

mod segment;

mod record;

mod vfs;

#[cfg(test)]
mod sim;

#[cfg(test)]
mod tests;

use std::ops::RangeBounds;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

pub use self::error::WalError;
pub use self::record::Mark;
pub use self::vfs::{RealVfs, Vfs, VfsFile};
pub use self::writer::Done;

use self::disk::Disk;
use self::record::Record;
use self::writer::{Op, Shared, State};

/// Sizes and waits of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A segment that a batch would bring over this many bytes is closed first. Default 16 MiB.
    pub segment_bytes: u64,
    /// Most bytes of one batch, unless one record is larger. Default 4 MiB.
    pub batch_bytes: usize,
    /// [`Wal::room`] waits while more bytes than this are queued. Default 64 MiB.
    pub queue_bytes: usize,
    /// How long a commit index may wait for other records to share their sync. Default 50 ms.
    pub commit_delay: Duration,
    /// How long a caller waits for the disk before it gives the log up. Default 30 s.
    pub stall_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            batch_bytes: 4 << 20,
            queue_bytes: 64 << 20,
            commit_delay: Duration::from_millis(50),
            stall_max: Duration::from_secs(30),
        }
    }
}

/// What the log holds besides the entries' bodies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalState {
    /// The last vote saved.
    pub vote: Option<Bytes>,
    /// The last commit index saved.
    pub committed: Option<Mark>,
    /// The last entry purged, and with it all before.
    pub purged: Option<Mark>,
    /// Index of the first entry, if there is one.
    pub first: Option<u64>,
    /// Index and body of the last entry, if there is one.
    pub last: Option<Mark>,
    /// Bytes of all entries' bodies: what the log holds in memory.
    pub live_bytes: usize,
}

/// A handle to an open log; clones share it. The last one dropped closes it.
///
/// Calls change memory at once and are readable at once; `done` is called when they are on disk.
/// Callers that need one order among their calls make them from one place.
#[derive(Clone)]
pub struct Wal {
    inner: Arc<Owner>,
}

/// Owns the writer thread.
struct Owner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Wal {
    /// Opens the log in `dir` of this machine's file system, or makes it. Blocks while it replays.
    ///
    /// # Errors
    /// [`WalError::Locked`] if another handle or process has it; `Corrupt`, `Missing`, `Gap` or
    /// `Version` if it must not be used; `Io` if the disk refuses.
    pub fn open(dir: &Path, options: Options) -> Result<Self, WalError> {
        Self::open_on(Arc::new(RealVfs), dir, options)
    }

    /// Opens the log on another file system; as [`Wal::open`].
    ///
    /// # Errors
    /// As [`Wal::open`].
    pub fn open_on(vfs: Arc<dyn Vfs>, dir: &Path, options: Options) -> Result<Self, WalError> {
        let (disk, image) = Disk::open(vfs, dir, &options)?;
        let shared = Arc::new(Shared::new(options, image));
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("wal-writer".to_owned())
            .spawn(move || writer::run(&theirs, disk))
            .map_err(|error| WalError::io("start a writer for", dir, error))?;
        Ok(Self { inner: Arc::new(Owner { shared, thread: Mutex::new(Some(thread)) }) })
    }

    /// Saves the vote, replacing the one before.
    ///
    /// # Errors
    /// [`WalError::TooLarge`], or why the log is over; then `done` is not called.
    pub fn save_vote(&self, vote: Bytes, done: Done) -> Result<(), WalError> {
        let record = Record::Vote(vote);
        record.check_len()?;
        self.submit(self.shared().lock()?, record, Some(done));
        Ok(())
    }

    /// Appends entries of consecutive indices; `done` follows the last. No entries: `done` follows
    /// at the next sync all the same.
    ///
    /// # Errors
    /// [`WalError::Hole`] if the first index is not the next one or they are not consecutive,
    /// [`WalError::TooLarge`], or why the log is over; then nothing is appended and `done` not called.
    pub fn append(&self, entries: Vec<(u64, Bytes)>, done: Done) -> Result<(), WalError> {
        let state = self.shared().lock()?;
        let mut expected = None;
        let mut ops = Vec::with_capacity(entries.len());
        for (index, body) in entries {
            match expected {
                None => state.image.check_next(index)?,
                Some(expected) if expected != index => {
                    return Err(WalError::Hole { found: index, expected });
                }
                Some(_) => {}
            }
            expected = Some(index.saturating_add(1));
            let record = Record::Entry { index, body };
            record.check_len()?;
            ops.push(Op { record, done: None });
        }
        match ops.last_mut() {
            Some(last) => last.done = Some(done),
            // Rides on a record that changes nothing, so that it still keeps its turn.
            None => {
                let record = Record::TruncateAfter(Some(u64::MAX));
                ops.push(Op { record, done: Some(done) });
            }
        }
        self.shared().submit(state, ops);
        Ok(())
    }

    /// Removes the entries above `last`, or all if it is none.
    ///
    /// # Errors
    /// Why the log is over.
    pub fn truncate_after(&self, last: Option<u64>) -> Result<(), WalError> {
        self.submit(self.shared().lock()?, Record::TruncateAfter(last), None);
        Ok(())
    }

    /// Removes the entries up to and with `mark`, which may lie past the last. Does nothing if that
    /// much was purged before.
    ///
    /// # Errors
    /// [`WalError::TooLarge`], or why the log is over.
    pub fn purge(&self, mark: Mark) -> Result<(), WalError> {
        let state = self.shared().lock()?;
        if state.image.kept.purged_index() >= Some(mark.index) {
            return Ok(());
        }
        let record = Record::Purge(mark);
        record.check_len()?;
        self.submit(state, record, None);
        Ok(())
    }

    /// Saves the commit index, within [`Options::commit_delay`]: a crash may lose the newest.
    ///
    /// # Errors
    /// [`WalError::TooLarge`], or why the log is over.
    pub fn save_committed(&self, mark: Option<Mark>) -> Result<(), WalError> {
        let record = Record::Committed(mark);
        record.check_len()?;
        self.submit(self.shared().lock()?, record, None);
        Ok(())
    }

    /// The entries of `range` that the log holds, in order, taken at one moment.
    ///
    /// `max_bytes` bounds the sum of their bodies; the first entry comes whatever its size.
    ///
    /// # Errors
    /// Why the log is over.
    pub fn read(
        &self, range: impl RangeBounds<u64>, max_bytes: usize,
    ) -> Result<Vec<(u64, Bytes)>, WalError> {
        let state = self.shared().lock()?;
        if is_empty(&range) {
            return Ok(Vec::new());
        }
        let mut bytes = 0;
        let entries = state.image.entries.range(range);
        let fitting = entries.take_while(|(_, body)| {
            let first = bytes == 0;
            bytes += body.len().max(1);
            first || bytes <= max_bytes
        });
        Ok(fitting.map(|(index, body)| (*index, body.clone())).collect())
    }

    /// Bytes of the entries after `index`, or of all. Looks at each of them.
    ///
    /// # Errors
    /// Why the log is over.
    pub fn bytes_after(&self, index: Option<u64>) -> Result<usize, WalError> {
        let state = self.shared().lock()?;
        let first = index.map_or(0, |index| index.saturating_add(1));
        Ok(state.image.entries.range(first..).map(|(_, body)| body.len()).sum())
    }

    /// Vote, marks and ends of the log.
    ///
    /// # Errors
    /// Why the log is over.
    pub fn state(&self) -> Result<WalState, WalError> {
        let state = self.shared().lock()?;
        let image = &state.image;
        let last = image.entries.last_key_value();
        Ok(WalState {
            vote: image.kept.vote.clone(),
            committed: image.kept.committed.clone(),
            purged: image.kept.purged.clone(),
            first: image.entries.keys().next().copied(),
            last: last.map(|(index, body)| Mark { index: *index, body: body.clone() }),
            live_bytes: image.live_bytes,
        })
    }

    /// Becomes `Some` once, when the log has failed: the server must end.
    pub fn failed(&self) -> watch::Receiver<Option<WalError>> {
        self.shared().failed.subscribe()
    }

    /// Waits until at most [`Options::queue_bytes`] are queued. Cancel safe.
    ///
    /// # Errors
    /// [`WalError::Stalled`] after [`Options::stall_max`].
    pub async fn room(&self) -> Result<(), WalError> {
        let Options { queue_bytes, stall_max, .. } = self.shared().options;
        let mut queued = self.shared().queued.subscribe();
        let enough = queued.wait_for(|queued| *queued <= queue_bytes);
        match tokio::time::timeout(stall_max, enough).await {
            Ok(_) => Ok(()),
            Err(_) => Err(WalError::Stalled(stall_max)),
        }
    }

    /// As [`Wal::save_vote`], and blocks until the vote is on disk.
    ///
    /// # Errors
    /// As [`Wal::save_vote`], and [`WalError::Stalled`]: then it may still be saved later.
    pub fn save_vote_blocking(&self, vote: Bytes) -> Result<(), WalError> {
        self.blocking(|done| self.save_vote(vote, done))
    }

    /// As [`Wal::append`], and blocks until the entries, and all calls before, are on disk.
    ///
    /// # Errors
    /// As [`Wal::append`], and [`WalError::Stalled`]: then they may still be written later.
    pub fn append_blocking(&self, entries: Vec<(u64, Bytes)>) -> Result<(), WalError> {
        self.blocking(|done| self.append(entries, done))
    }

    /// Writes what is queued and ends the writer; blocks until it has. Later calls answer
    /// [`WalError::Closed`].
    ///
    /// # Errors
    /// The log's failure, if it had failed or fails now.
    pub fn close(&self) -> Result<(), WalError> {
        self.inner.join();
        match &*self.shared().failed.borrow() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// How long a caller should wait for `done`.
    pub fn stall_max(&self) -> Duration {
        self.shared().options.stall_max
    }

    fn blocking(&self, start: impl FnOnce(Done) -> Result<(), WalError>) -> Result<(), WalError> {
        let (tx, rx) = mpsc::sync_channel(1);
        start(Box::new(move |outcome| {
            // The caller may have given up.
            let _ = tx.send(outcome);
        }))?;
        match rx.recv_timeout(self.stall_max()) {
            Ok(outcome) => outcome,
            Err(mpsc::RecvTimeoutError::Timeout) => Err(WalError::Stalled(self.stall_max())),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(WalError::Closed),
        }
    }

    fn submit(&self, state: MutexGuard<'_, State>, record: Record, done: Option<Done>) {
        self.shared().submit(state, vec![Op { record, done }]);
    }

    fn shared(&self) -> &Shared {
        &self.inner.shared
    }
}

impl Owner {
    fn join(&self) {
        self.shared.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let here = std::thread::current().id();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != here) {
            // A panic there has been reported through `failed`.
            let _ = thread.join();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.join();
    }
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal").finish_non_exhaustive()
    }
}

/// `BTreeMap::range` panics on ranges that `RangeBounds` can express but that hold nothing.
fn is_empty(range: &impl RangeBounds<u64>) -> bool {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    match (range.start_bound(), range.end_bound()) {
        (Included(start), Included(end)) => start > end,
        (Included(start) | Excluded(start), Excluded(end)) | (Excluded(start), Included(end)) => {
            start >= end
        }
        (Unbounded, _) | (_, Unbounded) => false,
    }
}
