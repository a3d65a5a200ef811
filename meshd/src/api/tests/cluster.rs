//! Three servers: two join by token, writes forward, heartbeats reach the leader, the leader goes.

use std::path::Path;
use std::time::Duration;

use mesh_core::api::{AgentStatus, TokenPurpose, TransferRequest};
use mesh_core::catalog::Liveness;
use mesh_core::revision::Revision;
use mesh_core::stream::{AgentHello1, Heartbeat1, ToServer};
use mesh_net::client::ReadOptions;
use tokio::time::{Instant, sleep};

use super::world::{World, config, init_options};
use crate::config::Config;
use crate::init::init;
use crate::join::{JoinOptions, join};

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn member(dir: &Path, name: &str) -> Config {
    let port = free_port();
    let mut config = config(dir);
    config.name = name.parse().unwrap();
    config.raft = ([127, 0, 0, 1], port).into();
    config.raft_address = format!("127.0.0.1:{port}");
    config.heartbeat = Duration::from_millis(500);
    config.lease = Duration::from_secs(3);
    config
}

pub(super) async fn first() -> World {
    let dir = tempfile::tempdir().unwrap();
    let config = member(dir.path(), "ctl-1");
    let options = crate::init::InitOptions { config: config.clone(), ..init_options(dir.path()) };
    init(options).await.unwrap();
    World::start(dir, config).await
}

pub(super) async fn further(first: &World, name: &str) -> World {
    let dir = tempfile::tempdir().unwrap();
    let config = member(dir.path(), name);
    let token = first.token(TokenPurpose::Server { name: Some(name.parse().unwrap()) }).await;
    let token_file = dir.path().join("join.token");
    std::fs::write(&token_file, token).unwrap();
    let server = first.address.clone();
    let joined = join(JoinOptions { config: config.clone(), token_file, server }).await.unwrap();
    assert_eq!(joined.trust_domain.as_str(), "test.mesh.internal");
    // What an operator has at hand on any host.
    for file in ["ca.pem", "admin.token"] {
        std::fs::copy(first.dir.path().join(file), dir.path().join(file)).unwrap();
    }
    World::start(dir, config).await
}

pub(super) async fn until(what: &str, limit: Duration, mut check: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + limit;
    while !check().await {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

pub(super) async fn voters(world: &World) -> usize {
    let servers = world.admin.servers(ReadOptions::stale()).await;
    servers.map_or(0, |servers| servers.value.iter().filter(|server| server.voter).count())
}

async fn agent(world: &World) -> Option<AgentStatus> {
    world.admin.agents(ReadOptions::default()).await.ok()?.value.pop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_join_forward_and_take_over() {
    let limit = Duration::from_secs(30);
    let one = first().await;
    let two = further(&one, "ctl-2").await;
    let three = further(&one, "ctl-3").await;
    until("three voters", limit, async || voters(&one).await == 3).await;
    // Writes and enrolment work at a follower: it forwards, and holds the key of the CA.
    let node = two.enrol("web-7", &["web"]).await;
    let written = node.register(&["web"]).await.unwrap();
    let services = three.admin.services(ReadOptions::consistent()).await.unwrap();
    assert!(services.revision >= written.revision && services.value.len() == 1);
    // An agent at a follower is known to the leader, and so to everybody.
    let hello = AgentHello1 {
        node: "web-7".parse().unwrap(),
        generation: 1,
        version: "0".to_owned(),
        applied: Revision::ZERO,
        subscriptions: Vec::new(),
    };
    let (sender, _receiver) = node.client.stream(hello).await.unwrap();
    until("the agent at the leader", limit, async || agent(&one).await.is_some()).await;
    let seen = agent(&three).await.unwrap();
    assert_eq!(seen.server.unwrap().as_str(), "ctl-2");
    let beats = tokio::spawn(async move {
        while sender.send(&ToServer::Heartbeat(Heartbeat1::default())).await.is_ok() {
            sleep(Duration::from_millis(500)).await;
        }
    });
    let name = "web-7".parse().unwrap();
    let liveness = async |world: &World| {
        let node = world.admin.node(&name, ReadOptions::stale()).await;
        node.unwrap().value.node.liveness
    };
    // Leadership moves, and the node stays alive: a whole lease and more.
    let to = TransferRequest { to: Some("ctl-3".parse().unwrap()) };
    one.admin.transfer(&to).await.unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        assert_eq!(liveness(&two).await, Liveness::Alive);
        sleep(Duration::from_millis(250)).await;
    }
    three.stop().await;
    until("a new leader", limit, async || {
        two.admin.status().await.is_ok_and(|status| {
            status.value.leader.is_some_and(|leader| leader.as_str() != "ctl-3")
        })
    })
    .await;
    node.register(&["web"]).await.unwrap();
    // The agent goes: its lease expires.
    beats.abort();
    until("the node is gone", limit, async || liveness(&two).await == Liveness::Gone).await;
    let removed = two.admin.remove_server(&"ctl-3".parse().unwrap()).await;
    removed.unwrap();
    assert_eq!(voters(&two).await, 2);
    two.stop().await;
    one.stop().await;
}
