//! The stream between servers and agents, byte for byte: one of each message, as hex of its frame.
//!
//! A failure says that agents or servers of an earlier release would not read it. A message in use
//! never gains a field: a change is a new version, and a new one gets its line by `MESH_GOLDEN=write
//! cargo test -p mesh-net --test stream`.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../../mesh-core/src/testing.rs"]
mod testing;

use std::path::PathBuf;

use mesh_core::catalog::{Health, Liveness};
use mesh_core::compile;
use mesh_core::resource::ResourceKey;
use mesh_core::revision::Revision;
use mesh_core::stream::{
    Ack1, AgentHello1, Batch1, ExposedPort, Goodbye1, HealthReport1, Heartbeat1, Kind, Nack1,
    ServerHello1, Servers1, Subscribe1, ToAgent, ToServer,
};
use mesh_net::stream::{FrameReader, Message, encode};
use testing::*;

const POLICY: &str = r#"[service.orders]
protocol = "http"

[service.orders.subset.v1]
meta = { version = "1" }

[[service.orders.route]]
match = { methods = ["GET"], path_prefix = "/v2", header = { x-canary = "1" } }
to = [{ subset = "v1", weight = 10 }, { service = "orders", weight = 90 }]

[[allow.orders]]
from = ["web", "batch@dc2", "node:n-1", "*", "spiffe://td.mesh.internal/dc/dc1/node/n-2"]
http = [{ methods = ["GET"], path = "/v2/" }]
"#;

fn sample() -> World {
    let mut world = World::new();
    world.node("app-1", &["*"], 1);
    world.node("app-2", &["*"], 2);
    world.host("app-1", "orders-1", "orders", &[("version", "1")]);
    world.host("app-2", "orders-2", "orders", &[]);
    world.done(&server(), set_liveness("app-2", Liveness::Suspect));
    world.policy("orders.toml", POLICY);
    world
}

fn to_agent() -> Vec<ToAgent> {
    let world = sample();
    let servers = vec!["ctl-1:7300".to_owned(), "10.0.0.2:7300".to_owned()];
    let hello = ServerHello1 {
        server: name("ctl-1"),
        revision: Revision::new(1, 42),
        heartbeat_ms: 3_000,
        lease_ms: 10_000,
        servers: servers.clone(),
    };
    let batch = Batch1 { revision: Revision::new(2, 7), full: true, resources: 4 };
    let keys = [ResourceKey::Access, ResourceKey::Endpoints, ResourceKey::Routes];
    let keys = keys.into_iter().map(|key| key(name("orders"))).chain([ResourceKey::Bundle]);
    let resources = keys.map(|key| compile::resource(&world.state, &key).unwrap());
    let first = [ToAgent::Hello(hello), ToAgent::Batch(batch)];
    let last = [
        ToAgent::Goodbye(Goodbye1 { reason: "it stops".to_owned() }),
        ToAgent::Servers(Servers1 { servers }),
    ];
    first.into_iter().chain(resources.map(ToAgent::Resource)).chain(last).collect()
}

fn to_server() -> Vec<ToServer> {
    let (held, key) = (Revision::new(1, 42), ResourceKey::Routes(name("orders")));
    let hello = AgentHello1 {
        node: name("app-1"),
        generation: 3,
        version: "0.1.0".to_owned(),
        applied: held,
        subscriptions: vec![
            (key.clone(), held),
            (ResourceKey::Endpoints(name("db")), Revision::ZERO),
        ],
    };
    let heartbeat = Heartbeat1 {
        applied: held,
        leaves: [("spiffe://td.mesh.internal/dc/dc1/node/app-1".to_owned(), START)].into(),
        exposed: vec![ExposedPort {
            instance: name("db"),
            address: "10.0.0.3:5432".parse().unwrap(),
        }],
        warnings: vec!["no cgroups".to_owned()],
    };
    let changes =
        match set_health("app-1", &[("orders-1", Health::Critical), ("db", Health::Draining)]) {
            mesh_core::command::CommandKind::SetHealth1(set) => set.changes,
            other => panic!("{other:?}"),
        };
    vec![
        ToServer::Hello(hello),
        ToServer::Subscribe(Subscribe1 {
            add: vec![key],
            remove: vec![ResourceKey::Access(name("db"))],
        }),
        ToServer::Ack(Ack1 { revision: held }),
        ToServer::Nack(Nack1 { revision: held, error: "malformed".to_owned() }),
        ToServer::Heartbeat(heartbeat),
        ToServer::Health(HealthReport1 { changes }),
    ]
}

fn held<M: Message + PartialEq + std::fmt::Debug>(file: &str, all: &[Kind], messages: &[M]) {
    let mut kinds: Vec<Kind> = messages.iter().map(Message::kind_of).collect();
    kinds.dedup();
    assert_eq!(kinds, all, "one of each");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let frames: Vec<_> = messages.iter().map(|message| encode(message).unwrap()).collect();
    let lines: String = frames.iter().map(|frame| hex::encode(frame) + "\n").collect();
    if std::env::var("MESH_GOLDEN").is_ok_and(|how| how == "write") {
        std::fs::write(&path, &lines).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    for ((message, line), kept) in messages.iter().zip(lines.lines()).zip(kept.lines()) {
        assert_eq!(line, kept, "{message:?}");
        let mut reader = FrameReader::<M>::new();
        reader.push(hex::decode(kept).unwrap().into());
        assert_eq!(reader.next().unwrap().as_ref(), Some(message));
    }
    assert_eq!(lines.len(), kept.len(), "{file} has one line of each message");
}

#[test]
fn what_servers_say_keeps_its_bytes() {
    held("to_agent.hex", ToAgent::KINDS, &to_agent());
}

#[test]
fn what_agents_say_keeps_its_bytes() {
    held("to_server.hex", ToServer::KINDS, &to_server());
}
