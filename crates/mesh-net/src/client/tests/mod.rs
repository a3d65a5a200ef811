//! The client against a small server over real TLS on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod routes;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use mesh_core::api::{RevokeRequest, TransferRequest};
use mesh_core::identity::CaRole;
use mesh_core::revision::Revision;
use mesh_core::stream::{Ack1, AgentHello1, Goodbye1, ToAgent, ToServer};
use mesh_core::trust::Revoked;

use self::server::{TestServer, answer, echo, refuse};
use super::call::Call;
use super::*;
use crate::stream::encode;
use crate::testing::TestCa;
use crate::tls::ClientAuth;
use crate::token::Secret;

const WRITTEN: &str = r#"{"revision":"1.7"}"#;

fn client(ca: &TestCa, addresses: &[&str]) -> Client {
    let builder = ClientBuilder::new(addresses.iter().copied()).trust(Trust::Store(ca.trust()));
    builder.call_timeout(Duration::from_secs(3)).build().unwrap()
}

/// An address where nobody listens.
fn dead() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn transfer() -> TransferRequest {
    TransferRequest { to: None }
}

#[tokio::test]
async fn a_dead_server_is_passed_over_and_the_good_one_kept() {
    let ca = TestCa::new("td.example");
    let server = TestServer::start(&ca, async |_| answer(200, "1.7", "[]")).await;
    let client = client(&ca, &[&dead(), &server.address]);
    let answer = client.nodes(ReadOptions::default()).await.unwrap();
    assert_eq!((answer.value.len(), answer.known_leader), (0, true));
    assert_eq!(answer.revision, Revision::new(1, 7));
    assert_eq!(client.preferred(), server.address);
    let wrong = client.transfer(&transfer()).await.unwrap_err();
    assert!(matches!(wrong, ClientError::Malformed { .. }), "{wrong:?}");
    client.set_addresses(vec![server.address.clone(), dead()]).unwrap();
    assert_eq!(client.preferred(), server.address);
    assert!(client.set_addresses(vec!["nonsense".to_owned()]).is_err());
}

#[tokio::test]
async fn without_any_server_nothing_was_sent() {
    let ca = TestCa::new("td.example");
    let (one, two) = (dead(), dead());
    let error = client(&ca, &[&one, &two]).transfer(&transfer()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains(&one) && text.contains(&two), "{text}");
}

#[tokio::test]
async fn a_write_goes_on_to_who_knows_the_leader() {
    let ca = TestCa::new("td.example");
    let lost = TestServer::start(&ca, async |_| refuse(503, "no_leader")).await;
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let electing = TestServer::start(&ca, move |_| {
        let call = counted.fetch_add(1, Ordering::Relaxed);
        async move { if call < 2 { refuse(503, "no_leader") } else { answer(200, "1.7", WRITTEN) } }
    })
    .await;
    let client = client(&ca, &[&lost.address, &electing.address]);
    let written = client.transfer(&transfer()).await.unwrap();
    assert_eq!(written.revision, Revision::new(1, 7));
    assert_eq!((calls.load(Ordering::Relaxed), lost.asked().len()), (3, 3));
    let short = client.with_timeout(Duration::from_millis(300));
    short.set_addresses(vec![lost.address.clone()]).unwrap();
    let error = short.transfer(&transfer()).await.unwrap_err();
    assert!(error.has_code("no_leader") && error.kind() == ErrorKind::Unavailable, "{error:?}");
}

