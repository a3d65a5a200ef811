//! Our client, on hyper's server and on our own, and on applications that misbehave.

use std::net::SocketAddr;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::super::frame::PREFACE;
use super::raw::{block, data_of, frame_of};
use super::*;
use crate::edge::http1::SendError;

fn client() -> Client {
    Client::new(|driver| {
        tokio::spawn(driver);
    })
}

/// hyper's server: echoes what it gets; how many connections there were.
async fn hyper_app(streams: u32) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let service = service_fn(|request: Request<Incoming>| async move {
                if request.uri().path() == "/never" {
                    std::future::pending::<()>().await;
                }
                if request.uri().path() == "/slow" {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                assert_eq!(request.uri().authority().unwrap(), "orders.mesh");
                Ok::<_, Infallible>(Response::new(request.into_body()))
            });
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder
                .max_concurrent_streams(streams)
                .initial_stream_window_size(64 << 10)
                .initial_connection_window_size(64 << 10);
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, connections)
}

/// Our own server.
async fn own_app() -> (SocketAddr, Arc<App>, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (app, closing) = (Arc::<App>::default(), CancellationToken::new());
    let (service, stop) = (Arc::clone(&app), closing.clone());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let config = Config { rest: Duration::from_secs(60), ..CONFIG };
            serving(stream, &service, config, &stop);
        }
    });
    (address, app, closing)
}

/// Greets on every connection, and does as it is told with the first request.
async fn raw_app(answer: Vec<u8>, closes: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut hello = [0; PREFACE.len() + 9 + 12 + 13];
            stream.read_exact(&mut hello).await.unwrap();
            stream.write_all(&frame_of(4, 0, 0, b"")).await.unwrap();
            loop {
                let mut head = [0; 9];
                stream.read_exact(&mut head).await.unwrap();
                let mut payload = vec![0; usize::from(head[2])];
                stream.read_exact(&mut payload).await.unwrap();
                if head[3] == 1 {
                    break;
                }
            }
            let _ = stream.write_all(&answer).await;
            if closes {
                continue;
            }
            let mut sink = Vec::new();
            let _ = stream.read_to_end(&mut sink).await;
        }
    });
    address
}

fn ask<B>(path: &str, body: B) -> Request<B> {
    Request::post(path).header("host", "orders.mesh").body(body).unwrap()
}

fn empty() -> Empty<Bytes> {
    Empty::new()
}

async fn collect(response: Response<RecvBody>) -> (usize, Option<HeaderMap>) {
    let whole = timeout(Duration::from_secs(20), response.into_body().collect());
    let whole = whole.await.expect("in time").unwrap();
    let fields = whole.trailers().cloned();
    (whole.to_bytes().len(), fields)
}

async fn send<B>(
    client: &Client, app: SocketAddr, request: Request<B>,
) -> Result<Response<RecvBody>, SendError>
where
    B: Body<Data = Bytes, Error: std::fmt::Display> + Send + Unpin + 'static,
{
    timeout(Duration::from_secs(20), client.send(app, request)).await.expect("in time")
}

