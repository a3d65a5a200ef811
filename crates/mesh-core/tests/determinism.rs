//! The same log gives the same bytes in another process: another hash seed, other addresses.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../src/testing.rs"]
mod testing;

use std::process::Command;

use mesh_core::compile;
use mesh_core::resource::ResourceKey;
use testing::{Draw, World, command, name};

const CHILD: &str = "MESH_CORE_DETERMINISM_CHILD";
const LOGS: u64 = 40;
const COMMANDS: u64 = 150;

/// The state after a drawn log, and every resource compiled from it, as bytes.
fn run(seed: u64) -> Vec<u8> {
    let mut draw = Draw(seed);
    let mut state = World::new().state;
    for index in 2..COMMANDS {
        let command = command(&mut draw, &state);
        state.apply(index, &command);
    }
    let mut bytes = rmp_serde::to_vec_named(&state).unwrap();
    for service in ["web", "orders", "batch-a", "batch-b", "unknown"] {
        let service = || name(service);
        let keys = [
            ResourceKey::Routes(service()),
            ResourceKey::Endpoints(service()),
            ResourceKey::Access(service()),
        ];
        for key in keys {
            bytes.extend(rmp_serde::to_vec_named(&compile::resource(&state, &key)).unwrap());
        }
    }
    bytes.extend(rmp_serde::to_vec_named(&state.bundle()).unwrap());
    bytes
}

fn report() -> String {
    let line = |seed| {
        let hex: String = run(seed).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("log {seed} {hex}\n")
    };
    (0..LOGS).map(line).collect()
}

#[test]
fn apply_and_compile_give_the_same_bytes_in_every_process() {
    let own = report();
    if let Ok(path) = std::env::var(CHILD) {
        std::fs::write(path, own).unwrap();
        return;
    }
    let folder = std::env::temp_dir();
    for child in 0..2 {
        let path = folder.join(format!("mesh-core-determinism-{}-{child}", std::process::id()));
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "apply_and_compile_give_the_same_bytes_in_every_process"])
            .env(CHILD, &path)
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        let other = std::fs::read_to_string(&path);
        let _ = std::fs::remove_file(&path);
        assert!(status.success());
        for (mine, theirs) in own.lines().zip(other.unwrap().lines()) {
            assert!(mine == theirs, "{} differ", &mine[..8]);
        }
    }
    assert!(own.len() > 100_000, "the logs did something");
}
