//! Connections that left HTTP and last: what ends them, and what must not.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::policy::{HeaderMatch, HttpMatch, Protocol};
use mesh_core::trust::Revoked;
use prometheus_client::registry::Registry;
use tokio::time::{Instant, sleep};

use super::super::world::{Agent, World, access, service};
use super::app::Apps;
use super::{Caller, ask, ways, within};

/// How many calls or connections `agent` counts on the line that has all of these.
fn counted(registry: &Registry, parts: &[&str]) -> i64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let lines = text.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum()
}

async fn becomes(registry: &Registry, parts: &[&str], want: i64) {
    for _ in 0..500 {
        if counted(registry, parts) == want {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{parts:?} is {}, expected {want}", counted(registry, parts));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_timeout_of_a_request_ends_with_the_answer() {
    let (world, _apps) = Apps::behind_a_world().await;
    let mut next = (*world.n1.live.load()).clone();
    for name in ["orders", "local"] {
        Arc::make_mut(next.routes.get_mut(&service(name)).unwrap()).timeout_ms = 600;
    }
    assert!(world.n1.live.publish(next));
    for port in ways(&world) {
        let mut caller = Caller::switched(port, "/slow").await;
        sleep(Duration::from_millis(1_200)).await;
        caller.echoes("still there").await;
        let mut caller = Caller::open(port).await;
        caller.send(ask("/never")).await;
        assert!(caller.answer().await.0.starts_with("HTTP/1.1 504 "));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_denied_now_is_reset_and_nothing_else() {
    let (world, _apps) = Apps::behind_a_world().await;
    let [over_link, here] = ways(&world);
    let (mut first, mut second) =
        (Caller::switched(over_link, "/echo").await, Caller::switched(here, "/echo").await);
    world.deny("orders");
    assert!(first.rest().await.is_err(), "a plain close would say that this is all there was");
    second.echoes("not meant").await;
    let mut next = (*world.n1.live.load()).clone();
    next.revision.index += 1;
    Arc::make_mut(next.access.get_mut(&service("local")).unwrap()).rules.clear();
    assert!(world.n1.live.publish(next));
    assert!(second.rest().await.is_err());
    world.stop().await;
}

/// Denies what asks for a WebSocket, at `agent`.
fn deny_websockets(agent: &Agent, name: &str) {
    let mut next = (*agent.live.load()).clone();
    next.revision.index += 1;
    let access = Arc::make_mut(next.access.get_mut(&service(name)).unwrap());
    let mut rule = access.rules[0].clone();
    rule.id = format!("deny.{name}/websockets").parse().unwrap();
    let headers = vec![HeaderMatch::new("upgrade", "websocket").unwrap()];
    rule.http = vec![HttpMatch { headers, ..HttpMatch::default() }];
    access.rules.push(rule);
    assert!(agent.live.publish(next));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_on_what_is_asked_for_refuses_it_and_closes_what_is_open() {
    let (world, _apps) = Apps::behind_a_world().await;
    let agents = [(&world.n2, "orders"), (&world.n1, "local")];
    for (port, (agent, name)) in ways(&world).into_iter().zip(agents) {
        let mut open = Caller::switched(port, "/echo").await;
        open.echoes("allowed so far").await;
        deny_websockets(agent, name);
        assert!(open.rest().await.is_err());
        let mut caller = Caller::open(port).await;
        caller.send(ask("/echo")).await;
        let (head, _) = caller.answer().await;
        assert!(head.starts_with("HTTP/1.1 403 ") && head.contains("/websockets"), "{head}");
        caller.send("GET /plain HTTP/1.1\r\nHost: orders\r\n\r\n").await;
        assert_eq!(caller.answer().await.1, "plain");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_denies_nothing_leaves_it_alone() {
    let (world, _apps) = Apps::behind_a_world().await;
    let mut callers = Vec::new();
    for port in ways(&world) {
        callers.push(Caller::switched(port, "/echo").await);
    }
    for (agent, name) in [(&world.n2, "orders"), (&world.n1, "local")] {
        let mut next = (*agent.live.load()).clone();
        next.revision.index += 1;
        access(&world.ca, &mut next, name, Protocol::Http, &["web", "batch"]);
        assert!(agent.live.publish(next));
    }
    sleep(Duration::from_millis(200)).await;
    for caller in &mut callers {
        caller.echoes("still there").await;
    }
    world.stop().await;
}

fn revoke(world: &World, agent: &Agent) {
    let bundle = world.ca.bundle_without(Revoked::Identity(world.ca.service_id("web")));
    agent.identities.trust().update(&bundle).unwrap();
    let mut next = (*agent.live.load()).clone();
    next.bundle = Arc::new(bundle);
    assert!(agent.live.publish(next));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_revoked_caller_opened_is_reset() {
    let (world, _apps) = Apps::behind_a_world().await;
    let [over_link, here] = ways(&world);
    let (mut first, mut second) =
        (Caller::switched(over_link, "/echo").await, Caller::switched(here, "/echo").await);
    revoke(&world, &world.n2);
    assert!(first.rest().await.is_err());
    second.echoes("its agent was not told yet").await;
    revoke(&world, &world.n1);
    assert!(second.rest().await.is_err());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_leaves_it_its_time() {
    for callee in [true, false] {
        let (world, _apps) = Apps::behind_a_world().await;
        let mut caller = Caller::switched(world.to_orders, "/echo").await;
        let mut brief = Caller::switched(world.to_orders, "/echo").await;
        let (draining, other) = if callee { (world.n2, world.n1) } else { (world.n1, world.n2) };
        let began = Instant::now();
        draining.shutdown.cancel();
        let stopping = tokio::spawn(draining.handle.stopped());
        // its time is 2 s
        while began.elapsed() < Duration::from_millis(1_200) {
            caller.echoes("as long as it may").await;
            sleep(Duration::from_millis(50)).await;
        }
        brief.echoes("ends by itself").await;
        drop(brief);
        drop(caller.rest().await);
        assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());
        within(stopping).await.unwrap();
        other.shutdown.cancel();
        within(other.handle.stopped()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_over_once_it_ended() {
    let (world, _apps) = Apps::behind_a_world().await;
    let caller = Caller::switched(world.to_orders, "/echo").await;
    let began = Instant::now();
    world.n1.shutdown.cancel();
    let stopping = tokio::spawn(world.n1.handle.stopped());
    sleep(Duration::from_millis(100)).await;
    drop(caller);
    within(stopping).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
    world.n2.shutdown.cancel();
    within(world.n2.handle.stopped()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_before_the_answer_takes_the_call_along() {
    let (world, apps) = Apps::behind_a_world().await;
    for port in ways(&world) {
        let mut caller = Caller::open(port).await;
        caller.send(ask("/never")).await;
        sleep(Duration::from_millis(100)).await;
        drop(caller);
        assert!(apps.heard().await.ends_with("after 0 bytes"));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_counted_when_answered_while_open_and_at_its_end() {
    let (world, _apps) = Apps::behind_a_world().await;
    let places = [
        (world.to_orders, "dst=\"orders\"", &world.n2.registry),
        (world.to_local, "dst=\"local\"", &world.n1.registry),
    ];
    for (port, dst, callee) in places {
        let outbound = [dst, "side=\"outbound\""];
        let inbound = [dst, "side=\"inbound\""];
        let mut caller = Caller::switched(port, "/echo").await;
        caller.echoes("counted").await;
        for (registry, side) in [(&world.n1.registry, &outbound), (callee, &inbound)] {
            let with = |name| [&[name], &side[..]].concat();
            becomes(registry, &with("mesh_connections_open{"), 1).await;
            let answered = [&with("mesh_requests_total{")[..], &["code=\"101\""]].concat();
            becomes(registry, &answered, 1).await;
            assert_eq!(counted(registry, &with("mesh_connections_total{")), 0);
        }
        tokio::io::AsyncWriteExt::shutdown(&mut caller.0).await.unwrap();
        assert_eq!(caller.rest().await.unwrap(), b"");
        for (registry, side) in [(&world.n1.registry, &outbound), (callee, &inbound)] {
            let with = |name| [&[name], &side[..]].concat();
            becomes(registry, &with("mesh_connections_open{"), 0).await;
            let done = [&with("mesh_connections_total{")[..], &["code=\"done\""]].concat();
            becomes(registry, &done, 1).await;
            assert_eq!(counted(registry, &with("mesh_requests_total{")), 1);
        }
    }
    world.stop().await;
}
