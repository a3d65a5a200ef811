//! The log's alphabet, byte for byte: a version in use never gains a field.
//!
//! A failure here says that a log written by an earlier version would not be read, or not be
//! read as the same. Then the change needs a new kind, not a new golden file. A new kind gets its
//! file by `MESH_GOLDEN=write cargo test -p mesh-core --test commands`, which never changes one.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../src/testing.rs"]
mod testing;

use std::path::PathBuf;

use mesh_core::catalog::{Health, Liveness};
use mesh_core::command::{ApplyPolicy1, Command, CommandKind, SetLiveness1, SetNodeAddress1};
use mesh_core::policy::AccessMode;
use mesh_core::trust::{Principal, Revoked, Role, TokenGrant};
use serde_json::{Value, json};
use testing::*;

const POLICY: &str = r#"[service.orders]
protocol = "http"
timeout = "2s"
connect_timeout = "1s"
access = "audit"

[service.orders.subset.v2]
meta = { version = "2" }

[[service.orders.route]]
match = { methods = ["GET"], path_prefix = "/v2", header = { x-canary = "1" } }
to = [{ subset = "v2", weight = 10 }, { service = "orders", weight = 90 }]
timeout = "1s"

[[allow.orders]]
name = "readers"
from = ["web", "batch@dc2", "node:n-1", "*", "spiffe://td.mesh.internal/dc/dc1/node/n-2"]
http = [{ methods = ["GET"], path = "/v2/" }]

[[deny.orders]]
from = ["batch"]
mode = "audit"
"#;

fn a_state() -> mesh_core::state::MeshState {
    let mut world = World::new();
    world.node("n-1", &["web", "orders"], 1);
    world.host("n-1", "orders-1", "orders", &[("version", "2")]);
    world.done(&agent("n-1"), set_health("n-1", &[("orders-1", Health::Draining)]));
    world.policy("orders.toml", POLICY);
    for what in [
        Revoked::Key(key(7)),
        Revoked::Serial("0a1b".to_owned()),
        Revoked::Identity(name("spiffe://td.mesh.internal/dc/dc1/server/ctl-9")),
    ] {
        world.done(&admin(), revoke(what));
    }
    world.state
}

/// One of every kind, with every variant and field of what it carries somewhere.
fn samples() -> Vec<(&'static str, Principal, CommandKind)> {
    let address = SetNodeAddress1 { node: name("n-1"), address: name("fd00::1"), port: 7443 };
    let mut instance = spec("web-1", "web", &[("version", "1")]);
    instance.upstreams = vec![name("orders")];
    instance.checks = health(Health::Passing).checks;
    let seen = SetLiveness1 {
        nodes: [(name("n-1"), Liveness::Gone), (name("n-2"), Liveness::Suspect)].into(),
        seen: [(name("n-1"), START)].into(),
    };
    let apply = ApplyPolicy1 {
        expected: Some(3),
        files: vec![file("orders.toml", POLICY)],
        remove: vec!["old.toml".to_owned()],
        message: "why".to_owned(),
    };
    let role = Role::Operator { services: vec![name("pay-*")] };
    let policy = node_policy(&["web", "batch-*"]);
    vec![
        ("init_mesh_1", server(), init(AccessMode::Enforce)),
        (
            "create_token_1",
            admin(),
            CommandKind::CreateToken1(token("t", join_node(Some("n-1"), &["*"]))),
        ),
        (
            "create_token_1-server",
            admin(),
            CommandKind::CreateToken1(token("t", TokenGrant::JoinServer { server: None })),
        ),
        (
            "create_token_1-api",
            admin(),
            CommandKind::CreateToken1(token("t", TokenGrant::Api { role })),
        ),
        ("delete_token_1", operator(&["*"]), CommandKind::DeleteToken1(name("t"))),
        ("enrol_node_1", Principal::Anonymous, CommandKind::EnrolNode1(enrol("t", "n-1", 1))),
        (
            "enrol_server_1",
            Principal::Service(name("web")),
            CommandKind::EnrolServer1(enrol_server("s", "ctl-2", 2)),
        ),
        ("remove_server_1", server(), CommandKind::RemoveServer1(name("ctl-2"))),
        ("set_node_address_1", agent("n-1"), CommandKind::SetNodeAddress1(address)),
        ("set_node_policy_1", admin(), CommandKind::SetNodePolicy1 { node: name("n-1"), policy }),
        ("remove_node_1", admin(), CommandKind::RemoveNode1(name("n-1"))),
        (
            "sync_instances_1",
            Principal::ExpiredNode(name("n-1")),
            sync("n-1", vec![instance], &["web-2"]),
        ),
        ("set_health_1", agent("n-1"), set_health("n-1", &[("web-1", Health::Critical)])),
        ("set_liveness_1", server(), CommandKind::SetLiveness1(seen)),
        ("apply_policy_1", admin(), CommandKind::ApplyPolicy1(apply)),
        ("revoke_1", admin(), revoke(Revoked::Serial("0a".to_owned()))),
        ("restore_1", admin(), restore(2, &a_state())),
        ("set_feature_level_1", server(), CommandKind::SetFeatureLevel1(2)),
        ("set_server_level_1", server(), set_server_level("ctl-1", 2)),
    ]
}

