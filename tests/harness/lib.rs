//! The harness of the system tests: hosts in network namespaces, real processes, plain clients.
//!
//! Nothing here sleeps for a fixed time to be lucky: [`eventually`] polls to a deadline. Every
//! process is ended by its pid when its handle is dropped.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

pub mod backends;
pub mod clock;
pub mod cluster;
pub mod http;
pub mod load;
#[path = "../long/mod.rs"]
pub mod long;
pub mod net;
pub mod notify;
pub mod operator;
pub mod process;
pub mod python;
pub mod tls;
pub mod tmpfs;
pub mod wal;

use std::time::{Duration, Instant};

/// Polls `look` until it gives a value; panics with `what` at the deadline.
///
/// # Panics
/// If the deadline passes.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
    within(limit, look).unwrap_or_else(|| panic!("not within {limit:?}: {what}"))
}

/// Polls `look` until it gives a value, or `None` at the deadline.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a test needs beyond Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Root, for network namespaces.
    Root,
    /// A program on the path.
    Program(&'static str),
}

/// Whether every need is met; prints why the test is skipped if not.
///
/// # Panics
/// If a need is not met and `MESH_TESTS_REQUIRE=all`: then nothing may be skipped.
pub fn has(needs: &[Needs]) -> bool {
    let missing: Vec<String> = needs
        .iter()
        .filter_map(|need| match need {
            Needs::Root if rustix::process::geteuid().is_root() => None,
            Needs::Root => Some("root (network namespaces)".to_owned()),
            Needs::Program(name) => (!on_path(name)).then(|| (*name).to_owned()),
        })
        .collect();
    if missing.is_empty() {
        return true;
    }
    let required = std::env::var("MESH_TESTS_REQUIRE").is_ok_and(|value| value == "all");
    assert!(!required, "missing: {}", missing.join(", "));
    println!("skipped: needs {}", missing.join(", "));
    false
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    folders.iter().any(|folder| folder.join(name).is_file())
}
