//! [`Kept`]: what was good last in each host file, on disk, so that an agent that starts while one is
//! broken does not take its instances for removed.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mesh_core::hostfile::{self, InstanceFile};
use mesh_core::limits::POLICY_FILE_BYTES_MAX;
use mesh_net::files::{read_checked, write_checked};
use mesh_net::telemetry::Chain;

/// A directory with a copy of each host file that was good.
#[derive(Debug)]
pub(super) struct Kept(PathBuf);

impl Kept {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self(data_dir.join("good-services"))
    }

    /// Keeps `bytes`, which `path` held and which were good.
    pub(super) fn put(&self, path: &Path, bytes: &[u8]) {
        let Some(copy) = self.copy_of(path) else { return };
        if read_checked(&copy, POLICY_FILE_BYTES_MAX as u64).is_ok_and(|held| held == bytes) {
            return;
        }
        if let Err(why) = fs::create_dir_all(&self.0) {
            tracing::warn!(dir = %self.0.display(), %why, "cannot keep a good host file");
        } else if let Err(why) = write_checked(&copy, bytes) {
            tracing::warn!(why = %Chain(&why), "cannot keep a good host file");
        }
    }

    /// What was good last in `path`, if that is known.
    pub(super) fn get(&self, path: &Path) -> Option<Vec<InstanceFile>> {
        let bytes = read_checked(&self.copy_of(path)?, POLICY_FILE_BYTES_MAX as u64).ok()?;
        hostfile::parse_bytes(&path.display().to_string(), &bytes).ok()
    }

    /// Forgets files that are not among `paths`: what was removed stays removed.
    pub(super) fn retain(&self, paths: &[PathBuf]) {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return,
            Err(why) => return tracing::warn!(dir = %self.0.display(), %why, "cannot list"),
        };
        for copy in entries.flatten().map(|entry| entry.path()) {
            let is_there = paths.iter().any(|path| path.file_name() == copy.file_name());
            if !is_there && let Err(why) = fs::remove_file(&copy) {
                tracing::warn!(file = %copy.display(), %why, "cannot forget a removed host file");
            }
        }
    }

    fn copy_of(&self, path: &Path) -> Option<PathBuf> {
        path.file_name().map(|name: &OsStr| self.0.join(name))
    }
}
