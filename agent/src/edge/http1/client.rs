//! [`Client`]: calls to applications over connections that are kept, without a task for each.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::answer::{self, Ending};
use super::conn::State;
use super::head;
use super::raw::Raw;
use super::reply::{self, Reply};
use super::upgrade::Upgrade;
use super::writer::Writer;
use crate::edge::body::{BodyError, Source};
use crate::edge::limits::{APP_CONNECT, APP_IDLE, APP_IDLE_MAX, HEAD_BYTES_MAX, INFORMED_MAX};
use crate::edge::{RecvBody, Transport};

impl Transport for TcpStream {
    fn abort(&self) {
        if let Err(error) = self.set_zero_linger() {
            tracing::debug!(%error, "connection is closed without a reset");
        }
    }
}

/// The connections to applications on this host, kept while idle.
#[derive(Debug, Default)]
pub struct Client(Mutex<HashMap<SocketAddr, Vec<Idle>>>);

struct Idle {
    state: State<TcpStream>,
    since: Instant,
}

/// What an application made of a request.
#[derive(Debug)]
pub enum Sent {
    /// It answered.
    Answered(Response<RecvBody>),
    /// It answered 101: the connection leaves HTTP for the protocol that was asked for.
    Switched(Response<Raw<TcpStream>>),
}

impl Sent {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Answered(response) => response.status(),
            Self::Switched(response) => response.status(),
        }
    }
}

/// Why an application did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// It saw nothing of the request.
    #[error("cannot connect to the application on {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It closed the connection before it answered.
    #[error("the application closed the connection before it answered")]
    Closed,
    /// The request's body broke off.
    #[error("the request broke off: {0}")]
    Request(String),
    /// What it sent is no answer that has one reading.
    #[error("the application's answer is malformed: {0}")]
    Answer(&'static str),
}

impl Client {
    /// Sends `request`, in origin form, to the application on `address`. A kept connection that
    /// turns out to be closed is replaced, unless the application may have acted on the request. One
    /// with the field `upgrade` may be answered 101, no other.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn send<B>(
        self: &Arc<Self>, address: SocketAddr, request: Request<B>,
    ) -> Result<Sent, SendError>
    where
        B: Body<Data = Bytes, Error: std::fmt::Display> + Send + Unpin + 'static,
    {
        let (mut parts, body) = request.into_parts();
        let ending = frame(&parts.method, &mut parts.headers, &body);
        let repeatable = body.is_end_stream() && parts.method.is_idempotent();
        let mut head = BytesMut::with_capacity(512);
        put_head(&mut head, &parts);
        let mut call = Call {
            client: Arc::clone(self),
            address,
            upgrade: upgrade_of(&parts.headers),
            method: parts.method,
            head: head.freeze(),
            upload: Upload { body, writer: Writer::new(ending, true), broken: false, begun: false },
        };
        if let Some(state) = self.take(address) {
            call = match call.exchange(state).await {
                Err((SendError::Closed, Some(call))) if repeatable || call.is_whole() => call,
                outcome => return outcome.map_err(|(why, _)| why),
            };
        }
        let stream = connect(address).await?;
        call.exchange(State::new(stream)).await.map_err(|(why, _)| why)
    }

    fn take(&self, address: SocketAddr) -> Option<State<TcpStream>> {
        let mut apps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = apps.get_mut(&address)?;
        while let Some(Idle { mut state, since }) = idle.pop() {
            // bytes that nobody asked for, or the end: nothing may be sent on it
            let quiet = state.poll_read(&mut Context::from_waker(Waker::noop())).is_pending();
            if quiet && since.elapsed() < APP_IDLE {
                return Some(state);
            }
        }
        None
    }

    fn put(&self, address: SocketAddr, mut state: State<TcpStream>) {
        if !state.is_at_rest() {
            return;
        }
        state.rest();
        let mut apps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = apps.entry(address).or_default();
        if idle.len() < APP_IDLE_MAX {
            idle.push(Idle { state, since: Instant::now() });
        }
    }

    /// Closes what was idle for too long, and forgets applications that have nothing else.
    pub fn prune(&self) {
        let mut apps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        apps.retain(|_, idle| {
            idle.retain(|one| one.since.elapsed() < APP_IDLE);
            !idle.is_empty()
        });
    }
}

