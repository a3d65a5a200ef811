//! The data directory: which server this is, its key, and the last bundle it knew.
//!
//! ```text
//! server.json   who this server is; written last, so that it stands for a finished init or join
//! server.key    its private key, PKCS#8 in DER, 0600
//! server.pem    its certificate, its intermediate and the root
//! roots.pem     the trust anchors
//! raft/         log and checkpoints
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::trust::Bundle;
use mesh_net::files::{self, FileError};
use mesh_net::tls::{self, Svid, SvidSource, TlsError, TrustStore};
use zeroize::Zeroizing;

use crate::limits::disk::FILE_BYTES_MAX;
use crate::raft::ServerIdentity;

/// Why the data directory is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory cannot be made or listed.
    #[error("cannot {action} the data directory {}", path.display())]
    Directory {
        /// What was tried.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something is there already.
    #[error(
        "the data directory {} is not empty: this server was set up before, or half; start it with `meshd`, or, to begin anew, move the directory away",
        .0.display()
    )]
    NotEmpty(PathBuf),
    /// Nothing is there yet.
    #[error(
        "the data directory {} holds no server: run `mesh init` on the first server, or `meshd join` on a further one",
        .0.display()
    )]
    NotSetUp(PathBuf),
    /// A file that is not as this program writes it.
    #[error("{} is damaged: {why}; restore it from a backup, or remove this server and join it anew", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The certificate or the bundle is not usable.
    #[error("the certificates in {} are not usable", path.display())]
    Tls {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<TlsError>,
    },
}

/// The data directory.
#[derive(Clone, Debug)]
pub(crate) struct Disk(PathBuf);

impl Disk {
    pub(crate) fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// Lets everybody read a file that holds no secret.
    pub(crate) fn world_readable(path: &Path) -> Result<(), DiskError> {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::Permissions::from_mode(0o644);
        fs::set_permissions(path, mode).map_err(|source| DiskError::Directory {
            action: "make a public file of",
            path: path.to_owned(),
            source,
        })
    }

    /// Makes the directory (0700) for a new server.
    ///
    /// # Errors
    /// [`DiskError::NotEmpty`] if a server, or anything else, is there.
    pub(crate) fn create(&self) -> Result<(), DiskError> {
        use std::os::unix::fs::DirBuilderExt;
        let failed =
            |action| move |source| DiskError::Directory { action, path: self.0.clone(), source };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(failed("create"))?;
        let mut entries = fs::read_dir(&self.0).map_err(failed("read"))?;
        let foreign = |entry: &io::Result<fs::DirEntry>| {
            entry.as_ref().map_or(true, |entry| entry.file_name() != "lost+found")
        };
        if entries.any(|entry| foreign(&entry)) {
            return Err(DiskError::NotEmpty(self.0.clone()));
        }
        Ok(())
    }

    /// Where log and checkpoints are.
    pub(crate) fn raft(&self) -> PathBuf {
        self.0.join("raft")
    }

    /// Keeps key, chain and roots of a new server; blocks.
    pub(crate) fn write_identity(
        &self, key_pkcs8: &[u8], chain_pem: &str, roots_pem: &str,
    ) -> Result<(), DiskError> {
        files::write_atomic(&self.0.join(KEY), key_pkcs8)?;
        self.write_chain(chain_pem)?;
        self.write_roots(roots_pem)
    }

    /// Keeps a renewed certificate; blocks.
    pub(crate) fn write_chain(&self, chain_pem: &str) -> Result<(), DiskError> {
        Ok(files::write_atomic(&self.0.join(CHAIN), chain_pem.as_bytes())?)
    }

    /// Keeps the trust anchors; blocks.
    pub(crate) fn write_roots(&self, roots_pem: &str) -> Result<(), DiskError> {
        Ok(files::write_atomic(&self.0.join(ROOTS), roots_pem.as_bytes())?)
    }

    /// Keeps who this server is: the last step of init and join; blocks.
    pub(crate) fn write_membership(&self, me: &ServerIdentity) -> Result<(), DiskError> {
        let path = self.0.join(MEMBERSHIP);
        let text = serde_json::to_vec_pretty(me)
            .map_err(|e| DiskError::Damaged { path: path.clone(), why: e.to_string() })?;
        Ok(files::write_atomic(&path, &text)?)
    }

    /// Who this server is.
    ///
    /// # Errors
    /// [`DiskError::NotSetUp`] before init or join.
    pub(crate) fn membership(&self) -> Result<ServerIdentity, DiskError> {
        let path = self.0.join(MEMBERSHIP);
        let bytes = match files::read_bounded(&path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => {
                return Err(DiskError::NotSetUp(self.0.clone()));
            }
            Err(error) => return Err(error.into()),
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| DiskError::Damaged { path, why: error.to_string() })
    }

    /// This server's private key: PKCS#8 in DER.
    pub(crate) fn key(&self) -> Result<Zeroizing<Vec<u8>>, DiskError> {
        Ok(Zeroizing::new(files::read_bounded(&self.0.join(KEY), FILE_BYTES_MAX)?))
    }

    /// This server's identity, which may have ended while it was off.
    pub(crate) fn svid(&self, key_pkcs8: &[u8]) -> Result<Arc<SvidSource>, DiskError> {
        let chain = self.text(CHAIN)?;
        let svid = Svid::from_pem(&chain, key_pkcs8).map_err(|source| self.tls(source))?;
        Ok(SvidSource::new(svid))
    }

    /// The bundle as last known, without its deny list: that is in the state.
    pub(crate) fn trust(&self, me: &ServerIdentity) -> Result<Arc<TrustStore>, DiskError> {
        let roots = tls::roots_from_pem(&self.text(ROOTS)?).map_err(|source| self.tls(source))?;
        let trust_domain = me.trust_domain.clone();
        let bundle = Bundle { trust_domain, roots, revoked: Vec::new() };
        TrustStore::new(&bundle).map_err(|source| self.tls(source))
    }

    fn text(&self, name: &str) -> Result<String, DiskError> {
        let path = self.0.join(name);
        let bytes = files::read_bounded(&path, FILE_BYTES_MAX)?;
        String::from_utf8(bytes)
            .map_err(|_| DiskError::Damaged { path, why: "it is no text".to_owned() })
    }

    fn tls(&self, source: TlsError) -> DiskError {
        DiskError::Tls { path: self.0.clone(), source: Box::new(source) }
    }
}

const MEMBERSHIP: &str = "server.json";
const KEY: &str = "server.key";
const CHAIN: &str = "server.pem";
const ROOTS: &str = "roots.pem";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn a_directory_is_taken_once() {
        let root = tempfile::tempdir().unwrap();
        let disk = Disk::new(&root.path().join("meshd"));
        assert!(matches!(disk.membership(), Err(DiskError::NotSetUp(_))));
        disk.create().unwrap();
        disk.create().unwrap();
        let me = ServerIdentity {
            id: 1,
            name: "ctl-1".parse().unwrap(),
            trust_domain: "td".parse().unwrap(),
            datacenter: "dc1".parse().unwrap(),
        };
        disk.write_membership(&me).unwrap();
        assert_eq!(disk.membership().unwrap(), me);
        assert!(matches!(disk.create(), Err(DiskError::NotEmpty(_))));
        fs::write(root.path().join("meshd/server.json"), b"{").unwrap();
        assert!(matches!(disk.membership(), Err(DiskError::Damaged { .. })));
    }
}
