//! openraft's view of the write-ahead log.
//!
//! State kind: *ground*. Keeps nothing of its own: entries, votes and log ids are encoded here
//! (MessagePack with field names) and live in [`Wal`].

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{oneshot, watch};

use super::TypeConfig;
use super::wal::{Mark, Wal, WalError};
use crate::limits::raft::REPLICATE_BYTES;

/// Raft's log store; also its reader. Clones share the log.
#[derive(Clone, Debug)]
pub struct LogStore {
    wal: Wal,
}

impl LogStore {
    /// A store over an open log.
    pub fn new(wal: Wal) -> Self {
        Self { wal }
    }

    /// Becomes `Some` once, when the log has failed: the server must end.
    pub fn failed(&self) -> watch::Receiver<Option<WalError>> {
        self.wal.failed()
    }

    /// The log below.
    pub fn wal(&self) -> &Wal {
        &self.wal
    }

    fn entries(
        &self, range: impl RangeBounds<u64>, max_bytes: usize,
    ) -> io::Result<Vec<EntryOf<TypeConfig>>> {
        let found = self.wal.read(range, max_bytes)?;
        found.iter().map(|(index, body)| decode_entry(*index, body)).collect()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(
        &mut self, range: RB,
    ) -> Result<Vec<EntryOf<TypeConfig>>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.entries(range, usize::MAX)
    }

    async fn limited_get_log_entries(
        &mut self, start: u64, end: u64,
    ) -> Result<Vec<EntryOf<TypeConfig>>, io::Error> {
        self.entries(start..end, REPLICATE_BYTES)
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<TypeConfig>>, io::Error> {
        let vote = self.wal.state()?.vote;
        vote.map(|vote| decode("the vote", &vote)).transpose()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.wal.state()?;
        let last_purged_log_id = state.purged.map(|mark| decode_mark("the purge", &mark));
        let last_purged_log_id = last_purged_log_id.transpose()?;
        let last_log_id = match state.last {
            Some(last) => Some(decode_entry(last.index, &last.body)?.log_id()),
            None => last_purged_log_id,
        };
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    /// Returns once the vote, and all calls before, are on disk. Not cancel safe in openraft's sense: a
    /// dropped call may still save the vote, which Raft allows.
    async fn save_vote(&mut self, vote: &VoteOf<TypeConfig>) -> Result<(), io::Error> {
        let (tx, rx) = oneshot::channel();
        let done = move |outcome| {
            // The caller may be gone: a server that is ending.
            let _ = tx.send(outcome);
        };
        self.wal.save_vote(encode(vote)?, Box::new(done))?;
        let max = self.wal.stall_max();
        match tokio::time::timeout(max, rx).await {
            Ok(Ok(outcome)) => Ok(outcome?),
            Ok(Err(_)) => Err(WalError::Closed.into()),
            Err(_) => Err(WalError::Stalled(max).into()),
        }
    }

    async fn save_committed(
        &mut self, committed: Option<LogIdOf<TypeConfig>>,
    ) -> Result<(), io::Error> {
        let mark = committed.map(|log_id| encode_mark(&log_id)).transpose()?;
        Ok(self.wal.save_committed(mark)?)
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOf<TypeConfig>>, io::Error> {
        let mark = self.wal.state()?.committed;
        mark.map(|mark| decode_mark("the commit index", &mark)).transpose()
    }

    async fn append<I>(
        &mut self, entries: I, callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryOf<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(|entry| Ok((entry.index(), encode(&entry)?)));
        let entries = entries.collect::<io::Result<Vec<_>>>()?;
        self.wal.room().await?;
        let done = move |outcome: Result<(), WalError>| {
            callback.io_completed(outcome.map_err(io::Error::from));
        };
        Ok(self.wal.append(entries, Box::new(done))?)
    }

    async fn truncate_after(
        &mut self, last_log_id: Option<LogIdOf<TypeConfig>>,
    ) -> Result<(), io::Error> {
        Ok(self.wal.truncate_after(last_log_id.map(|log_id| log_id.index()))?)
    }

    async fn purge(&mut self, log_id: LogIdOf<TypeConfig>) -> Result<(), io::Error> {
        Ok(self.wal.purge(encode_mark(&log_id)?)?)
    }
}

fn encode(value: &impl Serialize) -> io::Result<Bytes> {
    let mut bytes = rmp_serde::to_vec_named(value).map_err(io::Error::other)?;
    // it is kept for long, and was grown by doubling
    bytes.shrink_to_fit();
    Ok(Bytes::from(bytes))
}

fn encode_mark(log_id: &LogIdOf<TypeConfig>) -> io::Result<Mark> {
    Ok(Mark { index: log_id.index(), body: encode(log_id)? })
}

fn decode_mark(what: &str, mark: &Mark) -> io::Result<LogIdOf<TypeConfig>> {
    let log_id: LogIdOf<TypeConfig> = decode(what, &mark.body)?;
    same_index(mark.index, log_id.index()).map(|()| log_id)
}

fn decode_entry(index: u64, body: &[u8]) -> io::Result<EntryOf<TypeConfig>> {
    let entry: EntryOf<TypeConfig> = decode(&format!("entry {index}"), body)?;
    same_index(index, entry.index()).map(|()| entry)
}

fn same_index(expected: u64, found: u64) -> io::Result<()> {
    if expected == found {
        return Ok(());
    }
    let text = format!("a log id has index {found}, expected {expected}");
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// The bytes passed their checksum, so a failure here means another release wrote them.
fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> io::Result<T> {
    rmp_serde::from_slice(bytes).map_err(|error| {
        let text = format!("{what} in the log cannot be decoded by this release: {error}");
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

#[cfg(test)]
mod tests;
