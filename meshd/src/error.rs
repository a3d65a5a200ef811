//! [`RunError`]: why a server does not start, or ended.

use std::io;
use std::sync::Arc;

use mesh_net::tasks::TaskError;

pub use crate::api::ListenError;
use crate::ca::KekError;
pub use crate::disk::DiskError;
use crate::raft::{NodeFailed, OpenError};

/// Why a server does not start, or ended. Its text, its causes and [`RunError::remedy`] say what to
/// do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The data directory is of no use.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The key-encryption key cannot be read.
    #[error(
        "cannot read the key-encryption key, without which this server cannot sign certificates; every server of the mesh holds the same one, so it can be copied from another"
    )]
    Kek(#[from] Box<KekError>),
    /// A port cannot be opened.
    #[error(transparent)]
    Listen(#[from] Box<ListenError>),
    /// Raft cannot start.
    #[error("cannot take part in the cluster")]
    Open(#[from] Box<OpenError>),
    /// Raft ended: mostly the disk is full or failing.
    #[error(transparent)]
    Node(#[from] NodeFailed),
    /// A part of the server broke.
    #[error("a part of this server failed")]
    Task(#[source] TaskError<std::convert::Infallible>),
    /// The state of the disk did not give a CA.
    #[error("the state on this server did not become readable within {0:?}")]
    NoState(std::time::Duration),
    /// A thread for blocking work failed.
    #[error("cannot work on the disk")]
    Thread(#[from] tokio::task::JoinError),
    /// The log could not be closed.
    #[error("the log was not closed well: {0}")]
    Close(String),
}

impl RunError {
    /// What the process exits with: 74 (`EX_IOERR`) if the disk fails, else 1.
    pub fn exit_code(&self) -> u8 {
        if self.is_disk() { 74 } else { 1 }
    }

    /// What to do about a disk that fails; other errors say it themselves.
    pub fn remedy(&self) -> Option<&'static str> {
        self.is_disk().then_some(
            "look at the disk (`df`, `dmesg`): free some space or mend it, then start this server \
             again",
        )
    }

    fn is_disk(&self) -> bool {
        let by_disk = matches!(self, Self::Node(_) | Self::Close(_)) || has_io_error(self);
        by_disk && !matches!(self, Self::Listen(_))
    }
}

fn has_io_error(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        // The log shares its errors between those who wait for them.
        let shared = error.downcast_ref::<Arc<io::Error>>().map(Arc::as_ref);
        if let Some(io) = error.downcast_ref::<io::Error>().or(shared) {
            let kind = io.kind();
            return kind != io::ErrorKind::NotFound && kind != io::ErrorKind::PermissionDenied;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::wal::WalError;

    #[test]
    fn a_failing_disk_has_its_own_exit_code() {
        let disk = |kind| {
            let (action, path) = ("read", "/var/lib/meshd".into());
            let source = io::Error::from(kind);
            RunError::Disk(DiskError::Directory { action, path, source })
        };
        assert_eq!(disk(io::ErrorKind::StorageFull).exit_code(), 74);
        assert_eq!(disk(io::ErrorKind::PermissionDenied).exit_code(), 1);
        let full = RunError::Node(NodeFailed("no space".to_owned()));
        assert_eq!(full.exit_code(), 74);
        assert!(full.remedy().is_some_and(|text| text.contains("free some space")));
        let log = |kind| {
            let (op, path) = ("write", "/var/lib/meshd".into());
            let source = Arc::new(io::Error::from(kind));
            let error = OpenError::Wal(WalError::Io { op, path, source });
            RunError::Open(Box::new(error))
        };
        assert_eq!(log(io::ErrorKind::StorageFull).exit_code(), 74);
        assert_eq!(log(io::ErrorKind::PermissionDenied).exit_code(), 1);
        let address = ([127, 0, 0, 1], 7300).into();
        let source = io::Error::from(io::ErrorKind::AddrInUse);
        let taken = ListenError::Bind { what: "api", address, source };
        let taken = RunError::Listen(Box::new(taken));
        assert_eq!((taken.exit_code(), taken.remedy()), (1, None));
    }
}