/// Connects to the application on `address`.
///
/// # Errors
/// [`SendError::Connect`]
pub async fn connect(address: SocketAddr) -> Result<TcpStream, SendError> {
    let failed = |source| SendError::Connect { address, source };
    let connecting = timeout(APP_CONNECT, TcpStream::connect(address)).await;
    let stream = connecting.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?;
    let stream = stream.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// How the body of a request ends, and a head that says so.
fn frame(method: &Method, headers: &mut HeaderMap, body: &impl Body) -> Ending {
    headers.remove(header::TRANSFER_ENCODING);
    let declared = headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
    if let Some(length) = declared.and_then(crate::edge::framing::length_of) {
        // once, and in one spelling
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        return Ending::Length(length);
    }
    headers.remove(header::CONTENT_LENGTH);
    if !body.is_end_stream() {
        // said in so many words, or a GET would lose its body
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        return Ending::Chunked;
    }
    // RFC 9110 §8.6: methods that mean something by a body say when there is none
    if [Method::POST, Method::PUT, Method::PATCH].contains(method) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    Ending::None
}

/// The protocol that the head asks for.
fn upgrade_of(headers: &HeaderMap) -> Option<Upgrade> {
    Upgrade::named(headers.get(header::UPGRADE)?.to_str().ok()?)
}

fn put_head(out: &mut BytesMut, parts: &http::request::Parts) {
    out.put_slice(parts.method.as_str().as_bytes());
    out.put_u8(b' ');
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    answer::fields(out, &parts.headers);
    out.put_slice(b"\r\n");
}

/// A request on its way.
struct Call<B> {
    client: Arc<Client>,
    address: SocketAddr,
    method: Method,
    /// What it asks for.
    upgrade: Option<Upgrade>,
    head: Bytes,
    upload: Upload<B>,
}

/// The body of a request, as far as it was not sent yet.
struct Upload<B> {
    body: B,
    writer: Writer,
    /// The application takes no more of it; it may answer all the same.
    broken: bool,
    /// Something of it was read.
    begun: bool,
}

impl<B> Call<B>
where
    B: Body<Data = Bytes, Error: std::fmt::Display> + Send + Unpin + 'static,
{
    /// Whether the application lacked a body that is still all here: it cannot have acted.
    fn is_whole(&self) -> bool {
        !self.upload.begun && !self.upload.writer.ended
    }

    /// Sends the request on `state` and waits for the answer's head. Gives the call back if
    /// nothing of an answer came.
    async fn exchange(
        mut self, mut state: State<TcpStream>,
    ) -> Result<Sent, (SendError, Option<Self>)> {
        // one that was tried on a closed connection begins anew
        self.upload.broken = false;
        state.output.buffer().extend_from_slice(&self.head);
        let (mut looked, mut informed) = (0, 0);
        let replied = poll_fn(|cx| {
            if let Poll::Ready(Err(why)) = self.upload.poll(&mut state, cx) {
                return Poll::Ready(Err(SendError::Request(why)));
            }
            loop {
                match take_reply(&mut state.input, &mut looked, &self.method) {
                    Err(why) => return Poll::Ready(Err(SendError::Answer(why))),
                    Ok(Some(reply)) if is_preliminary(reply.status) => {
                        (looked, informed) = (0, informed + 1);
                        if informed > INFORMED_MAX {
                            let why = "more than 8 preliminary answers";
                            return Poll::Ready(Err(SendError::Answer(why)));
                        }
                        continue;
                    }
                    Ok(Some(reply)) => return Poll::Ready(Ok(reply)),
                    Ok(None) => {}
                }
                match ready!(state.poll_read(cx)) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Poll::Ready(Err(SendError::Closed)),
                }
            }
        });
        match replied.await {
            Ok(reply) if reply.status == StatusCode::SWITCHING_PROTOCOLS => {
                self.switched(state, reply).map(Sent::Switched).map_err(|why| (why, None))
            }
            Ok(reply) => Ok(Sent::Answered(self.answered(state, reply))),
            Err(SendError::Closed) if state.input.is_empty() && informed == 0 => {
                Err((SendError::Closed, Some(self)))
            }
            Err(why) => Err((why, None)),
        }
    }

    /// The connection as the application sees it now, if it was asked to.
    fn switched(
        self, state: State<TcpStream>, reply: Reply,
    ) -> Result<Response<Raw<TcpStream>>, SendError> {
        let asked = self.upgrade.is_some_and(|upgrade| upgrade.is_taken(&reply.headers));
        if !asked || !state.output.is_empty() {
            return Err(SendError::Answer("101 without having been asked to"));
        }
        let mut response = Response::new(state.into_raw());
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        Ok(response)
    }

    fn answered(self, mut state: State<TcpStream>, reply: Reply) -> Response<RecvBody> {
        state.receives(reply.ending);
        let length = match reply.ending {
            Ending::Length(length) => Some(length),
            Ending::None => Some(0),
            Ending::Chunked | Ending::Close => None,
        };
        let download = Download { state, call: self, keep: reply.keep_alive };
        let body = if length == Some(0) {
            download.finish_now();
            RecvBody::empty()
        } else {
            RecvBody::new(Arc::new(Answering(Mutex::new(Some(download)))), 0, length)
        };
        let mut response = Response::new(body);
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        response
    }
}

