#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod apps;
mod floods;
mod measure;
mod peers;
mod raw;
mod rules;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{HeaderMap, HeaderValue};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::edge::{BodyError, RecvBody, Reject, Service, Transport};

const LARGE: usize = 16 << 20;

/// An application that tells what it saw.
#[derive(Debug, Default)]
struct App {
    seen: Mutex<Vec<String>>,
    /// Calls under way, and how many there were.
    running: AtomicUsize,
    begun: AtomicUsize,
}

struct Running<'a>(&'a App);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

type AppBody = BoxBody<Bytes, BodyError>;

fn infallible(never: Infallible) -> BodyError {
    match never {}
}

fn full(data: impl Into<Bytes>) -> AppBody {
    BodyExt::boxed(Full::new(data.into()).map_err(infallible))
}

fn frames(frames: Vec<Result<Frame<Bytes>, BodyError>>) -> AppBody {
    BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)))
}

fn trailers() -> HeaderMap {
    [("grpc-status", "0"), ("x-mesh-caller", "evil")]
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
        .collect()
}

/// A body that is never followed by anything.
fn endless(first: &'static str) -> AppBody {
    let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(first.as_bytes())))]);
    BodyExt::boxed(StreamBody::new(first.chain(futures_util::stream::pending())))
}

impl Service for App {
    type Body = AppBody;

    async fn call(&self, request: Request<RecvBody>) -> Response<AppBody> {
        self.running.fetch_add(1, Ordering::SeqCst);
        self.begun.fetch_add(1, Ordering::SeqCst);
        let _running = Running(self);
        let (parts, body) = request.into_parts();
        let line = format!("{} {}", parts.method, parts.uri.path());
        let mut response = Response::new(match parts.uri.path() {
            "/echo" => BodyExt::boxed(body),
            "/early" => full("no"),
            "/never" => std::future::pending().await,
            "/endless" => endless("begun"),
            "/large" => full(vec![b'x'; LARGE]),
            "/trailers" => {
                let data = Ok(Frame::data(Bytes::from_static(b"data")));
                frames(vec![data, Ok(Frame::trailers(trailers()))])
            }
            "/broken" => {
                let data = Ok(Frame::data(Bytes::from_static(b"data")));
                frames(vec![data, Err(BodyError::Incomplete)])
            }
            "/short" | "/long" => frames(vec![Ok(Frame::data(Bytes::from_static(b"abc")))]),
            "/empty" => BodyExt::boxed(Empty::new().map_err(infallible)),
            _ => match body.collect().await {
                Ok(whole) => {
                    let sums = whole.trailers().map(|fields| format!(" {fields:?}"));
                    let len = whole.to_bytes().len();
                    full(format!("{line} {len}{}", sums.unwrap_or_default()))
                }
                Err(error) => {
                    self.seen.lock().unwrap().push(format!("{line} broken: {error}"));
                    full("broken")
                }
            },
        });
        let length = match parts.uri.path() {
            "/short" => Some("5"),
            "/long" => Some("2"),
            _ => None,
        };
        if let Some(length) = length {
            response.headers_mut().insert("content-length", HeaderValue::from_static(length));
        }
        if parts.uri.path() == "/wide" {
            let value = HeaderValue::from_str(&"x".repeat(1_000)).unwrap();
            response.headers_mut().insert("x-wide", value);
        }
        if parts.uri.path() == "/204" {
            *response.status_mut() = http::StatusCode::NO_CONTENT;
        }
        self.seen.lock().unwrap().push(line);
        response
    }

    fn refuse(&self, reject: &Reject) -> Response<AppBody> {
        let mut answer = Response::new(full(reject.why));
        *answer.status_mut() = reject.status;
        answer
    }
}

impl App {
    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }
}

const CONFIG: Config = Config { rest: Duration::from_secs(5), head: Duration::from_secs(5) };

fn serving<IO: Transport>(
    io: IO, app: &Arc<App>, config: Config, closing: &CancellationToken,
) -> JoinHandle<Served> {
    let (service, stop) = (Arc::clone(app), closing.clone());
    tokio::spawn(async move { serve(io, &*service, &config, &stop).await })
}

#[test]
fn b_limits_a_resting_connection_is_small() {
    let (io, _other) = tokio::io::duplex(64);
    let (app, closing) = (App::default(), CancellationToken::new());
    let size = size_of_val(&serve(io, &app, &CONFIG, &closing))
        + size_of::<conn::State>()
        + size_of::<tokio::time::Sleep>()
        + crate::edge::limits::ENDED_MAX * size_of::<u32>();
    // beside it there are the client's fields in HPACK's table: at most what was agreed
    assert!(size <= 2 << 10, "a connection at rest takes {size} bytes");
}

/// Waits for `condition`, a while.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// So many bytes, in parts of many sizes, then trailers.
struct Parts {
    left: usize,
    size: usize,
    trailers: Option<HeaderMap>,
}

impl Parts {
    fn new(len: usize, trailers: Option<HeaderMap>) -> Self {
        Self { left: len, size: 1, trailers }
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>, _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(self.trailers.take().map(|fields| Ok(Frame::trailers(fields))));
        }
        let len = self.size.min(self.left);
        self.left -= len;
        self.size = (self.size * 3) % 100_003;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; len])))))
    }
}
