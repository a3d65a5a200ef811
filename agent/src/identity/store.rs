//! Keys and certificates on disk: checksummed, synced, readable by the agent alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::limits::identity::FILE_BYTES_MAX;
use mesh_core::name::ServiceName;
use mesh_core::snapshot::HostIdentity;
use mesh_net::files::{self, FileError};
use mesh_net::pack::{self, PackError};
use serde::{Deserialize, Serialize};

/// Keeps the host's identities in `keys` and `identity` of the data directory.
#[derive(Clone, Debug)]
pub struct IdentityStore {
    dir: PathBuf,
}

/// What enrolment gave, and renewal refreshes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// Who the host is.
    pub host: HostIdentity,
    /// The node's certificate and its intermediate, as PEM.
    pub chain_pem: String,
    /// The roots as last seen, as PEM: to verify servers until the bundle is known.
    pub roots_pem: String,
    /// API addresses of the servers, as last told.
    pub servers: Vec<String>,
}

/// A service's key and certificate. Not printed: it holds a key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptSvid {
    pub(super) chain_pem: String,
    #[serde(with = "mesh_core::trust::bytes")]
    pub(super) key_der: Vec<u8>,
}

/// Why an identity cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory cannot be made.
    #[error("cannot make {path}", path = path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read or written, or is damaged.
    #[error("identity on disk")]
    File(#[from] FileError),
    /// A file holds something else.
    #[error("identity in {path} is not understood", path = path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: PackError,
    },
}

impl IdentityStore {
    /// Opens the store, and makes its directories (0700).
    ///
    /// # Errors
    /// [`StoreError::Directory`].
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let store = Self { dir: data_dir.to_owned() };
        for dir in [store.dir.join("keys"), store.dir.join("identity")] {
            private_dir(&dir).map_err(|source| StoreError::Directory { path: dir, source })?;
        }
        Ok(store)
    }

    /// The node's key (PKCS#8, DER), if it has been made.
    pub(super) fn node_key(&self) -> Result<Option<Vec<u8>>, StoreError> {
        found(files::read_checked(&self.node_key_path(), FILE_BYTES_MAX))
    }

    /// Keeps the node's key. It is on disk when this returns.
    pub(crate) fn put_node_key(&self, der: &[u8]) -> Result<(), StoreError> {
        Ok(files::write_checked(&self.node_key_path(), der)?)
    }

    /// What enrolment gave, if the host has enrolled.
    pub(crate) fn enrolled(&self) -> Result<Option<Enrolled>, StoreError> {
        self.get(&self.dir.join("identity/node"))
    }

    pub(crate) fn put_enrolled(&self, enrolled: &Enrolled) -> Result<(), StoreError> {
        self.put(&self.dir.join("identity/node"), enrolled)
    }

    /// The key and certificate of `service`, if it has one.
    pub(super) fn svid(&self, service: &ServiceName) -> Result<Option<KeptSvid>, StoreError> {
        self.get(&self.svid_path(service))
    }

    pub(super) fn put_svid(
        &self, service: &ServiceName, kept: &KeptSvid,
    ) -> Result<(), StoreError> {
        self.put(&self.svid_path(service), kept)
    }

    /// Forgets the key and certificate of `service`.
    pub(super) fn remove_svid(&self, service: &ServiceName) {
        let path = self.svid_path(service);
        match fs::remove_file(&path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), "cannot remove a key no longer used: {why}");
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn get<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, StoreError> {
        let Some(bytes) = found(files::read_checked(path, FILE_BYTES_MAX))? else {
            return Ok(None);
        };
        let content = |source| StoreError::Content { path: path.to_owned(), source };
        pack::from_slice(&bytes).map(Some).map_err(content)
    }

    fn put<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), StoreError> {
        let content = |source| StoreError::Content { path: path.to_owned(), source };
        let bytes = pack::to_vec(value).map_err(content)?;
        Ok(files::write_checked(path, &bytes)?)
    }

    fn node_key_path(&self) -> PathBuf {
        self.dir.join("keys/node.key")
    }

    fn svid_path(&self, service: &ServiceName) -> PathBuf {
        self.dir.join(format!("keys/service-{service}.svid"))
    }
}

/// Makes `dir` and what is above it, for the agent alone.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

fn found(read: Result<Vec<u8>, FileError>) -> Result<Option<Vec<u8>>, StoreError> {
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(why) if why.is_not_found() => Ok(None),
        Err(why) => Err(why.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn identities_come_back_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let store = IdentityStore::open(dir.path()).unwrap();
        assert_eq!(store.node_key().unwrap(), None);
        assert_eq!(store.enrolled().unwrap(), None);
        store.put_node_key(b"key").unwrap();
        assert_eq!(store.node_key().unwrap().as_deref(), Some(&b"key"[..]));
        let mode =
            |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("keys"), mode("keys/node.key")), (0o700, 0o600));

        let web: ServiceName = "web".parse().unwrap();
        let kept = KeptSvid { chain_pem: "pem".to_owned(), key_der: vec![1, 2] };
        store.put_svid(&web, &kept).unwrap();
        assert!(store.svid(&web).unwrap() == Some(kept));
        store.remove_svid(&web);
        assert!(store.svid(&web).unwrap().is_none());
        store.remove_svid(&web);
    }

    #[test]
    fn damage_is_an_error_and_not_a_missing_identity() {
        let dir = tempfile::tempdir().unwrap();
        let store = IdentityStore::open(dir.path()).unwrap();
        fs::write(dir.path().join("keys/node.key"), "damaged").unwrap();
        assert!(matches!(store.node_key(), Err(StoreError::File(_))));
    }
}
