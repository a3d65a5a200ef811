//! Who may speak on the Raft port, and what is passed through it.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use mesh_core::identity::SpiffeId;
use mesh_core::trust::Revoked;
use mesh_net::tls::SvidSource;

use super::peers::{Me, Peer, Peers};
use super::*;

/// A caller that claims to be what it likes, with a certificate of `id`.
fn caller(world: &World, id: &SpiffeId, change: impl FnOnce(&mut Me, &mut u64)) -> Arc<Peer> {
    let mut me = Me {
        id: 1,
        name: name(1),
        trust_domain: world.ca.trust_domain.clone(),
        datacenter: world.ca.datacenter.clone(),
        identity: world.ca.source(id),
        trust: world.ca.trust(),
        cut: Arc::default(),
    };
    let mut to = 1;
    change(&mut me, &mut to);
    let node = ServerNode {
        name: name(1),
        raft_address: world.machines[&1].address.to_string(),
        api_address: String::new(),
    };
    Peers::new(me).another(to, &node)
}

async fn call(peer: &Peer) -> Result<Bytes, CallError> {
    post(peer, "/app/call/echo").await
}

async fn post(peer: &Peer, route: &str) -> Result<Bytes, CallError> {
    peer.call(route, Bytes::from("x"), 1024, Duration::from_secs(3)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_members_are_heard() {
    let world = World::new(Options::default()).await;
    let node = &world.nodes[&1];
    node.set_app(Arc::new(Echo));
    let server = |n: &str| world.ca.server_id(n);
    let good = caller(&world, &server("s1"), |_, _| {});
    assert_eq!(call(&good).await.unwrap(), "s1 echo x");

    let removed = caller(&world, &server("s0"), |me, _| me.id = 0);
    let reused = caller(&world, &server("s2"), |me, _| me.id = 1);
    let cluster = caller(&world, &server("s1"), |me, _| {
        me.trust_domain = "other.mesh.internal".parse().unwrap();
    });
    let mistaken = caller(&world, &server("s1"), |_, to| *to = 2);
    for (what, peer) in [("removed", removed), ("reused", reused), ("mistaken", mistaken)] {
        let error = call(&peer).await.unwrap_err();
        assert!(matches!(error, CallError::Refused { .. }), "{what}: {error}");
    }
    assert!(call(&cluster).await.is_err());
    // Newer than what this server has seen: heard as Raft's peer only.
    let newcomer = caller(&world, &server("s9"), |me, _| me.id = 9);
    let error = call(&newcomer).await.unwrap_err().to_string();
    assert!(error.contains("no member"), "{error}");
    let error = post(&newcomer, "/raft/vote").await.unwrap_err().to_string();
    assert!(error.contains("MessagePack"), "{error}");

    let stranger = TestCa::new("abc.mesh.internal");
    let strangers = caller(&world, &server("s1"), |me, _| {
        me.identity = stranger.source(&stranger.server_id("s1"));
    });
    for id in [world.ca.node_id("web-7"), world.ca.service_id("orders")] {
        let error = call(&caller(&world, &id, |_, _| {})).await.unwrap_err();
        assert!(!matches!(error, CallError::Refused { .. }), "{id}: {error}");
    }
    assert!(call(&strangers).await.is_err());

    // Revocation reaches connections that stand.
    let trust = &node.trust();
    let denied = world.ca.bundle_without(Revoked::Identity(server("s1")));
    trust.update(&denied).unwrap();
    let error = call(&good).await.unwrap_err();
    assert!(matches!(error, CallError::Refused { .. }), "{error}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_at_once() {
    let world = World::new(Options::default()).await;
    world.nodes[&1].set_app(Arc::new(Echo));
    let id = world.ca.server_id("s1");
    let old = world.ca.svid(&id);
    let serial = old.serial.clone();
    let source = SvidSource::new(old);
    let peer = caller(&world, &id, |me, _| me.identity = Arc::clone(&source));
    assert_eq!(call(&peer).await.unwrap(), "s1 echo x");
    source.swap(world.ca.svid(&id));
    let denied = world.ca.bundle_without(Revoked::Serial(serial));
    world.nodes[&1].trust().update(&denied).unwrap();
    assert_eq!(call(&peer).await.unwrap(), "s1 echo x");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_call_each_other_by_name() {
    let world = World::of(2, Options::default()).await;
    let limit = Duration::from_secs(3);
    let early = world.nodes[&1].call(&name(2), "echo", Bytes::from("a"), limit).await;
    assert!(early.is_err_and(|error| error.was_not_done()));
    world.nodes[&2].set_app(Arc::new(Echo));
    let answer = world.nodes[&1].call(&name(2), "echo", Bytes::from("a"), limit).await.unwrap();
    assert_eq!(answer, "s1 echo a");
    let error = world.nodes[&1].call(&name(2), "fail", Bytes::new(), limit).await.unwrap_err();
    assert!(!error.was_not_done() && error.to_string().contains("no such call"), "{error}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_over_the_bound_are_refused_before_the_log() {
    let world = World::new(Options::default()).await;
    let mut large = token("large", TokenGrant::JoinServer { server: None });
    large.note = "x".repeat(16 << 20);
    let error = world.nodes[&1].propose(admin(), CommandKind::CreateToken1(large)).await;
    assert!(matches!(error, Err(ProposeError::TooLarge { .. })), "{error:?}");
    world.nodes[&1].propose(admin(), numbered(1)).await.unwrap();
    world.end().await;
}

struct Echo;

impl AppHandler for Echo {
    fn call<'a>(
        &'a self, from: ServerName, name: &'a str, body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, String>> {
        Box::pin(async move {
            match name {
                "echo" => Ok(format!("{from} {name} {}", String::from_utf8_lossy(&body)).into()),
                _ => Err(format!("no such call {name:?}")),
            }
        })
    }
}
