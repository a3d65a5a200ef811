//! From policy text to what agents get, as committed files: `tests/golden/*.toml` to `*.json`.
//!
//! After a change that is meant, `MESH_GOLDEN=write cargo test -p mesh-core --test golden` writes
//! the new files; the review of their difference is the test.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../src/testing.rs"]
mod testing;

use std::collections::BTreeMap;
use std::path::PathBuf;

use mesh_core::catalog::{Health, Liveness};
use mesh_core::compile;
use mesh_core::resource::{Resource, ResourceKey};
use testing::*;

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

/// Two nodes with instances of every state.
fn world() -> World {
    let mut world = World::new();
    world.node("app-1", &["*"], 1);
    world.node("app-2", &["*"], 2);
    world.node("db-1", &["db"], 3);
    for (node, id, service, version) in [
        ("app-1", "orders-1", "orders", "1"),
        ("app-1", "orders-2", "orders", "2"),
        ("app-2", "orders-1", "orders", "1"),
        ("app-2", "orders-9", "orders", "9"),
        ("db-1", "db", "db", "17"),
    ] {
        world.host(node, id, service, &[("version", version), ("zone", "a")]);
    }
    world.done(&agent("app-1"), set_health("app-1", &[("orders-2", Health::Critical)]));
    world.done(&agent("app-2"), set_health("app-2", &[("orders-9", Health::Draining)]));
    world.done(&server(), set_liveness("app-2", Liveness::Suspect));
    world.done(&server(), set_liveness("db-1", Liveness::Gone));
    world
}

fn compiled(world: &World, services: &[&str]) -> BTreeMap<String, Resource> {
    let keys = services.iter().flat_map(|service| {
        [
            ResourceKey::Access(name(service)),
            ResourceKey::Endpoints(name(service)),
            ResourceKey::Routes(name(service)),
        ]
    });
    keys.map(|key| (format!("{key:?}"), compile::resource(&world.state, &key).unwrap())).collect()
}

#[test]
fn policy_compiles_to_the_golden_resources() {
    for (stem, services) in [("orders", &["orders", "archive"][..]), ("db", &["db", "unknown"])] {
        let mut world = world();
        let toml = std::fs::read_to_string(path(&format!("{stem}.toml"))).unwrap();
        world.policy(&format!("{stem}.toml"), &toml);
        let json = serde_json::to_string_pretty(&compiled(&world, services)).unwrap() + "\n";
        let golden = path(&format!("{stem}.json"));
        if std::env::var("MESH_GOLDEN").is_ok_and(|how| how == "write") {
            std::fs::write(&golden, &json).unwrap();
        }
        let want = std::fs::read_to_string(&golden).unwrap_or_default();
        for (at, (got, want)) in json.lines().zip(want.lines()).enumerate() {
            assert_eq!(got, want, "{stem}.json:{}", at + 1);
        }
        assert_eq!(json.len(), want.len(), "{stem}.json");
    }
}

#[test]
fn resources_come_back_as_they_were() {
    let mut world = world();
    world.policy("orders.toml", &std::fs::read_to_string(path("orders.toml")).unwrap());
    for resource in compiled(&world, &["orders", "archive", "db"]).into_values() {
        let bytes = rmp_serde::to_vec_named(&resource).unwrap();
        let back: Resource = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(back, resource);
        assert_eq!(rmp_serde::to_vec_named(&back).unwrap(), bytes);
    }
}

#[test]
fn nothing_is_compiled_before_init() {
    let blank = World::blank().state;
    assert_eq!(compile::resource(&blank, &ResourceKey::Bundle), None);
    assert_eq!(compile::resource(&blank, &ResourceKey::Routes(name("web"))), None);
    assert_eq!(compile::resource(&blank, &ResourceKey::Access(name("web"))), None);
}
