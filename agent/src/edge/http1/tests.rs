//! The server over a pipe in memory: what a client sees, byte by byte.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod apps;
mod lasting;
mod limits;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::edge::{BodyError, RecvBody, Reject, Service, Transport};

type TestBody = BoxBody<Bytes, BodyError>;

/// Answers by path, and notes what it saw.
#[derive(Default)]
struct App {
    seen: Mutex<Vec<String>>,
}

fn full(text: impl Into<Bytes>) -> TestBody {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed()
}

impl App {
    async fn answer(&self, request: Request<RecvBody>) -> Response<TestBody> {
        let (parts, body) = request.into_parts();
        let line = format!("{} {}", parts.method, parts.uri);
        let answer = match parts.uri.path() {
            "/early" => Response::new(full("no")),
            "/never" => std::future::pending().await,
            "/silent" => {
                let silent = StreamBody::new(futures_util::stream::pending());
                Response::new(BodyExt::boxed(silent))
            }
            // as over a link: another task reads the body
            "/elsewhere" => {
                tokio::spawn(body.collect());
                std::future::pending().await
            }
            "/echo" => Response::new(body.boxed()),
            "/close" => Response::builder().header("connection", "close").body(full("")).unwrap(),
            "/short" => Response::builder().header("content-length", 9).body(full("abc")).unwrap(),
            "/long" => Response::builder().header("content-length", 1).body(full("abc")).unwrap(),
            "/chunks" => {
                let frames = ["ab", "", "c"].map(|part| Ok(Frame::data(Bytes::from(part))));
                let trailers = [("x-sum".parse().unwrap(), "7".parse().unwrap())];
                let last = Ok(Frame::trailers(trailers.into_iter().collect()));
                let frames = frames.into_iter().chain([last]);
                Response::new(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames))))
            }
            "/big" => Response::new(full(vec![b'x'; 200_000])),
            _ => {
                let body = match body.collect().await {
                    Ok(body) => body.to_bytes(),
                    Err(why) => Bytes::from(format!("broken: {why}")),
                };
                let text = format!("{line} {}", String::from_utf8_lossy(&body));
                self.seen.lock().unwrap().push(text.clone());
                return Response::new(full(text));
            }
        };
        self.seen.lock().unwrap().push(line);
        answer
    }
}

impl Service for Arc<App> {
    type Body = TestBody;

    async fn call(&self, request: Request<RecvBody>) -> Response<TestBody> {
        self.answer(request).await
    }

    fn refuse(&self, reject: &Reject) -> Response<TestBody> {
        let mut answer = Response::new(full(reject.why));
        *answer.status_mut() = reject.status;
        answer
    }
}

fn serving<IO: Transport>(
    io: IO, app: &Arc<App>, head: Duration, closing: &CancellationToken,
) -> JoinHandle<Served> {
    let (service, config, stop) =
        (Arc::clone(app), Config { rest: Duration::from_secs(5), head }, closing.clone());
    tokio::spawn(async move {
        match serve(io, &service, &config, &stop).await {
            Outcome::Ended(served) => served,
            Outcome::Switched(..) => panic!("nothing here answers 101"),
        }
    })
}

struct Client {
    io: DuplexStream,
    server: JoinHandle<Served>,
    closing: CancellationToken,
    app: Arc<App>,
}

impl Client {
    fn new() -> Self {
        Self::with(Duration::from_secs(5))
    }

    fn with(head: Duration) -> Self {
        let app = Arc::<App>::default();
        let (io, server) = duplex(1 << 20);
        let closing = CancellationToken::new();
        let server = serving(server, &app, head, &closing);
        Self { io, server, closing, app }
    }

    async fn send(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    /// What arrives until it ends in `end`.
    async fn until(&mut self, end: &str) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(end.as_bytes()) {
            let byte = timeout(Duration::from_secs(5), self.io.read_u8()).await;
            seen.push(byte.expect("an answer in time").unwrap());
        }
        String::from_utf8(seen).unwrap()
    }

    /// What arrives until the connection ends, and how it ended.
    async fn rest(mut self) -> (String, Served) {
        let mut seen = Vec::new();
        let read = timeout(Duration::from_secs(5), self.io.read_to_end(&mut seen)).await;
        read.expect("an end in time").unwrap();
        drop(self.io);
        (String::from_utf8(seen).unwrap(), self.server.await.unwrap())
    }
}

