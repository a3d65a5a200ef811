//! Two sides of a link on an in-memory transport.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::iter;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Frame as BodyFrame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

use super::*;

type Outcome = JoinHandle<Result<(), LinkError>>;

fn request(path: &'static str) -> RequestHead {
    RequestHead {
        target: Target { instance: "i-1".into(), port: 0 },
        method: Method::POST,
        path: Some(path.parse().unwrap()),
        authority: Some("web.mesh".parse().unwrap()),
        upgrade: String::new(),
        headers: HeaderMap::new(),
    }
}

fn ok() -> ResponseHead {
    ResponseHead::new(StatusCode::OK)
}

fn link(config: Config, pipe: usize) -> (LinkClient, LinkServer, Outcome, Outcome) {
    let (near, far) = duplex(pipe);
    let (caller, driver) = client(near, config);
    let one = tokio::spawn(driver);
    let (callee, driver) = server(far, config);
    (caller, callee, one, tokio::spawn(driver))
}

fn plain() -> (LinkClient, LinkServer, Outcome, Outcome) {
    link(Config::default(), 64 << 10)
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(20), future).await.expect("took more than 20 s")
}

/// Answers every stream with what it carries: bodies and trailers, or raw bytes.
async fn echo(server: LinkServer) {
    let mut tasks = JoinSet::new();
    while let Some(mut incoming) = server.accept().await {
        tasks.spawn(async move {
            if matches!(incoming.open, Open::Tcp(_)) {
                let (read, write) = &mut tokio::io::split(incoming.accept_tcp().unwrap());
                if tokio::io::copy(read, write).await.is_ok() {
                    write.shutdown().await.unwrap();
                }
                return;
            }
            let Ok(sink) = incoming.responder.respond(&ok(), false) else { return };
            drop(sink.send_body(incoming.body).await);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn an_exchange_with_informational_head_body_and_trailers() {
    let (client, server, ..) = plain();
    let (sink, mut response) = client.open_http(request("/a?b=c"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [
        Ok::<_, Infallible>(BodyFrame::data(Bytes::from_static(b"ask"))),
        Ok(BodyFrame::trailers(trailers.clone())),
    ];
    sink.send_body(StreamBody::new(iter(frames))).await.unwrap();

    let mut incoming = soon(server.accept()).await.unwrap();
    assert_eq!(incoming.open, Open::Http(request("/a?b=c")));
    let body = soon(incoming.body.collect()).await.unwrap();
    assert_eq!(body.trailers(), Some(&trailers));
    assert_eq!(body.to_bytes(), "ask");

    let hints = ResponseHead::new(StatusCode::EARLY_HINTS);
    incoming.responder.inform(&hints).unwrap();
    let sink = incoming.responder.respond(&ok(), false).unwrap();
    sink.send_body(Full::new(Bytes::from_static(b"answer"))).await.unwrap();
    assert_eq!(soon(response.head()).await, Ok(hints));
    let (head, body) = soon(response).await.unwrap();
    assert_eq!(head, ok());
    assert_eq!(soon(body.collect()).await.unwrap().to_bytes(), "answer");
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test]
async fn bodies_of_any_size_come_back_whole_each_to_its_own_stream() {
    let (client, server, ..) = link(Config::default(), 1000);
    let server = tokio::spawn(echo(server));
    let mut tasks = JoinSet::new();
    for at in 0..40u8 {
        let client = client.clone();
        tasks.spawn(async move {
            let body = Bytes::from(vec![at; usize::from(at) * 9_001]);
            let (sink, response) = client.open_http(request("/"), false).unwrap();
            let send = sink.send_body(Full::new(body.clone()));
            let answer = async { response.await.unwrap().1.collect().await.unwrap().to_bytes() };
            let (sent, got) = tokio::join!(send, answer);
            sent.unwrap();
            assert!(got == body, "stream {at}");
        });
    }
    while let Some(done) = soon(tasks.join_next()).await {
        done.unwrap();
    }
    drop(client);
    soon(server).await.unwrap();
}

#[tokio::test]
async fn tcp_streams_half_close_and_tell_when_they_are_connected() {
    let (client, server, ..) = plain();
    let server = tokio::spawn(echo(server));
    let mut stream = client.open_tcp(TcpOpen::default()).unwrap();
    stream.write_all(b"early").await.unwrap();
    soon(stream.connected()).await.unwrap();
    let sent: Vec<u8> = (0..3_000_000u32).map(|at| at as u8).collect();
    let (mut read, mut write) = tokio::io::split(stream);
    let write = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    soon(async { tokio::join!(write, read.read_to_end(&mut got)).1.unwrap() }).await;
    assert!(got[..5] == *b"early" && got[5..] == sent);
    drop((read, client));
    soon(server).await.unwrap();
}

#[tokio::test]
async fn the_server_may_speak_first() {
    let (client, server, ..) = plain();
    let mut near = client.open_tcp(TcpOpen::default()).unwrap();
    let mut far = soon(server.accept()).await.unwrap().accept_tcp().unwrap();
    far.write_all(b"220 ready").await.unwrap();
    let mut hello = [0; 9];
    soon(near.read_exact(&mut hello)).await.unwrap();
    assert_eq!(&hello, b"220 ready");
    far.reset(Code::BROKEN);
    let error = soon(near.read(&mut hello)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn dropping_a_handle_cancels_at_the_other_end() {
    let (client, server, ..) = plain();
    let (sink, response) = client.open_http(request("/"), true).unwrap();
    let mut incoming = soon(server.accept()).await.unwrap();
    drop(response);
    let cancelled = LinkError::Reset(Code::CANCELLED);
    assert_eq!(soon(incoming.responder.cancelled()).await, cancelled);
    drop(sink);

    let (_sink, response) = client.open_http(request("/"), true).unwrap();
    drop(soon(server.accept()).await.unwrap());
    assert_eq!(soon(response).await.unwrap_err(), LinkError::Reset(Code::INTERNAL));

    let (_sink, response) = client.open_http(request("/"), true).unwrap();
    let mut incoming = soon(server.accept()).await.unwrap();
    let mut sink = incoming.responder.respond(&ok(), false).unwrap();
    sink.send(Bytes::from_static(b"x")).await.unwrap();
    let mut body = soon(response).await.unwrap().1;
    assert!(soon(body.chunk()).await.unwrap().is_ok());
    drop(sink);
    assert_eq!(soon(body.chunk()).await, Some(Err(LinkError::Reset(Code::BROKEN))));
    assert_eq!((client.in_flight(), server.in_flight()), (0, 0));
}

#[tokio::test]
async fn a_sender_waits_for_its_reader_until_its_deadline_and_others_go_on() {
    let (client, server, ..) = plain();
    let (mut slow, _response) = client.open_http(request("/slow"), false).unwrap();
    let unread = soon(server.accept()).await.unwrap();
    let server = tokio::spawn(echo(server));
    let deadline = Instant::now() + Duration::from_millis(50);
    let sent = slow.send_by(vec![0; 1 << 20].into(), deadline).await;
    assert_eq!(sent, Err(LinkError::Deadline));
    let (sink, response) = client.open_http(request("/fast"), false).unwrap();
    let body = Bytes::from(vec![7; 2 << 20]);
    let send = tokio::spawn(sink.send_body(Full::new(body.clone())));
    let got = soon(soon(response).await.unwrap().1.collect()).await.unwrap().to_bytes();
    assert!(got == body);
    send.await.unwrap().unwrap();
    drop((unread, slow, _response, client));
    soon(server).await.unwrap();
}

#[tokio::test]
async fn a_graceful_close_lets_open_streams_finish_and_ends_both_drivers() {
    let (client, server, near, far) = plain();
    let (sink, response) = client.open_http(request("/"), false).unwrap();
    let mut incoming = soon(server.accept()).await.unwrap();
    server.close_gracefully();
    while client.is_open() {
        tokio::task::yield_now().await;
    }
    let refused = client.open_http(request("/"), true).unwrap_err();
    assert!(refused.unprocessed(), "{refused}");
    sink.send_body(Empty::<Bytes>::new()).await.unwrap();
    drop(incoming.responder.respond(&ok(), true).unwrap());
    assert_eq!(soon(response).await.unwrap().0, ok());
    assert!(soon(server.accept()).await.is_none());
    soon(near).await.unwrap().unwrap();
    soon(far).await.unwrap().unwrap();
}

#[tokio::test]
async fn dropping_the_last_client_closes_the_link() {
    let (client, server, near, far) = plain();
    drop(client);
    assert!(soon(server.accept()).await.is_none());
    soon(near).await.unwrap().unwrap();
    soon(far).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_dropped_refuses_what_waits() {
    let (client, server, near, far) = plain();
    let (_sink, response) = client.open_http(request("/"), true).unwrap();
    while server.in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    drop(server);
    assert!(soon(response).await.unwrap_err().unprocessed());
    soon(near).await.unwrap().unwrap();
    soon(far).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_loss_of_a_driver_is_told_to_all() {
    let (client, server, near, far) = plain();
    let (_sink, response) = client.open_http(request("/"), true).unwrap();
    let _incoming = soon(server.accept()).await.unwrap();
    far.abort();
    assert_eq!(soon(response).await.unwrap_err(), LinkError::PeerGone);
    assert_eq!(soon(near).await.unwrap(), Err(LinkError::PeerGone));
    assert_eq!(client.open_http(request("/"), true).unwrap_err(), LinkError::Draining);
    assert!(soon(server.accept()).await.is_none());
}

fn impatient() -> Config {
    Config {
        keepalive: Some(Duration::from_millis(20)),
        pong_timeout: Duration::from_millis(50),
        hello_timeout: Duration::from_millis(50),
        write_timeout: Duration::from_millis(50),
        ..Config::default()
    }
}

/// A client whose peer is the raw other end of the transport.
fn alone(config: Config, pipe: usize) -> (LinkClient, Outcome, DuplexStream) {
    let (near, far) = duplex(pipe);
    let (caller, driver) = client(near, config);
    (caller, tokio::spawn(driver), far)
}

#[tokio::test]
async fn silent_peers_are_given_up() {
    let (_client, outcome, far) = alone(impatient(), 1 << 20);
    assert_eq!(soon(outcome).await.unwrap(), Err(LinkError::TooSlow("hello")));
    drop(far);

    let (_client, outcome, mut far) = alone(impatient(), 1 << 20);
    far.write_all(&[0, 0, 1, 0, 0, 0, 0, 0]).await.unwrap();
    assert_eq!(soon(outcome).await.unwrap(), Err(LinkError::TooSlow("pong")));

    let config = Config { keepalive: None, ..impatient() };
    let (client, outcome, mut far) = alone(config, 64);
    far.write_all(&[0, 0, 1, 0, 0, 0, 0, 0]).await.unwrap();
    let (mut sink, _response) = client.open_http(request("/"), false).unwrap();
    sink.send(Bytes::from_static(&[0; 1000])).await.unwrap();
    assert_eq!(soon(outcome).await.unwrap(), Err(LinkError::TooSlow("write")));
}

#[tokio::test]
async fn quiet_links_stay_up() {
    let (client, server, near, far) = link(impatient(), 64 << 10);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(client.is_open() && !near.is_finished() && !far.is_finished());
    drop((client, server));
}

#[tokio::test]
async fn a_violation_is_answered_with_a_goaway_and_the_end() {
    let (client, outcome, mut far) = alone(Config::default(), 1 << 20);
    let (_sink, response) = client.open_http(request("/"), true).unwrap();
    let mut space = vec![0; 1 << 10];
    soon(far.read(&mut space)).await.unwrap();
    far.write_all(&[0, 0, 0x42, 0, 0, 0, 0, 0]).await.unwrap();
    let unknown = LinkError::UnknownKind { found: 0x42 };
    assert_eq!(soon(response).await.unwrap_err(), unknown);
    assert_eq!(soon(outcome).await.unwrap(), Err(unknown));
    let mut sent = Vec::new();
    soon(far.read_to_end(&mut sent)).await.unwrap();
    assert!(sent.ends_with(&[0, 8, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), "{sent:?}");
}

#[tokio::test]
async fn the_frames_of_one_turn_leave_in_one_write() {
    let (client, _outcome, mut far) = alone(Config::default(), 1 << 20);
    let mut space = vec![0; 1 << 16];
    let hello = soon(far.read(&mut space)).await.unwrap();
    assert_eq!(hello, HEADER + 42);
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.open_http(request("/"), true).unwrap() })
        })
        .collect();
    let read = soon(far.read(&mut space)).await.unwrap();
    let (mut decoder, mut bytes, mut frames) = (Decoder::default(), &space[..read], 0);
    while decoder.next(&mut bytes, &Settings::FLOOR).unwrap().is_some() {
        frames += 1;
    }
    assert_eq!(frames, 10);
    drop(tasks);
}
