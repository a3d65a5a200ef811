//! Another agent is a peer, not a friend: what it sends over a link is checked again.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use mesh_core::identity::server_name;
use mesh_net::tls::{Expected, client_config};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::world::{Client, World, service};
use crate::link::{self, ALPN, Config, LinkClient, LinkError, RequestHead, Target, TcpOpen};

/// A link to n2's `name` by an agent that is not ours, but has a certificate of `web`.
async fn hostile(world: &World, sni: &str, name: &str) -> LinkClient {
    let source = world.ca.source(&world.ca.service_id("web"));
    let expected = Expected::Id(world.ca.service_id(name));
    let config = client_config(Some(source), world.ca.trust(), expected, &[ALPN]).unwrap();
    let tcp = TcpStream::connect(world.n2.handle.inbound()).await.unwrap();
    let sni = ServerName::try_from(sni.to_owned()).unwrap();
    let tls = TlsConnector::from(config).connect(sni, tcp).await.unwrap();
    let (client, driver) = link::client(tls, Config::default());
    tokio::spawn(driver);
    client
}

fn sni(world: &World, name: &str) -> String {
    server_name(&world.ca.trust_domain, &world.ca.datacenter, &service(name))
}

fn head(method: &str, length: Option<&'static str>) -> RequestHead {
    let mut headers = HeaderMap::new();
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static(length));
    }
    RequestHead {
        target: Target::default(),
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        path: Some("/".parse().unwrap()),
        authority: Some("orders".parse().unwrap()),
        upgrade: String::new(),
        headers,
    }
}

async fn status(
    link: &LinkClient, head: RequestHead, body: Option<&'static [u8]>,
) -> Result<u16, LinkError> {
    let (mut sink, answer) = link.open_http(head, body.is_none())?;
    if let Some(body) = body {
        sink.send(Bytes::from_static(body)).await?;
        sink.finish()?;
    }
    let answer = tokio::time::timeout(Duration::from_secs(5), answer).await;
    Ok(answer.expect("an answer in time")?.0.status.as_u16())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_that_lies_cannot_reach_into_the_next_request() {
    let world = World::new().await;
    let link = hostile(&world, &sni(&world, "orders"), "orders").await;
    assert_eq!(status(&link, head("POST", None), Some(b"x")).await, Ok(200));
    let cases: [(&str, Option<&'static [u8]>); 3] =
        [("no body", None), ("short", Some(b"abc")), ("long", Some(b"0123456789GET /evil"))];
    for (name, body) in cases {
        let lied = status(&link, head("POST", Some("10")), body).await;
        assert!(name == "long" || lied != Ok(200), "{name}: {lied:?}");
        for _ in 0..3 {
            let (head, body) = Client::open(world.to_orders).await.get("/good").await.unwrap();
            assert!(head.starts_with("HTTP/1.1 200"), "{name}: {head}");
            assert!(body.starts_with("orders\nGET /good HTTP/1.1\r\n"), "{name}: {body}");
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_must_be_canonical() {
    let world = World::new().await;
    let link = hostile(&world, &sni(&world, "orders"), "orders").await;
    assert_eq!(status(&link, head("GET", None), None).await, Ok(200));
    for method in ["delete", "CONNECT"] {
        assert_eq!(status(&link, head(method, None), None).await, Ok(400), "{method}");
    }
    let path = RequestHead { path: Some("/a/../b".parse().unwrap()), ..head("GET", None) };
    assert_eq!(status(&link, path, None).await, Ok(400));
    for host in ["Orders", "orders."] {
        let host = RequestHead { authority: Some(host.parse().unwrap()), ..head("GET", None) };
        assert_eq!(status(&link, host, None).await, Ok(400));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_service_is_reached_by_its_own_protocol_only() {
    let world = World::new().await;
    let orders = hostile(&world, &sni(&world, "orders"), "orders").await;
    let stream = orders.open_tcp(TcpOpen::default()).unwrap();
    assert!(stream.connected().await.is_err(), "orders is HTTP");
    let db = hostile(&world, &sni(&world, "db"), "db").await;
    assert_eq!(status(&db, head("GET", None), None).await, Ok(502), "db is TCP");
    let other = Target { instance: "db-1".to_owned(), port: 0 };
    let refused = status(&orders, RequestHead { target: other, ..head("GET", None) }, None).await;
    assert!(refused.is_err(), "an instance of another service: {refused:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_of_another_datacenter_is_not_ours() {
    let world = World::new().await;
    let dc2 = "dc2".parse().unwrap();
    let sni = server_name(&world.ca.trust_domain, &dc2, &service("orders"));
    let link = hostile(&world, &sni, "orders").await;
    assert!(status(&link, head("GET", None), None).await.is_err());
    world.stop().await;
}
