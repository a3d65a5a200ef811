//! Calls that last: what ends them, and what must not.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::policy::Protocol;
use mesh_core::trust::Revoked;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::world::{Agent, Client, World, access, endpoint, hosted, service};

async fn greeted(world: &World) -> TcpStream {
    let mut stream = TcpStream::connect(world.to_db).await.unwrap();
    let mut greeting = [0; 6];
    timeout(Duration::from_secs(5), stream.read_exact(&mut greeting)).await.unwrap().unwrap();
    stream
}

async fn closes(stream: &mut TcpStream) -> bool {
    let read = timeout(Duration::from_secs(2), stream.read(&mut [0; 8])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

/// Denies `what` at `agent`, as a batch with a new bundle does.
fn revoke(world: &World, agent: &Agent, what: Revoked) {
    let bundle = world.ca.bundle_without(what);
    agent.identities.trust().update(&bundle).unwrap();
    let mut next = (*agent.live.load()).clone();
    next.bundle = Arc::new(bundle);
    assert!(agent.live.publish(next));
}

/// Moves `db` to the host of its caller.
fn move_db_to_n1(world: &World) {
    let (db, ca) = (service("db"), &world.ca);
    world.n1.identities.put(&db, ca.svid(&ca.service_id("db")));
    let mut next = (*world.n1.live.load()).clone();
    endpoint(&mut next, "db", "n1", world.n1.handle.inbound());
    access(ca, &mut next, "db", Protocol::Tcp, &["web"]);
    hosted(&mut next, "db", world.db_app, &[]);
    assert!(world.n1.live.publish(next));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_end_breaks_off_when_it_is_denied() {
    let world = World::new().await;
    let mut client = Client::open(world.to_orders).await;
    client.send("GET /stream HTTP/1.1\r\nHost: orders\r\n\r\n").await;
    assert!(client.until("hi\r\n").await.starts_with("HTTP/1.1 200"));
    let mut other = greeted(&world).await;
    world.deny("orders");
    assert!(client.ends().await, "the stream went on");
    other.write_all(b"still").await.unwrap();
    let mut echo = [0; 5];
    timeout(Duration::from_secs(2), other.read_exact(&mut echo)).await.unwrap().unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_closes_when_its_service_becomes_http() {
    let world = World::new().await;
    let mut stream = greeted(&world).await;
    let mut next = (*world.n2.live.load()).clone();
    access(&world.ca, &mut next, "db", Protocol::Http, &["web"]);
    assert!(world.n2.live.publish(next));
    assert!(closes(&mut stream).await);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_closes_connections_within_one_host_too() {
    for name in ["web", "db"] {
        let world = World::new().await;
        move_db_to_n1(&world);
        let mut stream = greeted(&world).await;
        revoke(&world, &world.n1, Revoked::Identity(world.ca.service_id(name)));
        if name == "web" {
            assert!(closes(&mut stream).await, "the caller is revoked");
        }
        let mut again = TcpStream::connect(world.to_db).await.unwrap();
        assert!(closes(&mut again).await, "{name} is revoked");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_left_the_host_speaks_no_longer() {
    let world = World::new().await;
    let mut stream = greeted(&world).await;
    let mut client = Client::open(world.to_orders).await;
    assert!(client.get("/").await.unwrap().0.starts_with("HTTP/1.1 200"));
    let mut next = (*world.n1.live.load()).clone();
    next.hosted.retain(|_, instance| instance.service != service("web"));
    assert!(world.n1.live.publish(next));
    assert!(closes(&mut stream).await && client.ends().await);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_begun_is_answered_during_the_drain_and_then_it_ends_at_once() {
    let world = World::new().await;
    let mut client = Client::open(world.to_orders).await;
    client.send("GET /late HTTP/1.1\r\nHost: ord").await;
    let mut unused = Client::open(world.to_orders).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let n1 = world.n1;
    n1.shutdown.cancel();
    let stopping = tokio::spawn(n1.handle.stopped());
    assert!(unused.ends().await, "an idle connection is let go");
    client.send("ers\r\n\r\n").await;
    let answer = client.until("\n\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "the call needed a new link: {answer}");
    // its drain would take 2 s
    timeout(Duration::from_secs(1), stopping).await.expect("the drain ends early").unwrap();
    world.n2.shutdown.cancel();
    world.n2.handle.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_are_retired_lose_no_call() {
    let world = World::new().await;
    let workers = Arc::clone(&world.n1.handle.workers);
    let retiring = tokio::spawn(async move {
        loop {
            workers.iter().for_each(|worker| worker.links.reconcile(&HashSet::new()));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let mut client = Client::open(world.to_orders).await;
    for n in 0..200 {
        let (head, _) = client.get("/").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "call {n}: {head}");
    }
    retiring.abort();
    world.stop().await;
}
