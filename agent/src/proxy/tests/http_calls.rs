//! HTTP through two agents, and within one.

use mesh_core::trust::Revoked;

use super::super::LocalCallers;
use super::world::{Client, World, service};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_crosses_two_agents_and_the_app_learns_its_caller() {
    let world = World::new().await;
    let mut client = Client::open(world.to_orders).await;
    let request = "GET /a/./b?q=1 HTTP/1.1\r\nHost: orders.mesh\r\nX-Mesh-Caller: root\r\n\
                   X_Mesh_Caller: root\r\nConnection: X-Drop\r\nX-Drop: 1\r\nX-Keep: 1\r\n\r\n";
    let (head, body) = client.ask(request).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let want = "x-mesh-caller: spiffe://test.mesh/ns/default/dc/dc1/svc/web";
    assert!(body.starts_with("orders\nGET /a/b?q=1 HTTP/1.1\r\n"), "{body}");
    assert!(body.contains(want) && body.contains("host: orders.mesh"), "{body}");
    assert!(body.contains("x-keep: 1") && !body.contains("x-drop"), "{body}");
    assert!(!body.contains("root"), "{body}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_pass_both_ways() {
    let world = World::new().await;
    let mut client = Client::open(world.to_orders).await;
    let sent = "x".repeat(200_000);
    let request =
        format!("POST /p HTTP/1.1\r\nHost: orders\r\nContent-Length: {}\r\n\r\n{sent}", sent.len());
    let (head, body) = client.ask(&request).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(body.ends_with(&sent), "{} bytes came back", body.len());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_a_rule_gets_403_with_the_rule() {
    let world = World::new().await;
    let (head, body) = Client::open(world.batch_to_orders).await.get("/").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    assert!(head.contains("mesh-rule: default") && head.contains("mesh-error: denied"), "{head}");
    assert!(body.contains("denied by default"), "{body}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_is_denied_once_its_rule_is_gone() {
    let world = World::new().await;
    let mut client = Client::open(world.to_orders).await;
    let (head, body) = client.get("/").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head} {body}");
    world.deny("orders");
    assert!(client.get("/").await.unwrap().0.starts_with("HTTP/1.1 403"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_on_one_host_passes_the_same_rules() {
    let world = World::new().await;
    let mut client = Client::open(world.to_local).await;
    let (_, body) = client.get("/x").await.unwrap();
    assert!(body.contains("svc/web"), "{body}");
    let mut next = (*world.n1.live.load()).clone();
    next.access.clear();
    assert!(world.n1.live.publish(next));
    let (head, _) = client.get("/x").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 503"), "no rules known must not allow: {head}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_caller_is_refused_on_its_open_link() {
    let world = World::new().await;
    let mut client = Client::open(world.to_orders).await;
    assert!(client.get("/").await.unwrap().0.starts_with("HTTP/1.1 200"));
    let bundle = world.ca.bundle_without(Revoked::Identity(world.ca.service_id("web")));
    world.n2.identities.trust().update(&bundle).unwrap();
    let mut next = (*world.n2.live.load()).clone();
    next.bundle = std::sync::Arc::new(bundle);
    assert!(world.n2.live.publish(next));
    let (head, _) = client.get("/").await.unwrap();
    // by the rule that revoked callers are denied, or its link was closed before
    let refused = head.starts_with("HTTP/1.1 502") || head.contains("mesh-rule: revoked");
    assert!(refused, "{head}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_local_caller_may_not_use_the_host_routed_listener() {
    let world = World::new().await;
    let http = world.n1.handle.http().unwrap();
    let (head, body) = Client::open(http).await.get("/").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    assert!(head.contains("mesh-error: caller_no_service"), "{head} {body}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ambiguous_request_never_reaches_the_app() {
    let world = World::new().await;
    let requests = [
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /a%2fb HTTP/1.1\r\nHost: orders\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        "get / HTTP/1.1\r\nHost: orders\r\n\r\n",
    ];
    for request in requests {
        let (head, _) = Client::open(world.to_orders).await.ask(request).await.unwrap();
        let refused = head.starts_with("HTTP/1.1 400") || head.starts_with("HTTP/1.1 501");
        assert!(refused, "{request:?}: {head}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_endpoints_the_answer_says_so() {
    let world = World::new().await;
    let mut next = (*world.n1.live.load()).clone();
    std::sync::Arc::make_mut(next.endpoints.get_mut(&service("orders")).unwrap()).endpoints.clear();
    assert!(world.n1.live.publish(next));
    let (head, body) = Client::open(world.to_orders).await.get("/").await.unwrap();
    assert!(
        head.starts_with("HTTP/1.1 503") && body.contains("no healthy endpoint"),
        "{head} {body}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_without_a_body_keep_their_framing() {
    let world = World::new().await;
    for port in [world.to_orders, world.to_local] {
        let mut client = Client::open(port).await;
        let cases = [
            ("HEAD", "/", "HTTP/1.1 200"),
            ("GET", "/204", "HTTP/1.1 204"),
            ("GET", "/304", "HTTP/1.1 304"),
        ];
        for (method, path, want) in cases {
            client.send(&format!("{method} {path} HTTP/1.1\r\nHost: orders\r\n\r\n")).await;
            let head = client.until("\r\n\r\n").await;
            assert!(head.starts_with(want) && head.ends_with("\r\n\r\n"), "{path}: {head}");
        }
        let (head, body) = client.get("/after").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200") && body.contains("/after"), "{head} {body}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_answers_of_an_application_do_not_pass() {
    let world = World::new().await;
    for port in [world.to_orders, world.to_local] {
        let mut client = Client::open(port).await;
        let (head, _) = client.get("/101").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 502"), "an upgrade nobody asked for: {head}");
        let (head, body) = client.get("/old").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200") && body == "hi", "{head} {body}");
        assert!(!head.contains("mesh-error"), "only the proxy says so: {head}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_keeps_its_body() {
    let world = World::new().await;
    for port in [world.to_orders, world.to_local] {
        let request = "GET /a HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n\
                       3\r\nabc\r\n0\r\n\r\n";
        let (_, body) = Client::open(port).await.ask(request).await.unwrap();
        assert!(body.contains("transfer-encoding: chunked"), "{body}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_from_the_wire_become_no_labels() {
    let world = World::with(LocalCallers::Node).await;
    let http = world.n1.handle.http().unwrap();
    let request = "GET / HTTP/1.1\r\nHost: made-up-1.mesh\r\n\r\n";
    let (head, _) = Client::open(http).await.ask(request).await.unwrap();
    assert!(head.contains("mesh-error: no_routes"), "{head}");
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &world.n1.registry).unwrap();
    assert!(text.contains("flags=\"no_routes\"") && !text.contains("made-up"), "{text}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_refused_is_asked_again_on_a_new_connection() {
    let world = World::new().await;
    let mut client = Client::open(world.n1.handle.http().unwrap()).await;
    let (head, _) = client.get("/").await.unwrap();
    assert!(head.contains("connection: close"), "{head}");
    assert!(client.ends().await);
    world.stop().await;
}