#[tokio::test]
async fn bodies_and_trailers_go_both_ways_on_one_connection() {
    let (hyper, connections) = hyper_app(100).await;
    let (own, _, _) = own_app().await;
    let client = client();
    for app in [hyper, own, hyper] {
        let response = send(&client, app, ask("/echo", Parts::new(LARGE, Some(trailers())))).await;
        let (len, fields) = collect(response.unwrap()).await;
        let fields = fields.unwrap();
        assert_eq!((len, fields.len()), (LARGE, 1));
        assert_eq!(fields["grpc-status"], "0");
        let response = send(&client, app, ask("/echo", empty())).await.unwrap();
        assert_eq!(collect(response).await, (0, None));
        let response = send(&client, app, ask("/echo", Full::new(Bytes::from("abc")))).await;
        assert_eq!(collect(response.unwrap()).await, (3, None));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_hundred_calls_share_a_connection_and_more_take_more() {
    let (app, connections) = hyper_app(40).await;
    let client = client();
    // hears how many streams it may open
    collect(send(&client, app, ask("/echo", empty())).await.unwrap()).await;
    let asks = (0..100).map(|n| {
        let client = &client;
        async move {
            let response = send(client, app, ask("/slow", Parts::new(n * 1_000, None))).await;
            assert_eq!(collect(response.unwrap()).await, (n * 1_000, None));
        }
    });
    futures_util::future::join_all(asks).await;
    assert_eq!(connections.load(Ordering::SeqCst), 3);

    let (app, connections) = hyper_app(1).await;
    let asks = (0..40).map(|_| {
        let client = &client;
        async move { collect(send(client, app, ask("/echo", empty())).await.unwrap()).await }
    });
    futures_util::future::join_all(asks).await;
    let count = connections.load(Ordering::SeqCst);
    assert!((1..=crate::edge::limits::APP_CONNECTIONS_MAX).contains(&count), "{count}");
}

#[tokio::test]
async fn what_nobody_wants_any_more_is_reset() {
    let (address, app, _) = own_app().await;
    let client = client();
    let response = send(&client, address, ask("/endless", empty())).await.unwrap();
    let never = timeout(Duration::from_millis(100), client.send(address, ask("/never", empty())));
    assert!(never.await.is_err());
    eventually("the call ends", || app.running() == 0).await;
    drop(response);
    // a body that nobody reads stops nothing
    let slow = send(&client, address, ask("/large", empty())).await.unwrap();
    let response = send(&client, address, ask("/large", empty())).await.unwrap();
    assert_eq!(collect(response).await, (LARGE, None));
    assert_eq!(collect(slow).await, (LARGE, None));
    let broken = futures_util::stream::iter([
        Ok(Frame::data(Bytes::from_static(b"abc"))),
        Err("it broke off"),
    ]);
    let request = ask("/never", StreamBody::new(broken));
    let why = send(&client, address, request).await.unwrap_err();
    assert!(matches!(why, SendError::Request(why) if why == "it broke off"));
    eventually("the call ends", || app.running() == 0).await;
}

#[tokio::test]
async fn an_application_that_drains_loses_no_call() {
    let (address, app, closing) = own_app().await;
    let client = client();
    let body = Parts::new(LARGE, None);
    let response = send(&client, address, ask("/echo", body)).await.unwrap();
    closing.cancel();
    // on its way while the connection drains, or on another one that drains at once
    let asks = (0..20).map(|_| send(&client, address, ask("/early", empty())));
    for answer in futures_util::future::join_all(asks).await {
        match answer {
            Ok(answer) => assert_eq!(collect(answer).await.0, 2),
            Err(SendError::Connect { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(collect(response).await, (LARGE, None));
    assert_eq!(app.running(), 0);
}

#[tokio::test]
async fn requests_that_were_not_seen_say_so() {
    let client = client();
    let refused = raw_app(frame_of(3, 0, 1, &[0, 0, 0, 7]), false).await;
    let left = raw_app(frame_of(7, 0, 0, &[0; 8]), false).await;
    let silent = raw_app(Vec::new(), true).await;
    let deaf = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let _held = listener.accept().await;
            std::future::pending::<()>().await;
        });
        address
    };
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for (what, app, unseen) in [
        ("refused", refused, true),
        ("left", left, true),
        ("gone", silent, false),
        ("no", nobody, true),
        ("deaf", deaf, true),
    ] {
        let request = ask("/a", Parts::new(3, None));
        let why = send(&client, app, request).await.unwrap_err();
        assert_eq!(matches!(why, SendError::Connect { .. }), unseen, "{what}: {why:?}");
        assert_eq!(matches!(why, SendError::Closed), !unseen, "{what}: {why:?}");
    }
}

#[tokio::test]
async fn b_smug_answers_with_two_readings_are_none() {
    let client = client();
    let ok = |more: &[(&str, &str)]| {
        frame_of(1, 4, 1, &block(&[&[(":status", "200")][..], more].concat()))
    };
    let cases = [
        ("no status", frame_of(1, 5, 1, &block(&[("x", "1")]))),
        ("a request", frame_of(1, 5, 1, &block(&[(":status", "200"), (":path", "/")]))),
        ("te", ok(&[("transfer-encoding", "chunked")])),
        ("connection", ok(&[("connection", "close")])),
        ("crlf", ok(&[("x", "a\r\nb: c")])),
        ("upper case", ok(&[("X", "a")])),
        ("cl twice", ok(&[("content-length", "1"), ("content-length", "1")])),
        ("data first", data_of(1, b"x", true)),
        ("101", frame_of(1, 4, 1, &block(&[(":status", "101")]))),
        ("an end with 100", frame_of(1, 5, 1, &block(&[(":status", "100")]))),
        ("many 103", frame_of(1, 4, 1, &block(&[(":status", "103")])).repeat(9)),
    ];
    for (what, sent) in cases {
        let app = raw_app(sent, false).await;
        let why = send(&client, app, ask("/a", Parts::new(3, None))).await.unwrap_err();
        assert!(matches!(why, SendError::Answer(_)), "{what}: {why:?}");
    }
    let bodies = [
        ("short", ok(&[("content-length", "5")]), data_of(1, b"abc", true)),
        ("long", ok(&[("content-length", "2")]), data_of(1, b"abc", true)),
        ("cut", ok(&[]), frame_of(3, 0, 1, &[0, 0, 0, 2])),
        ("trailers that are no end", ok(&[]), frame_of(1, 4, 1, &block(&[("x", "1")]))),
    ];
    for (what, head, next) in bodies {
        let app = raw_app([head, next].concat(), false).await;
        // the answer may be gone before its head was taken
        if let Ok(response) = send(&client, app, ask("/a", empty())).await {
            assert!(response.into_body().collect().await.is_err(), "{what}");
        }
    }
    let informed = [
        frame_of(1, 4, 1, &block(&[(":status", "103")])),
        ok(&[("content-length", "3")]),
        data_of(1, b"abc", true),
    ];
    let app = raw_app(informed.concat(), false).await;
    assert_eq!(collect(send(&client, app, ask("/a", empty())).await.unwrap()).await, (3, None));
}

/// What an application may not do on a connection, it does not survive; the call ends.
#[tokio::test]
async fn b_h2_applications_that_break_the_rules_end_their_connection() {
    let client = client();
    for (what, sent) in [
        ("a pushed stream", frame_of(5, 4, 1, &[0, 0, 0, 2, 0x88])),
        ("an even stream", frame_of(1, 5, 2, &block(&[(":status", "200")]))),
        ("a stream that was not opened", frame_of(1, 5, 9, &block(&[(":status", "200")]))),
        ("pings", frame_of(6, 0, 0, &[0; 8]).repeat(10_000)),
        ("no HTTP/2", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
    ] {
        let app = raw_app(sent, false).await;
        let why = send(&client, app, ask("/a", Parts::new(3, None))).await.unwrap_err();
        assert!(matches!(why, SendError::Closed), "{what}: {why:?}");
    }
}

#[tokio::test]
async fn idle_connections_are_left_when_the_client_goes() {
    let (address, _, _) = own_app().await;
    let ended = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&ended);
    let client = Client::new(move |driver| {
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            driver.await;
            count.fetch_add(1, Ordering::SeqCst);
        });
    });
    let response = send(&client, address, ask("/echo", Parts::new(LARGE, None))).await.unwrap();
    drop(client);
    assert_eq!(collect(response).await, (LARGE, None));
    eventually("the connection ends", || ended.load(Ordering::SeqCst) == 1).await;
    let _ = TcpStream::connect(address).await.unwrap();
}
