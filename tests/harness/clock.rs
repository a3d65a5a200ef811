//! A wall clock that a test moves ahead for every process of a mesh, by libfaketime. Monotonic
//! time, and with it every timeout, stays what it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::net::Net;

/// The clock of one mesh; it never falls.
#[derive(Debug)]
pub struct Clock {
    home: TempDir,
    ahead: Duration,
}

impl Clock {
    /// A clock for what is started on the hosts of `net` from now on; nothing where libfaketime is
    /// not installed.
    ///
    /// # Panics
    /// If there is no room for its file.
    pub fn install(net: &mut Net) -> Option<Self> {
        let library = library()?;
        let home = tempfile::tempdir().expect("temporary folder");
        let clock = Self { home, ahead: Duration::ZERO };
        clock.write();
        let file = clock.file();
        let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        net.set_env("LD_PRELOAD", &text(&library));
        net.set_env("FAKETIME_TIMESTAMP_FILE", &text(&file));
        // Read at each look, so that all processes have the same time.
        net.set_env("FAKETIME_NO_CACHE", "1");
        net.set_env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        net.set_env("FAKETIME_DISABLE_SHM", "1");
        net.set_env("NO_FAKE_STAT", "1");
        Some(clock)
    }

    /// Moves it ahead.
    ///
    /// # Panics
    /// If its file cannot be written.
    pub fn advance(&mut self, by: Duration) {
        self.ahead += by;
        self.write();
    }

    /// How far it is ahead of this machine's.
    pub fn ahead(&self) -> Duration {
        self.ahead
    }

    fn file(&self) -> PathBuf {
        self.home.path().join("clock")
    }

    /// In one step: somebody reads it at any time.
    fn write(&self) {
        let next = self.home.path().join("next");
        fs::write(&next, format!("+{}\n", self.ahead.as_secs())).expect("clock");
        fs::rename(next, self.file()).expect("clock");
    }
}

/// Where Debian and others put it: `/usr/lib/TRIPLET/faketime`.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let mut files = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    files.find(|file| file.is_file())
}
