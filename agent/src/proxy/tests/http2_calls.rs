//! HTTP/2 and gRPC from end to end, with hyper as client and as application.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::policy::Protocol;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::world::*;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// `feed` (gRPC) and `pages` (HTTP/2) on n2, called by `web` on n1.
struct Peers {
    world: World,
    to_feed: std::net::SocketAddr,
    to_pages: std::net::SocketAddr,
    app: JoinSet<()>,
}

impl Peers {
    async fn new() -> Self {
        let world = World::new().await;
        let mut app = JoinSet::new();
        let address = h2_app(&mut app).await;
        let (to_feed, to_pages) = (free_port().await, free_port().await);
        for (name, protocol) in [("feed", Protocol::Grpc), ("pages", Protocol::Http2)] {
            world.n2.identities.put(&service(name), world.ca.svid(&world.ca.service_id(name)));
            swap(&world.n2, |next| {
                access(&world.ca, next, name, protocol, &["web"]);
                hosted(next, name, address, &[]);
            });
            swap(&world.n1, |next| {
                routes(&world.ca, next, name, protocol);
                endpoint(next, name, "n2", world.n2.handle.inbound());
            });
        }
        swap(&world.n1, |next| {
            let ports = [("feed", to_feed), ("pages", to_pages), ("orders", world.to_orders)];
            hosted(next, "web", "127.0.0.1:1".parse().unwrap(), &ports);
        });
        listening(to_feed).await;
        listening(to_pages).await;
        Self { world, to_feed, to_pages, app }
    }

    async fn stop(mut self) {
        self.world.stop().await;
        self.app.shutdown().await;
    }
}

/// An application that sends back what it gets: the fields it saw as `seen-*`, the body, and a
/// trailer. On `/slow` it never answers, on `/refuses` with trailers alone.
async fn h2_app(tasks: &mut JoinSet<()>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let serving = builder.serve_connection(TokioIo::new(stream), service_fn(echo));
                drop(serving.await);
            });
        }
    });
    address
}

async fn echo(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    if parts.uri.path() == "/slow" {
        std::future::pending::<()>().await;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let data = BodyStream::new(body)
        .filter_map(|frame| std::future::ready(frame.ok().filter(Frame::is_data).map(Ok)));
    let end = futures_util::stream::iter([Ok(Frame::trailers(trailers))]);
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(data.chain(end))));
    for (name, seen) in [("te", "seen-te"), ("x-mesh-caller", "seen-caller")] {
        for value in parts.headers.get_all(name) {
            response.headers_mut().append(seen, value.clone());
        }
    }
    Ok(response)
}

async fn client(to: std::net::SocketAddr, tasks: &mut JoinSet<()>) -> SendRequest<Body> {
    let stream = TcpStream::connect(to).await.unwrap();
    let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tasks.spawn(async move { drop(connection.await) });
    client
}

fn call(path: &str, kind: &str, body: Bytes) -> Request<Body> {
    let mut request = Request::new(Full::new(body).boxed_unsync());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = format!("http://feed.mesh{path}").parse().unwrap();
    let headers = request.headers_mut();
    headers.insert("content-type", HeaderValue::from_str(kind).unwrap());
    headers.insert("te", HeaderValue::from_static("trailers"));
    headers.insert("x-mesh-caller", HeaderValue::from_static("forged"));
    request
}

fn get(path: &str) -> Request<Body> {
    let mut request = Request::new(Empty::new().boxed_unsync());
    *request.uri_mut() = format!("http://any.mesh{path}").parse().unwrap();
    request
}

const GRPC: &str = "application/grpc";

