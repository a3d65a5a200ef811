//! Python with a library from PyPI: clients and servers that were not written here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cluster::path;
use crate::process::run;

/// A virtual environment with `library`, such as `grpcio==1.71.0`, below `root`, where it stays.
/// Nothing, and says why, if it cannot be had; under `MESH_TESTS_REQUIRE=all` that fails the test.
pub fn venv(root: &Path, library: &str) -> Option<PathBuf> {
    let venv = root.join(library);
    let whole = venv.join("whole");
    if whole.is_file() {
        return Some(venv);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear", path(&venv)]);
    let mut install = Command::new(venv.join("bin/pip"));
    // none of it is compiled here, which would take long
    let options = ["install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"];
    install.args(options).arg(library);
    for (command, seconds) in [(make, 60), (install, 120)] {
        let (code, said) = run(command, Duration::from_secs(seconds));
        if code != Some(0) {
            let required = std::env::var("MESH_TESTS_REQUIRE").is_ok_and(|v| v == "all");
            assert!(!required, "pip does not deliver {library}: {said}");
            println!("skipped: pip does not deliver {library}: {}", said.trim());
            return None;
        }
    }
    fs::write(whole, "").expect("the mark of a whole environment");
    Some(venv)
}
