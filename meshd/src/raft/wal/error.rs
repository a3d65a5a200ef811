//! What can go wrong with the log, in the operator's words.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Why the log could not be opened, written or read. Cheap to clone: one failure answers every waiter.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// The file system refused. While the log runs this is final: nothing is retried.
    #[error("cannot {op} {path:?}")]
    Io {
        /// What was tried, such as `append to`.
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer; shared, since `io::Error` cannot be cloned.
        #[source]
        source: Arc<io::Error>,
    },
    /// Bytes that were once on disk have changed; a power cut does not do this.
    #[error("segment {path:?} is corrupt, not torn: at byte {at} {what}; {REMEDY}")]
    Corrupt {
        /// The damaged segment.
        path: PathBuf,
        /// Offset of the first bad byte's record.
        at: u64,
        /// What was found there.
        what: String,
    },
    /// A segment between others, or before the first entry still needed, is gone.
    #[error("segment {path:?} is missing; {REMEDY}")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Entries between the purged part and the first entry on disk are gone.
    #[error("log {dir:?} starts at entry {found}, expected {expected}; {REMEDY}")]
    Gap {
        /// The log's directory.
        dir: PathBuf,
        /// First entry on disk.
        found: u64,
        /// First entry that was not purged.
        expected: u64,
    },
    /// Another release wrote this segment.
    #[error("segment {path:?} has format version {found}, expected {expected}")]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The version this program writes.
        expected: u16,
    },
    /// Another process holds the log.
    #[error("log {dir:?} is in use by another process")]
    Locked {
        /// The log's directory.
        dir: PathBuf,
    },
    /// An append would leave a hole or overwrite.
    #[error("entry has index {found}, expected {expected}")]
    Hole {
        /// The index given.
        found: u64,
        /// The only index that can be next.
        expected: u64,
    },
    /// A record is over its bound.
    #[error("record has {len} bytes, expected at most {max}")]
    TooLarge {
        /// Bytes given.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The disk made no progress in time. What was queued may still be written.
    #[error("log made no progress for {0:?}")]
    Stalled(Duration),
    /// The log was closed, or its writer ended.
    #[error("log is closed")]
    Closed,
}

const REMEDY: &str = "acknowledged entries may be lost, so this server must not vote: keep a copy of \
    the directory, remove this server from the cluster, empty its data directory and let it join \
    under a new id; only if no majority is left, restore a backup";

impl WalError {
    pub(super) fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { op, path: path.to_owned(), source: Arc::new(source) }
    }

    pub(super) fn corrupt(path: &Path, at: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), at, what: what.into() }
    }

    /// The nearest `io` kind, so that callers can tell a full disk from a broken one.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io { source, .. } => source.kind(),
            Self::Corrupt { .. } | Self::Missing { .. } | Self::Gap { .. } => {
                io::ErrorKind::InvalidData
            }
            Self::Version { .. } => io::ErrorKind::Unsupported,
            Self::Locked { .. } => io::ErrorKind::ResourceBusy,
            Self::Hole { .. } | Self::TooLarge { .. } => io::ErrorKind::InvalidInput,
            Self::Stalled(_) => io::ErrorKind::TimedOut,
            Self::Closed => io::ErrorKind::BrokenPipe,
        }
    }
}

impl From<WalError> for io::Error {
    fn from(error: WalError) -> Self {
        Self::new(error.kind(), error)
    }
}