fn header<'a>(response: &'a Response<Incoming>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_calls_go_through_with_trailers_many_at_once() {
    let peers = Peers::new().await;
    let mut tasks = JoinSet::new();
    let client = client(peers.to_feed, &mut tasks).await;
    let mut calls = JoinSet::new();
    for n in 0..64_usize {
        let mut client = client.clone();
        calls.spawn(async move {
            // from nothing to beyond every window
            let sent = Bytes::from(vec![u8::try_from(n).unwrap(); n * n * 64]);
            client.ready().await.unwrap();
            let answer = client.send_request(call("/a.B/C", GRPC, sent.clone())).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "call {n}");
            assert_eq!(header(&answer, "seen-te"), "trailers", "call {n}");
            assert!(header(&answer, "seen-caller").ends_with("/svc/web"), "call {n}");
            let body = answer.into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["grpc-status"], "0", "call {n}");
            assert!(body.to_bytes() == sent, "call {n}");
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    drop((client, tasks));
    peers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_grpc_caller_is_refused_is_a_status_it_reads() {
    let peers = Peers::new().await;
    let mut tasks = JoinSet::new();
    let mut feed = client(peers.to_feed, &mut tasks).await;
    let mut orders = client(peers.world.to_orders, &mut tasks).await;
    let mut slow = call("/slow", "application/grpc+proto", Bytes::new());
    slow.headers_mut().insert("grpc-timeout", HeaderValue::from_static("100m"));
    let late = feed.send_request(slow).await.unwrap();
    assert_eq!((late.status().as_u16(), header(&late, "grpc-status")), (200, "4"));
    assert_eq!(header(&late, "mesh-error"), "timeout");
    let other = orders.send_request(call("/", GRPC, Bytes::new())).await.unwrap();
    assert_eq!(header(&other, "grpc-status"), "12", "orders speaks HTTP/1.1: {other:?}");
    peers.world.deny("feed");
    let denied = feed.send_request(call("/a.B/C", GRPC, Bytes::new())).await.unwrap();
    assert_eq!((denied.status().as_u16(), header(&denied, "grpc-status")), (200, "7"));
    assert_eq!(header(&denied, "content-type"), GRPC);
    assert!(header(&denied, "grpc-message").starts_with("mesh: denied by default"), "{denied:?}");
    assert!(denied.into_body().collect().await.unwrap().to_bytes().is_empty());
    swap(&peers.world.n1, |next| {
        std::sync::Arc::make_mut(next.endpoints.get_mut(&service("feed")).unwrap())
            .endpoints
            .clear();
    });
    let gone = feed.send_request(call("/a.B/C", GRPC, Bytes::new())).await.unwrap();
    assert_eq!(header(&gone, "grpc-status"), "14", "{gone:?}");
    drop((feed, orders, tasks));
    peers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_called_by_http1_and_http2_alike() {
    let peers = Peers::new().await;
    let mut tasks = JoinSet::new();
    // HTTP/2 to an application of HTTP/1.1
    let mut orders = client(peers.world.to_orders, &mut tasks).await;
    let answer = orders.send_request(get("/a/../b")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let seen = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(seen.starts_with(b"orders\nGET /b HTTP/1.1"), "{seen:?}");
    // HTTP/1.1 to an application of HTTP/2
    let mut plain = Client::open(peers.to_pages).await;
    let (head, _) = plain.get("/x").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("/svc/web"), "{head}");
    // and not to one of gRPC
    let mut feed = Client::open(peers.to_feed).await;
    let (head, _) = feed.get("/x").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 502") && head.contains("mesh-error: protocol"), "{head}");
    drop((orders, plain, feed, tasks));
    peers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_ends_http2_connections_once_their_calls_are_done() {
    let peers = Peers::new().await;
    let mut tasks = JoinSet::new();
    let mut pages = client(peers.to_pages, &mut tasks).await;
    let (mut sender, body) = http_body_util::channel::Channel::<Bytes, Infallible>::new(1);
    let mut request = call("/x", "text/plain", Bytes::new()).map(|_| body.boxed_unsync());
    request.headers_mut().remove("te");
    let answer = pages.send_request(request).await.unwrap();
    let world = peers.world;
    world.n1.shutdown.cancel();
    let stopping = tokio::spawn(world.n1.handle.stopped());
    tokio::time::sleep(Duration::from_millis(200)).await;
    sender.send_data(Bytes::from_static(b"late")).await.unwrap();
    drop(sender);
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "late", "what was under way is finished");
    drop(pages);
    // its drain would take 2 s
    let stopped = tokio::time::timeout(Duration::from_secs(1), stopping).await;
    stopped.expect("the drain ends early").unwrap();
    world.n2.shutdown.cancel();
    world.n2.handle.stopped().await;
}
