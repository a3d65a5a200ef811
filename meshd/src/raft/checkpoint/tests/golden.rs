//! A checkpoint as committed files: what this release writes, and what later ones must read.
//!
//! After a change of the format that is meant, and that a new format version tells, `MESH_GOLDEN=write
//! cargo test -p meshd checkpoint` writes the new files.

use std::path::PathBuf;

use mesh_core::catalog::{Health, Liveness};
use tempfile::TempDir;

use super::*;

#[path = "../../../../../crates/mesh-core/src/testing.rs"]
mod testing;

/// A mesh with something of each kind in its state.
fn sample() -> Checkpoint {
    let mut world = testing::World::new();
    world.node("app-1", &["*"], 1);
    world.node("db-1", &["db"], 2);
    world.host("app-1", "orders-1", "orders", &[("version", "1")]);
    world.host("db-1", "db", "db", &[]);
    let critical = testing::set_health("app-1", &[("orders-1", Health::Critical)]);
    world.done(&testing::agent("app-1"), critical);
    world.done(&testing::server(), testing::set_liveness("db-1", Liveness::Gone));
    let policy = "[service.orders]\nprotocol = \"http\"\n[[allow.orders]]\nfrom = [\"web\"]\n";
    world.policy("orders.toml", policy);
    let meta = checkpoint(world.state.revision.index).meta;
    Checkpoint { meta, state: Arc::new(world.state) }
}

#[test]
fn a_checkpoint_keeps_its_bytes_and_is_still_read() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/raft/checkpoint/golden");
    let sample = sample();
    let root = TempDir::new().unwrap();
    write(root.path(), &sample).unwrap();
    let written = root.path().join(name(&sample.meta));
    for file in [MANIFEST, STATE] {
        let bytes = fs::read(written.join(file)).unwrap();
        if std::env::var("MESH_GOLDEN").is_ok_and(|how| how == "write") {
            fs::create_dir_all(&golden).unwrap();
            fs::write(golden.join(file), &bytes).unwrap();
        }
        let kept = fs::read(golden.join(file)).unwrap();
        assert!(bytes == kept, "{file} is not what it was: {} bytes, {}", bytes.len(), kept.len());
    }
    let found = read(&golden).unwrap();
    assert_eq!(found.meta, sample.meta);
    assert_eq!(*found.state, *sample.state);
    let fields = [found.state.nodes.is_empty(), found.state.policy.services.is_empty()];
    assert_eq!(fields, [false, false], "the sample says something");
}
