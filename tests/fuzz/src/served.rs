//! A server of the edge with an application that keeps what it saw, and a client that is bytes.

use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use mesh_agent::edge::http1::Config;
use mesh_agent::edge::{RecvBody, Reject, Service, Transport};
use mesh_agent::fuzzing::{Admitted, Fuzzing};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Runtime;

/// Longer than any run: what waits for time fails by libFuzzer's own timeout.
pub const WAITS: Config = Config { rest: Duration::from_secs(60), head: Duration::from_secs(60) };

/// Runs what serves to its end.
pub fn run<T>(serving: impl Future<Output = T>) {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    });
    drop(RUNTIME.block_on(serving));
}

/// A request as the service got it.
#[derive(Debug)]
pub struct Seen {
    pub head: Request<()>,
    pub body: Vec<u8>,
    pub whole: bool,
    pub admitted: Option<Admitted>,
}

/// Reads each request to its end and keeps what it saw.
#[derive(Default)]
pub struct App {
    seen: Mutex<Vec<Seen>>,
}

impl App {
    /// What it saw.
    pub fn seen(self) -> Vec<Seen> {
        self.seen.into_inner().expect("no panic")
    }
}

impl Service for App {
    type Body = Full<Bytes>;

    async fn call(&self, request: Request<RecvBody>) -> Response<Full<Bytes>> {
        let admitted = Fuzzing::admit(&request);
        let (parts, mut body) = request.into_parts();
        let head = Request::from_parts(parts, ());
        let mut seen = Seen { head, body: Vec::new(), whole: true, admitted };
        while let Some(frame) = body.frame().await {
            match frame.map(|frame| frame.into_data()) {
                Ok(Ok(data)) => seen.body.extend_from_slice(&data),
                Ok(Err(_trailers)) => {}
                Err(_) => seen.whole = false,
            }
        }
        self.seen.lock().expect("no panic").push(seen);
        Response::new(Full::from("ok"))
    }

    fn refuse(&self, reject: &Reject) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(reject.why));
        *response.status_mut() = reject.status;
        response
    }
}

/// A client that has all its bytes there, gives so many at a time, and then leaves.
pub struct Wire {
    bytes: Vec<u8>,
    at: usize,
    step: usize,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Wire {
    pub fn new(bytes: &[u8], step: usize) -> Self {
        Self { bytes: bytes.to_vec(), at: 0, step, sent: Arc::default() }
    }

    /// What is sent to it.
    pub fn sent(&self) -> Arc<Mutex<Vec<u8>>> {
        Arc::clone(&self.sent)
    }
}

impl Transport for Wire {}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let len = self.step.min(buf.remaining()).min(self.bytes.len() - self.at);
        buf.put_slice(&self.bytes[self.at..self.at + len]);
        self.at += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.sent.lock().expect("no panic").extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