/// The sample file of `kind`. Exhaustive: a new kind does not compile without one.
fn file_of(kind: &CommandKind) -> &'static str {
    match kind {
        CommandKind::InitMesh1(_) => "init_mesh_1",
        CommandKind::CreateToken1(_) => "create_token_1",
        CommandKind::DeleteToken1(_) => "delete_token_1",
        CommandKind::EnrolNode1(_) => "enrol_node_1",
        CommandKind::EnrolServer1(_) => "enrol_server_1",
        CommandKind::RemoveServer1(_) => "remove_server_1",
        CommandKind::SetNodeAddress1(_) => "set_node_address_1",
        CommandKind::SetNodePolicy1 { .. } => "set_node_policy_1",
        CommandKind::RemoveNode1(_) => "remove_node_1",
        CommandKind::SyncInstances1(_) => "sync_instances_1",
        CommandKind::SetHealth1(_) => "set_health_1",
        CommandKind::SetLiveness1(_) => "set_liveness_1",
        CommandKind::ApplyPolicy1(_) => "apply_policy_1",
        CommandKind::Revoke1(_) => "revoke_1",
        CommandKind::Restore1(_) => "restore_1",
        CommandKind::SetFeatureLevel1(_) => "set_feature_level_1",
        CommandKind::SetServerLevel1(_) => "set_server_level_1",
    }
}

fn commands() -> Vec<(&'static str, Command)> {
    let command = |(name, by, kind)| (name, Command { at: START, by, kind });
    samples().into_iter().map(command).collect()
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/commands")
        .join(format!("{name}.hex"))
}

/// Hex in lines of 32 bytes, so that a difference shows where it is.
fn to_hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.split_whitespace().collect::<String>().chars().collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn commands_keep_their_bytes() {
    for (name, command) in commands() {
        assert!(name.starts_with(file_of(&command.kind)), "{name}");
        let bytes = rmp_serde::to_vec_named(&command).unwrap();
        let path = path(name);
        if !path.exists() && std::env::var("MESH_GOLDEN").is_ok_and(|how| how == "write") {
            std::fs::write(&path, to_hex(&bytes)).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(to_hex(&bytes) == golden, "{name}: the bytes changed, a new version is needed");
        let decoded: Command = rmp_serde::from_slice(&from_hex(&golden)).unwrap();
        assert_eq!(decoded, command, "{name}");
    }
}

#[test]
fn every_golden_command_is_still_read() {
    let names: Vec<_> = commands().iter().map(|(name, _)| format!("{name}.hex")).collect();
    for entry in std::fs::read_dir(path("x").parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        let file = entry.file_name().into_string().unwrap();
        assert!(names.contains(&file), "{file}: a kind was in use once and must still be read");
    }
}

#[test]
fn unknown_fields_are_errors_at_any_depth() {
    let mut tried = 0;
    for (name, command) in commands() {
        let value = serde_json::to_value(&command).unwrap();
        assert_eq!(serde_json::from_value::<Command>(value.clone()).unwrap(), command, "{name}");
        for path in objects(&value, String::new()) {
            let mut changed = value.clone();
            let table = changed.pointer_mut(&path).and_then(Value::as_object_mut).unwrap();
            table.insert("later".to_owned(), json!({ "later": [1] }));
            let read = serde_json::from_value::<Command>(changed);
            assert!(read.is_err(), "{name}: a field more at {path:?} is not seen");
            tried += 1;
        }
    }
    assert!(tried > 100, "only {tried} places tried");
}

/// The JSON pointers of all objects in `value`.
fn objects(value: &Value, at: String) -> Vec<String> {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(table) => {
            let below = table.iter().flat_map(|(k, v)| objects(v, format!("{at}/{}", escaped(k))));
            below.chain([at.clone()]).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(i, v)| objects(v, format!("{at}/{i}"))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}
