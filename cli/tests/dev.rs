//! `mesh dev` as a newcomer runs it: the real binary, without root.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn mesh() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MESH_") {
            command.env_remove(name);
        }
    }
    command
}

#[test]
fn the_check_passes_and_the_first_request_is_soon() {
    let out = mesh().args(["dev", "--check"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    let line = text.lines().find(|line| line.contains("first request through mTLS")).unwrap();
    let seconds: f64 =
        line.trim_start_matches(['[', ' ']).split(' ').next().unwrap().parse().unwrap();
    println!("measured: first request through mTLS after {seconds} s");
    // promised within 5 s; gated at three times that
    assert!(seconds < 15.0, "{line}");
    assert_eq!(text.lines().filter(|line| line.starts_with("ok    ")).count(), 4, "{text}");
}

#[test]
fn it_shows_a_table_and_leaves_nothing_behind_when_told_to_stop() {
    let place = tempfile::tempdir().unwrap();
    let mut child = mesh()
        .args(["dev", "--servers", "5"])
        .env("TMPDIR", place.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let row = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("web ")));
    assert!(row.is_some(), "no row of the table was printed");
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let deadline = Instant::now() + Duration::from_secs(40);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("did not stop within 40 s");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "{status}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "something was left behind");
}