/// An answer that another one follows. 101 is the last: what follows it is no HTTP.
fn is_preliminary(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Takes an answer's head off the input, if all of it is there.
fn take_reply(
    input: &mut BytesMut, looked: &mut usize, method: &Method,
) -> Result<Option<Reply>, &'static str> {
    match head::end(input, *looked).map_err(|reject| reject.why)? {
        Some(end) if end <= HEAD_BYTES_MAX => reply::parse(&input.split_to(end), method).map(Some),
        None if input.len() < HEAD_BYTES_MAX => {
            *looked = input.len().saturating_sub(3);
            Ok(None)
        }
        Some(_) | None => Err("head is larger than 64 KiB"),
    }
}

impl<B> Upload<B>
where
    B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
{
    /// Sends what can be sent; ready once all of it was.
    fn poll(
        &mut self, state: &mut State<TcpStream>, cx: &mut Context<'_>,
    ) -> Poll<Result<(), String>> {
        loop {
            let mut waits = false;
            while !self.broken && !self.writer.ended && !state.output.is_full() {
                let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                    waits = true;
                    break;
                };
                self.begun = true;
                self.writer.put(&mut state.output, frame)?;
            }
            if self.broken {
                return Poll::Pending;
            }
            match ready!(state.poll_flush(cx)) {
                // it may have answered before it closed
                Err(_) => self.broken = true,
                Ok(()) if self.writer.ended => return Poll::Ready(Ok(())),
                Ok(()) if waits => return Poll::Pending,
                Ok(()) => {}
            }
        }
    }
}

/// An answer's body, with what is left to send of the request.
struct Download<B> {
    state: State<TcpStream>,
    call: Call<B>,
    keep: bool,
}

impl<B> Download<B> {
    /// Keeps the connection, if the request was sent and nothing else came.
    fn finish_now(self) {
        if self.keep && self.call.upload.writer.ended && !self.call.upload.broken {
            self.call.client.put(self.call.address, self.state);
        }
    }
}

/// `None` once it has ended.
struct Answering<B>(Mutex<Option<Download<B>>>);

impl<B> Source for Answering<B>
where
    B: Body<Data = Bytes, Error: std::fmt::Display> + Send + Unpin + 'static,
{
    fn poll_part(
        &self, _turn: u64, cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(download) = slot.as_mut() else { return Poll::Ready(None) };
        let Download { state, call, .. } = download;
        if let Poll::Ready(Err(why)) = call.upload.poll(state, cx) {
            tracing::debug!(%why, "request was not sent to its end");
            call.upload.broken = true;
        }
        let part = ready!(state.poll_body(cx));
        match &part {
            Some(Err(_)) => *slot = None,
            Some(Ok(frame)) if frame.is_data() && !state.is_read() => {}
            Some(Ok(_)) | None => {
                if let Some(download) = slot.take() {
                    download.finish_now();
                }
            }
        }
        Poll::Ready(part)
    }
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idle").field("since", &self.since).finish_non_exhaustive()
    }
}