#[tokio::test]
async fn a_write_without_an_answer_is_unknown_and_never_repeated() {
    let ca = TestCa::new("td.example");
    let slow = TestServer::start(&ca, async |_| std::future::pending().await).await;
    let broken = TestServer::start(&ca, async |_| answer(418, "", "")).await;
    let good = TestServer::start(&ca, async |_| answer(200, "1.7", WRITTEN)).await;
    for bad in [&slow, &broken] {
        let client = client(&ca, &[&bad.address, &good.address]);
        let short = client.with_timeout(Duration::from_millis(300));
        let error = short.transfer(&transfer()).await.unwrap_err();
        assert!(matches!(error, ClientError::Unknown { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Unknown);
        assert!(error.to_string().contains("whether the write is in force is unknown"), "{error}");
        assert_eq!((bad.asked().len(), good.asked().len()), (1, 0));
    }
}

#[tokio::test]
async fn a_read_without_an_answer_goes_to_the_next() {
    let ca = TestCa::new("td.example");
    let slow = TestServer::start(&ca, async |_| std::future::pending().await).await;
    let broken = TestServer::start(&ca, async |_| answer(418, "", "")).await;
    let behind = TestServer::start(&ca, async |_| refuse(503, "not_ready")).await;
    let good = TestServer::start(&ca, async |_| answer(200, "1.7", "[]")).await;
    for bad in [&slow, &broken, &behind] {
        let client = client(&ca, &[&bad.address, &good.address]);
        assert!(client.nodes(ReadOptions::stale()).await.is_ok());
        assert!(bad.asked()[0].starts_with("GET /v1/nodes?stale="), "{:?}", bad.asked());
        let alone = client.with_timeout(Duration::from_millis(300));
        alone.set_addresses(vec![bad.address.clone()]).unwrap();
        let error = alone.nodes(ReadOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
}

#[tokio::test]
async fn errors_are_decoded_and_sorted() {
    let ca = TestCa::new("td.example");
    let cases = [
        (400, ErrorKind::Invalid),
        (401, ErrorKind::Forbidden),
        (403, ErrorKind::Forbidden),
        (404, ErrorKind::NotFound),
        (409, ErrorKind::Conflict),
        (408, ErrorKind::Unavailable),
        (413, ErrorKind::Invalid),
        (429, ErrorKind::Unavailable),
        (500, ErrorKind::Unknown),
        (504, ErrorKind::Unknown),
    ];
    for (status, kind) in cases {
        let server = TestServer::start(&ca, move |_| async move { refuse(status, "broken") }).await;
        let error = client(&ca, &[&server.address]).transfer(&transfer()).await.unwrap_err();
        assert_eq!((error.kind(), error.has_code("broken")), (kind, true), "{status}");
        assert_eq!(error.to_string(), "because of broken (broken)");
    }
    let foreign = TestServer::start(&ca, async |_| answer(502, "", "<html>")).await;
    let error = client(&ca, &[&foreign.address]).transfer(&transfer()).await.unwrap_err();
    assert!(error.has_code("http_502") && error.to_string().contains("<html>"), "{error}");
}

#[tokio::test]
async fn tokens_travel_in_the_header_only() {
    let ca = TestCa::new("td.example");
    let server = TestServer::start(&ca, async |request: http::Request<_>| {
        let shown = request.headers().get("authorization").cloned();
        match shown.is_some_and(|value| value == "Bearer mesh1.a.t.hush.ca") {
            true => answer(200, "1.7", "[]"),
            false => refuse(401, "unauthenticated"),
        }
    })
    .await;
    let builder = ClientBuilder::new([&server.address]).trust(Trust::Pin(ca.pin()));
    let anonymous = builder.clone().build().unwrap();
    let error = anonymous.nodes(ReadOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    let builder = builder.token(Secret::new("mesh1.a.t.hush.ca\n".to_owned()));
    let client = builder.clone().build().unwrap();
    assert!(client.nodes(ReadOptions::default()).await.is_ok());
    let shown = format!("{builder:?} {client:?} {:?}", server.asked());
    assert!(!shown.contains("hush"), "{shown}");
    let bad = ClientBuilder::new(["a:1"]).trust(Trust::Pin([0; 32]));
    assert!(bad.token(Secret::new("two\nlines".to_owned())).build().is_err());
}

#[tokio::test]
async fn answers_are_bounded() {
    let ca = TestCa::new("td.example");
    let server = TestServer::start(&ca, async |_| answer(200, "1.7", vec![b' '; 5_000])).await;
    let client = client(&ca, &[&server.address]);
    let call = || Call {
        method: Method::GET,
        path: "/v1/nodes".to_owned(),
        query: Vec::new(),
        body: None,
        safe: true,
        wait: Duration::ZERO,
    };
    assert!(client.bytes(call(), 5_000).await.is_ok());
    let error = client.bytes(call(), 4_999).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { max: 4_999, .. }), "{error:?}");
    let mut sink = Vec::new();
    assert_eq!(client.save_snapshot(&mut sink).await.unwrap(), 5_000);
    assert_eq!(sink.len(), 5_000);
}

#[tokio::test]
async fn watches_carry_the_revision_and_start_over_when_it_falls() {
    let ca = TestCa::new("td.example");
    let calls = Arc::new(AtomicU32::new(0));
    let server = TestServer::start(&ca, move |_| {
        let revisions = ["1.5", "1.5", "1.9", "1.3", "1.3", "2.1"];
        let call = calls.fetch_add(1, Ordering::Relaxed) as usize;
        let revision = revisions.get(call).copied().unwrap_or("2.1");
        async move { answer(200, revision, "[]") }
    })
    .await;
    let client = client(&ca, &[&server.address]);
    let wait = Duration::from_millis(1_500);
    let read = async |client: Client, options| client.nodes(options).await;
    let mut watch = client.watch(Consistency::Default, wait, read);
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(watch.next().await.unwrap().revision.to_string());
    }
    assert_eq!(seen, ["1.5", "1.9", "1.3", "1.3", "2.1"]);
    let want = [
        "GET /v1/nodes -",
        "GET /v1/nodes?index=1.5&wait=1500ms -",
        "GET /v1/nodes?index=1.5&wait=1500ms -",
        "GET /v1/nodes?index=1.9&wait=1500ms -",
        "GET /v1/nodes -",
        "GET /v1/nodes?index=1.3&wait=1500ms -",
    ];
    assert_eq!(server.asked(), want);
}

#[tokio::test]
async fn a_watch_waits_longer_than_a_call() {
    let ca = TestCa::new("td.example");
    let server = TestServer::start(&ca, async |_| {
        tokio::time::sleep(Duration::from_millis(400)).await;
        answer(200, "1.7", "[]")
    })
    .await;
    let short = client(&ca, &[&server.address]).with_timeout(Duration::from_millis(200));
    assert!(short.nodes(ReadOptions::default()).await.is_err());
    let wait = Some(Wait { index: Revision::ZERO, wait: Duration::from_millis(400) });
    let options = ReadOptions { consistency: Consistency::Consistent, wait };
    assert!(short.nodes(options).await.is_ok());
    let asked = server.asked();
    assert!(asked[1].contains("?consistent=&index=0.0&wait=400ms"), "{asked:?}");
}

#[tokio::test]
async fn only_control_servers_of_the_mesh_are_believed() {
    let ca = TestCa::new("td.example");
    let other = TestCa::new("td.example");
    let auth = ClientAuth::Optional { roles: &CaRole::ALL, allow_expired: false };
    let ok = async |_| answer(200, "1.7", "[]");
    let server = TestServer::start(&ca, ok).await;
    let fake = TestServer::start_as(&ca, &ca.service_id("web"), auth, ok).await;
    let believes = async |trust: Trust, address: &str| {
        let client = ClientBuilder::new([address]).trust(trust).build().unwrap();
        client.nodes(ReadOptions::default()).await.map_err(|error| error.to_string())
    };
    for trust in [Trust::Store(ca.trust()), Trust::Pem(ca.root_pem()), Trust::Pin(ca.pin())] {
        assert!(believes(trust.clone(), &server.address).await.is_ok());
        let error = believes(trust, &fake.address).await.unwrap_err();
        assert!(error.contains("svc/web, expected a control server"), "{error}");
    }
    let foreign =
        [Trust::Store(other.trust()), Trust::Pem(other.root_pem()), Trust::Pin(other.pin())];
    for trust in foreign {
        assert!(believes(trust, &server.address).await.is_err());
    }
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn a_swapped_identity_shows_on_the_next_call() {
    let ca = TestCa::new("td.example");
    let server = TestServer::start(&ca, async |_| answer(200, "1.7", WRITTEN)).await;
    let source = ca.source(&ca.node_id("web-7"));
    let builder = ClientBuilder::new([&server.address]).trust(Trust::Store(ca.trust()));
    let client = builder.identity(source.clone()).build().unwrap();
    let mut serials = Vec::new();
    for _ in 0..2 {
        serials.push(source.current().serial.clone());
        client.transfer(&transfer()).await.unwrap();
        source.swap(ca.svid(&ca.node_id("web-7")));
    }
    let asked = server.asked();
    assert!(asked[0].ends_with(&serials[0]) && asked[1].ends_with(&serials[1]), "{asked:?}");
}

#[tokio::test]
async fn a_refused_certificate_is_forbidden_not_unknown() {
    let (ca, other) = (TestCa::new("td.example"), TestCa::new("td.example"));
    let server = TestServer::start(&ca, async |_| answer(200, "1.7", WRITTEN)).await;
    let builder = ClientBuilder::new([&server.address]).trust(Trust::Store(ca.trust()));
    let client = builder.identity(other.source(&other.node_id("web-7"))).build().unwrap();
    let request = RevokeRequest { what: Revoked::Serial("aa".into()), reason: String::new() };
    let error = client.revoke(&request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden, "{error:?}");
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn the_stream_goes_both_ways_at_once() {
    let ca = TestCa::new("td.example");
    let server = TestServer::start(&ca, async |request: http::Request<_>| {
        if request.uri().path() == "/v1/ready" {
            return answer(200, "0.0", r#"{"ready":true,"reason":null}"#);
        }
        // Each message of the agent is answered by a goodbye that says its size.
        echo(request, |chunk: Bytes| {
            let reason = chunk.len().to_string();
            encode(&ToAgent::Goodbye(Goodbye1 { reason })).unwrap()
        })
    })
    .await;
    let client = client(&ca, &[&dead(), &server.address]);
    let hello = AgentHello1 {
        node: "web-7".parse().unwrap(),
        generation: 1,
        version: "0.1.0".to_owned(),
        applied: Revision::ZERO,
        subscriptions: Vec::new(),
    };
    let (sender, mut receiver) = client.stream(hello.clone()).await.unwrap();
    assert_eq!(receiver.server(), server.address);
    let size = |message: &ToServer| encode(message).unwrap().len().to_string();
    let goodbye = |reason| Some(ToAgent::Goodbye(Goodbye1 { reason }));
    let got = receiver.recv().await.unwrap();
    assert_eq!(got, goodbye(size(&ToServer::Hello(hello))));
    for index in 0..20 {
        let ack = ToServer::Ack(Ack1 { revision: Revision::new(1, index) });
        sender.send(&ack).await.unwrap();
        assert_eq!(receiver.recv().await.unwrap(), goodbye(size(&ack)));
    }
    drop(sender);
    assert_eq!(receiver.recv().await.unwrap(), None);
}

#[test]
fn addresses_and_trust_are_checked() {
    let build = |address: &str| {
        ClientBuilder::new([address]).trust(Trust::Pin([0; 32])).build().map(|_| ())
    };
    for good in ["ctl-1:7300", "10.0.0.1:7300", "[::1]:7300"] {
        assert!(build(good).is_ok(), "{good}");
    }
    for bad in
        ["", "ctl-1", "ctl-1:", ":7300", "u@ctl-1:7300", "ctl-1:99999", "https://c:1", "a:1/x"]
    {
        assert!(matches!(build(bad), Err(ClientError::Address { .. })), "{bad}");
    }
    assert!(matches!(ClientBuilder::new(["a:1"]).build(), Err(ClientError::NoTrust)));
    let none = ClientBuilder::new(Vec::<String>::new()).trust(Trust::Pin([0; 32])).build();
    assert!(matches!(none, Err(ClientError::Addresses { found: 0 })));
}
