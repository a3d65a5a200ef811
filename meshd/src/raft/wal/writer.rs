//! The one thread that writes: takes all that is queued, writes it as a batch, syncs once, answers
//! in order. Its first error is its last.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::disk::Disk;
use super::image::Image;
use super::record::Record;
use super::{Options, WalError};

/// Told once, on the writer's thread, that a record is on disk or never will be. Must not block.
pub type Done = Box<dyn FnOnce(Result<(), WalError>) + Send>;

/// A record on its way to disk.
pub(super) struct Op {
    pub(super) record: Record,
    pub(super) done: Option<Done>,
}

impl Op {
    /// The commit index may wait a little for company; everything else is urgent.
    fn is_urgent(&self) -> bool {
        !matches!(self.record, Record::Committed(_))
    }
}

/// What the callers and the writer share.
pub(super) struct Shared {
    pub(super) options: Options,
    state: Mutex<State>,
    work: Condvar,
    /// Set once, by the first error.
    pub(super) failed: watch::Sender<Option<WalError>>,
    /// Bytes queued or being written.
    pub(super) queued: watch::Sender<usize>,
}

/// One lock for memory and queue: their orders cannot differ.
pub(super) struct State {
    pub(super) image: Image,
    pending: VecDeque<Op>,
    /// When the oldest commit index in `pending` must be written, if nothing urgent came before.
    due: Option<Instant>,
    urgent: usize,
    closed: bool,
    failed: Option<WalError>,
}

impl Shared {
    pub(super) fn new(options: Options, image: Image) -> Self {
        let state = State {
            image,
            pending: VecDeque::new(),
            due: None,
            urgent: 0,
            closed: false,
            failed: None,
        };
        Self {
            options,
            state: Mutex::new(state),
            work: Condvar::new(),
            failed: watch::Sender::new(None),
            queued: watch::Sender::new(0),
        }
    }

    /// The state, unless the log is over.
    pub(super) fn lock(&self) -> Result<MutexGuard<'_, State>, WalError> {
        let state = self.state();
        match &state.failed {
            Some(error) => Err(error.clone()),
            None if state.closed => Err(WalError::Closed),
            None => Ok(state),
        }
    }

    /// Puts `ops` into memory and onto the queue, in one step with whatever was checked under `state`.
    pub(super) fn submit(&self, mut state: MutexGuard<'_, State>, ops: Vec<Op>) {
        let mut bytes = 0;
        for op in ops {
            bytes += op.record.len();
            state.push(op, &self.options);
        }
        // Before the writer can see them, or it would subtract first.
        self.queued.send_modify(|queued| *queued += bytes);
        drop(state);
        self.work.notify_one();
    }

    /// Lets the writer end once the queue is empty.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.work.notify_one();
    }

    /// Nothing under this lock panics half-way, so a poisoned state is still whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch, at most `batch_bytes` unless one record is larger; none once closed and empty.
    fn take(&self) -> Option<Vec<Op>> {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            if state.is_ready(now) {
                return Some(state.drain(self.options.batch_bytes));
            }
            if state.closed {
                return None;
            }
            state = match state.due {
                Some(due) => {
                    let wait = self.work.wait_timeout(state, due.saturating_duration_since(now));
                    wait.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Ends the log: nothing more gets in, then `batch` and all that is queued are answered in order.
    fn fail(&self, error: &WalError, batch: Vec<Op>) {
        let mut state = self.state();
        state.failed.get_or_insert_with(|| error.clone());
        let rest = std::mem::take(&mut state.pending);
        drop(state);
        self.failed.send_modify(|failed| {
            failed.get_or_insert_with(|| error.clone());
        });
        self.queued.send_replace(0);
        answer(batch.into_iter().chain(rest), &Err(error.clone()));
    }
}

impl State {
    fn push(&mut self, op: Op, options: &Options) {
        self.image.apply(&op.record);
        if op.is_urgent() {
            self.urgent += 1;
        } else {
            self.due.get_or_insert_with(|| Instant::now() + options.commit_delay);
        }
        self.pending.push_back(op);
    }

    fn is_ready(&self, now: Instant) -> bool {
        let due = self.closed || self.due.is_some_and(|due| due <= now);
        self.urgent > 0 || (due && !self.pending.is_empty())
    }

    fn drain(&mut self, batch_bytes: usize) -> Vec<Op> {
        let mut bytes = 0;
        let fitting = self.pending.iter().take_while(|op| {
            bytes += op.record.len();
            bytes <= batch_bytes
        });
        let count = fitting.count();
        let batch: Vec<Op> = self.pending.drain(..count.clamp(1, self.pending.len())).collect();
        self.urgent -= batch.iter().filter(|op| op.is_urgent()).count();
        if self.pending.iter().all(Op::is_urgent) {
            self.due = None;
        }
        batch
    }
}

/// The writer thread's body.
pub(super) fn run(shared: &Shared, mut disk: Disk) {
    let _guard = FailOnPanic(shared);
    while let Some(batch) = shared.take() {
        let bytes: usize = batch.iter().map(|op| op.record.len()).sum();
        if let Err(error) = disk.commit(batch.iter().map(|op| &op.record)) {
            return shared.fail(&error, batch);
        }
        answer(batch, &Ok(()));
        if let Err(error) = disk.drop_purged() {
            return shared.fail(&error, Vec::new());
        }
        shared.queued.send_modify(|queued| *queued = queued.saturating_sub(bytes));
    }
    if let Err(error) = disk.seal() {
        shared.fail(&error, Vec::new());
    }
}

fn answer(ops: impl IntoIterator<Item = Op>, outcome: &Result<(), WalError>) {
    for done in ops.into_iter().filter_map(|op| op.done) {
        done(outcome.clone());
    }
}

/// A caller's `done` that panics must not leave others waiting for a thread that is gone.
struct FailOnPanic<'a>(&'a Shared);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&WalError::Closed, Vec::new());
        }
    }
}
