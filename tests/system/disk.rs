//! A server whose disk is full: it says so, stops, and has lost nothing.

use std::time::Duration;

use mesh_tests::cluster::{Mesh, path};
use mesh_tests::net::Net;
use mesh_tests::tmpfs::Tmpfs;
use mesh_tests::{Needs, has};

use crate::turn;

/// `EX_IOERR` of sysexits(3).
const EXIT_DISK: i32 = 74;

/// Writes through the API; whether it was acknowledged.
fn write(mesh: &Mesh, note: &str) -> bool {
    let args = ["token", "create", "--role", "viewer", "--note", note, "--timeout", "3s"];
    mesh.cli(&args).code == Some(0)
}

#[test]
fn a_full_disk_stops_a_server_and_loses_nothing() {
    let _turn = turn();
    let needs = ["ip", "nsenter", "mount", "curl"].map(Needs::Program);
    if !has(&[Needs::Root]) || !has(&needs) {
        return;
    }
    let mut mesh = Mesh::new(Net::new(&["ctl-1"]));
    let data = mesh.folder("ctl-1").join("data");
    let disk = Tmpfs::mount(&data, "8m");
    mesh.add_server("ctl-1");
    let mut answered = Vec::new();
    for number in 0..5 {
        let note = format!("before-{number}");
        assert!(write(&mesh, &note));
        answered.push(note);
    }
    disk.fill();
    let refused = (0..500).find(|number| {
        let note = format!("full-{number}");
        let good = write(&mesh, &note);
        if good {
            answered.push(note);
        }
        !good
    });
    assert!(refused.is_some(), "writes are acknowledged on a full disk");
    let process = mesh.server_mut("ctl-1").process.as_mut().unwrap();
    let code = process.wait(Duration::from_secs(20));
    let said = process.output();
    assert_eq!(code, Some(EXIT_DISK), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains(path(&data)), "the error does not name the path: {last}");
    assert!(last.contains("No space left"), "the error does not say what is wrong: {last}");

    // Still full: it must not come up and pretend.
    mesh.server_mut("ctl-1").start();
    let process = mesh.server_mut("ctl-1").process.as_mut().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    if process.is_alive() {
        assert!(!write(&mesh, "still-full"), "a write is acknowledged on a full disk");
    }
    mesh.server_mut("ctl-1").kill();

    disk.empty();
    mesh.start_server("ctl-1");
    let tokens = mesh.json(&["tokens", "--consistent"]).to_string();
    let lost = |note: &&String| !tokens.contains(&format!("\"{note}\""));
    let lost: Vec<&String> = answered.iter().filter(lost).collect();
    assert!(lost.is_empty(), "acknowledged, and lost: {lost:?}");
    assert!(write(&mesh, "after"), "with room again it does not write");
    println!("measured: full disk, all {} acknowledged writes are there", answered.len());
}