#[tokio::test]
async fn requests_follow_each_other_on_one_connection() {
    let mut client = Client::new();
    client.send("\r\nPOST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhiGET /b HT").await;
    let first = client.until("POST /a hi").await;
    assert_eq!(first, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nPOST /a hi");
    client
        .send("TP/1.1\r\nHost: x\r\n\r\nGET /c HTTP/1.1\r\nConnection: close\r\n\r\nGET /d")
        .await;
    let (rest, served) = client.rest().await;
    let want = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nGET /b \
                HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\nGET /c ";
    assert_eq!((rest.as_str(), served), (want, Served::Done));
}

#[tokio::test]
async fn chunked_bodies_go_both_ways_with_their_trailers() {
    let mut client = Client::new();
    client.send("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n").await;
    client.send("3\r\nabc\r\n").await;
    let head = client.until("3\r\nabc\r\n").await;
    assert_eq!(head, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    client.send("0\r\nX-Sum: 7\r\nX-Mesh-Caller: me\r\n\r\n").await;
    assert_eq!(client.until("\r\n\r\n").await, "0\r\nx-sum: 7\r\n\r\n");
    client.send("GET /chunks HTTP/1.1\r\n\r\n").await;
    let answer = client.until("0\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_no_chunks() {
    let mut client = Client::new();
    client.send("GET /chunks HTTP/1.0\r\n\r\n").await;
    let (answer, served) = client.rest().await;
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc");
    assert_eq!(served, Served::Done);
}

#[tokio::test]
async fn the_body_is_asked_for_once_it_is_wanted() {
    let mut client = Client::new();
    let head = "POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hi").await;
    assert!(client.until("POST /a hi").await.starts_with("HTTP/1.1 200 OK\r\n"));
    // an answer without the body: nothing is asked for, and the connection cannot go on
    client.send(&head.replace("/a", "/early")).await;
    let (answer, _) = client.rest().await;
    assert_eq!(answer, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
}

#[tokio::test]
async fn an_unread_body_is_never_taken_for_a_request() {
    let mut client = Client::new();
    let smuggled = "GET /smuggled HTTP/1.1\r\n\r\n";
    client.send("POST /early HTTP/1.1\r\nContent-Length: 26\r\n\r\n").await;
    client.send(smuggled).await;
    let app = Arc::clone(&client.app);
    let (answer, _) = client.rest().await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    assert_eq!(*app.seen.lock().unwrap(), ["POST /early"]);
}

#[tokio::test]
async fn heads_that_are_refused_end_the_connection() {
    let large = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(70_000));
    let cases = [
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (&large, 431),
    ];
    for (text, status) in cases {
        let mut client = Client::new();
        client.send(text).await;
        client.send("GET /after HTTP/1.1\r\n\r\n").await;
        let app = Arc::clone(&client.app);
        let (answer, served) = client.rest().await;
        let status = StatusCode::from_u16(status).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{text:.40}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert_eq!((served, app.seen.lock().unwrap().len()), (Served::Refused, 0), "{text:.40}");
    }
}

#[tokio::test]
async fn a_broken_body_is_an_error_and_not_an_end() {
    for (sent, why) in [
        ("3\r\nabc\r\nzz\r\n", "a chunk's size is no hexadecimal number"),
        ("3\r\nabcd\r\n0\r\n\r\n", "a chunk is longer than its size"),
    ] {
        let mut client = Client::new();
        client.send("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        client.send(sent).await;
        client.send("GET /smuggled HTTP/1.1\r\n\r\n").await;
        let app = Arc::clone(&client.app);
        let (answer, _) = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with(why), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        let seen = format!("POST /a broken: body is malformed: {why}");
        assert_eq!(*app.seen.lock().unwrap(), [seen]);
    }
}

#[tokio::test]
async fn answers_of_another_length_than_declared_are_cut_and_not_kept() {
    for (path, sent) in [("/short", "abc"), ("/long", "")] {
        let mut client = Client::new();
        client.send(&format!("GET {path} HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n")).await;
        let app = Arc::clone(&client.app);
        let (answer, served) = client.rest().await;
        assert!(answer.is_empty() || answer.ends_with(sent), "{path}: {answer}");
        assert_eq!((served, app.seen.lock().unwrap().len()), (Served::Aborted, 1), "{path}");
    }
}

#[tokio::test]
async fn a_call_ends_when_its_client_leaves() {
    let mut client = Client::new();
    client.send("GET /never HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(client.io);
    let served = timeout(Duration::from_secs(5), client.server).await.unwrap().unwrap();
    assert_eq!((served, client.app.seen.lock().unwrap().len()), (Served::Gone, 0));
}

#[tokio::test]
async fn b_slow_a_head_that_drips_is_refused_and_a_resting_client_is_not() {
    let mut client = Client::with(Duration::from_millis(300));
    tokio::time::sleep(Duration::from_millis(400)).await;
    client.send("GET /a HTTP/1.1\r\n\r\n").await;
    client.until("GET /a ").await;
    for _ in 0..6 {
        client.io.write_all(b"G").await.unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (answer, served) = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(served, Served::Refused);
}

#[tokio::test]
async fn closing_ends_what_rests_and_lets_what_is_under_way_finish() {
    let client = Client::new();
    client.closing.cancel();
    assert_eq!(client.rest().await, (String::new(), Served::Done));

    let mut client = Client::new();
    client.send("POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nh").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.closing.cancel();
    client.send("i").await;
    let (answer, _) = client.rest().await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("hi"), "{answer}");

    let mut client = Client::new();
    client.send("GET /close HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n").await;
    let (answer, _) = client.rest().await;
    assert_eq!(answer, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

#[tokio::test]
async fn large_answers_arrive_whole() {
    let mut client = Client::new();
    client.send("GET /big HTTP/1.1\r\n\r\nHEAD /big HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    let (answer, _) = client.rest().await;
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n";
    assert_eq!(
        answer.len(),
        head.len() + 200_000 + "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".len()
    );
    assert!(answer.starts_with(head) && answer[head.len()..].starts_with(&"x".repeat(200_000)));
}
