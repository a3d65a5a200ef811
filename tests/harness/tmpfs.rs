//! A small file system that a test can fill.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::run;

/// It is unmounted when dropped, as soon as nobody uses it.
#[derive(Debug)]
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of `size`, such as `64m`, at `at`.
    ///
    /// # Panics
    /// If that fails.
    pub fn mount(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).expect("mount point");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"]).arg(at);
        let (code, output) = run(command, Duration::from_secs(10));
        assert_eq!(code, Some(0), "mount: {output}");
        Self(at.to_owned())
    }

    /// Takes all the room that is left.
    ///
    /// # Panics
    /// If its file cannot be made.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).expect("filler");
        for size in [1 << 20, 64 << 10, 4 << 10, 1] {
            let chunk = vec![b'x'; size];
            while file.write_all(&chunk).is_ok() {}
        }
    }

    /// Gives the room back.
    pub fn empty(&self) {
        // not filled: nothing to do
        let _gone = fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        command.arg("-l").arg(&self.0);
        let _result = run(command, Duration::from_secs(10));
    }
}
