//! What callers may try: to hold what is others', to linger, to have a harmful backup restored.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use mesh_core::api::{IssueRequest, SyncRequest};
use mesh_core::identity::CaRole;
use mesh_core::resource::ResourceKey;
use mesh_core::revision::Revision;
use mesh_core::state::MeshState;
use mesh_core::stream::{AgentHello1, ToServer};
use mesh_core::time::UnixMillis;
use mesh_core::trust::{CertDer, SealedKey};
use mesh_net::client::{Consistency, ReadOptions, Trust, Wait};
use mesh_net::tls::PeerIdentity;
use mesh_net::{clock, csr, stream};
use tokio::time::{Instant, sleep};

use super::world::{World, config, init_options};
use crate::init::init;
use crate::raft::encode_backup;
use crate::watch::{self, Caller};

async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !check().await {
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_use_up_no_blocking_query_of_others() {
    let world = World::new().await;
    let waits = ReadOptions {
        consistency: Consistency::Default,
        wait: Some(Wait { index: Revision::new(1, 9_999), wait: Duration::from_millis(50) }),
    };
    let anonymous = world.client().build().unwrap();
    assert!(anonymous.bundle(waits).await.is_ok());
    let strangers = &world.server.budgets.strangers;
    let all = u32::try_from(strangers.available_permits()).unwrap();
    let taken = strangers.acquire_many(all).await.unwrap();
    let refused = anonymous.bundle(waits).await.unwrap_err();
    assert!(refused.has_code("too_many_watches"), "{refused}");
    assert!(world.admin.bundle(waits).await.is_ok());
    drop(taken);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_reads_nothing_does_not_outlive_its_node() {
    let world = World::new().await;
    let node = world.enrol("web-7", &["orders"]).await;
    node.register(&["orders"]).await.unwrap();
    let svid = node.svid.current();
    let peer = PeerIdentity {
        id: svid.id.clone(),
        key: svid.key_hash,
        serial: svid.serial.clone(),
        not_after: svid.not_after,
        expired: false,
    };
    let orders = || "orders".parse().unwrap();
    let keys = [
        ResourceKey::Routes(orders()),
        ResourceKey::Endpoints(orders()),
        ResourceKey::Access(orders()),
    ];
    let hello = AgentHello1 {
        node: "web-7".parse().unwrap(),
        generation: 1,
        version: "0".to_owned(),
        applied: Revision::ZERO,
        subscriptions: keys.into_iter().map(|key| (key, Revision::ZERO)).collect(),
    };
    let hello = stream::encode(&ToServer::Hello(hello)).unwrap();
    let incoming = futures_util::stream::iter([Ok(hello)]).chain(futures_util::stream::pending());
    let caller = Caller { node: "web-7".parse().unwrap(), peer };
    // More messages than wait for an agent at most: the server's writer is stuck.
    let unread = watch::open(&world.server, caller, incoming);
    let connected = async || {
        world.admin.agents(ReadOptions::default()).await.unwrap().value.iter().any(|a| a.connected)
    };
    until("the stream is open", connected).await;
    sleep(Duration::from_millis(300)).await;
    world.admin.remove_node(&"web-7".parse().unwrap()).await.unwrap();
    until("the stream is closed", async || world.server.streams.is_empty()).await;
    drop(unread);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_gets_no_certificate() {
    let world = World::new().await;
    let node = world.enrol("web-7", &["web"]).await;
    node.register(&["web"]).await.unwrap();
    let (_, csr_pem) = csr::generate().unwrap();
    let ask = IssueRequest { service: "web".parse().unwrap(), csr_pem };
    assert!(node.client.issue(&ask).await.is_ok());
    let sync = SyncRequest { upsert: Vec::new(), remove: vec!["web-1".parse().unwrap()] };
    node.client.sync_instances(&sync).await.unwrap();
    assert!(node.client.issue(&ask).await.unwrap_err().has_code("not_registered"));
    node.register(&["web"]).await.unwrap();
    world.admin.remove_node(&"web-7".parse().unwrap()).await.unwrap();
    world.enrol("web-7", &["web"]).await.register(&["web"]).await.unwrap();
    assert!(node.client.issue(&ask).await.is_err(), "by the name of its successor");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_made_to_harm_is_refused() {
    let world = World::new().await;
    let state = MeshState::clone(&world.server.node.state());
    let with_ca = |change: &dyn Fn(&mut mesh_core::trust::CertAuthority)| {
        let mut state = state.clone();
        change(&mut Arc::make_mut(state.mesh.as_mut().unwrap()).ca);
        state
    };
    let mut versions = state.clone();
    versions.policy.version = u64::MAX;
    let cases = [
        ("all epochs", MeshState { revision: Revision::new(u64::MAX, 1), ..state.clone() }),
        ("the end of time", MeshState { clock: UnixMillis(u64::MAX), ..state.clone() }),
        ("no version left", versions),
        ("a root that is none", with_ca(&|ca| ca.root = CertDer(vec![1, 2, 3]))),
        (
            "keys of another key-encryption key",
            with_ca(&|ca| {
                let node = ca.intermediates.get_mut(&CaRole::Node).unwrap();
                node.key = SealedKey(vec![0; node.key.0.len()]);
            }),
        ),
    ];
    for (case, state) in cases {
        let bytes = encode_backup(&state, clock::now()).unwrap();
        let refused = world.admin.restore_snapshot(bytes.into()).await.unwrap_err();
        assert!(refused.has_code("restore"), "{case}: {refused}");
    }
    world.enrol("web-7", &["web"]).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_a_mesh_that_was_lost_is_believed_again() {
    let lost = World::new().await;
    let mut backup = Vec::new();
    lost.admin.save_snapshot(&mut backup).await.unwrap();
    let ca_pem = lost.ca_pem.clone();
    // A new mesh of the same name, with the same key-encryption key, and a CA of its own.
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(lost.dir.path().join("kek"), dir.path().join("kek")).unwrap();
    lost.stop().await;
    init(init_options(dir.path())).await.unwrap();
    let settings = config(dir.path());
    let world = World::start(dir, settings).await;
    world.admin.restore_snapshot(backup.into()).await.unwrap();
    let old = || world.client().trust(Trust::Pem(ca_pem.clone())).build().unwrap();
    until("agents of the lost mesh believe it", async || {
        old().bundle(ReadOptions::default()).await.is_ok()
    })
    .await;
    world.stop().await;
}
