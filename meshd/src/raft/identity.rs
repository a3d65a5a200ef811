//! Who a data directory belongs to: a file beside the log, so that neither is used without the
//! other.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mesh_core::identity::TrustDomain;
use mesh_core::name::{Datacenter, ServerName};
use serde::{Deserialize, Serialize};

/// A server's lasting identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerIdentity {
    /// Its Raft id, never used twice.
    pub id: u64,
    /// Its name.
    pub name: ServerName,
    /// The cluster it belongs to.
    pub trust_domain: TrustDomain,
    /// Where it stands.
    pub datacenter: Datacenter,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The disk refused.
    #[error("cannot {op} {path:?}")]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not an identity file.
    #[error("identity file {path:?} cannot be read: {what}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The log is gone: the server may have voted and does not know it.
    #[error(
        "disk lost: this is server {name} with id {id}, but its log {log:?} is missing; a \
        server without its log must not vote: remove it from the cluster (`mesh server remove {name}`), \
        empty its data directory and let it join again under a new id"
    )]
    DiskLost {
        /// Who it was.
        name: ServerName,
        /// Its id.
        id: u64,
        /// Where the log should be.
        log: PathBuf,
    },
    /// A log of nobody known.
    #[error(
        "log {log:?} has entries but there is no identity file {path:?}: restore it from the \
        same backup as the log, or remove this server from the cluster, empty its data directory and \
        let it join again"
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The log.
        log: PathBuf,
    },
    /// Another server's directory.
    #[error("data directory {path:?} belongs to server {found}, expected {expected}")]
    Other {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who wants it.
        expected: String,
    },
}

impl ServerIdentity {
    /// The identity kept in `dir`, which is `<data>/raft`; `None` if there is none. Blocks.
    ///
    /// # Errors
    /// [`IdentityError::Io`] or `Content`.
    pub fn read(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::Io { op: "read", path, source }),
        };
        let parsed = serde_json::from_str(&text);
        parsed.map(Some).map_err(|e| IdentityError::Content { path, what: e.to_string() })
    }

    /// Before the log is opened: refuses a directory whose log is lost, or that is not ours.
    pub(crate) fn check(&self, dir: &Path) -> Result<(), IdentityError> {
        let Some(found) = Self::read(dir)? else {
            return Ok(());
        };
        if found != *self {
            let (found, expected) = (format!("{found:?}"), format!("{self:?}"));
            return Err(IdentityError::Other { path: dir.to_owned(), found, expected });
        }
        let log = dir.join(LOG);
        let is_segment = |entry: io::Result<fs::DirEntry>| {
            entry.is_ok_and(|e| e.file_name() != "lock" && e.metadata().is_ok_and(|m| m.len() > 0))
        };
        let there = fs::read_dir(&log).is_ok_and(|mut entries| entries.any(is_segment));
        if there {
            return Ok(());
        }
        Err(IdentityError::DiskLost { name: found.name, id: found.id, log })
    }

    /// After the log is opened: keeps the identity, if it is new. A log with content must have one.
    pub(crate) fn keep(&self, dir: &Path, log_is_empty: bool) -> Result<(), IdentityError> {
        let path = dir.join(FILE);
        if path.exists() {
            return Ok(());
        }
        if !log_is_empty {
            return Err(IdentityError::Missing { path, log: dir.join(LOG) });
        }
        let tmp = dir.join("id.tmp");
        let io = |op, path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::Io { op, path, source }
        };
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| IdentityError::Content { path: path.clone(), what: e.to_string() })?;
        let mut file = File::create(&tmp).map_err(io("create", &tmp))?;
        file.write_all(text.as_bytes()).map_err(io("write", &tmp))?;
        file.sync_all().map_err(io("sync", &tmp))?;
        fs::rename(&tmp, &path).map_err(io("rename", &tmp))?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync", dir))
    }
}

const FILE: &str = "id";
/// The log's directory, beside the file.
pub(crate) const LOG: &str = "wal";
