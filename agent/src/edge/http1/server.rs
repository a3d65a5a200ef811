//! One connection of a client: request after request, each answered before the next is begun.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http::{Request, Response, StatusCode};
use http_body::Body;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Asked, Ending};
use super::conn::{Conn, State};
use super::head::{self, Head};
use super::raw::Raw;
use super::writer::Writer;
use crate::edge::framing::Framing;
use crate::edge::limits::{HEAD_BYTES_MAX, LINGER, LINGER_BYTES_MAX};
use crate::edge::{RecvBody, Reject, Service, Transport};

/// How a connection is served.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How long a connection may rest before a request.
    pub rest: Duration,
    /// How long a head may take from its first byte on.
    pub head: Duration,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Between two requests, or after the last.
    Done,
    /// The client left while it was answered.
    Gone,
    /// What it sent is no request; it was told so.
    Refused,
    /// An answer could not be ended; the connection was reset.
    Aborted,
}

/// What became of a connection.
#[derive(Debug)]
pub enum Outcome<IO, B> {
    /// It ended.
    Ended(Served),
    /// The client was answered 101, with this body: what it sends from now on is no HTTP.
    Switched(Raw<IO>, B),
}

/// What comes next on a connection.
enum Next {
    Request(Box<Head>),
    Refuse(Reject),
    Close,
}

/// Serves `io` until the client leaves, `closing` is cancelled and what is under way is done, or the
/// service answers 101.
pub async fn serve<IO: Transport, S: Service>(
    io: IO, service: &S, config: &Config, closing: &CancellationToken,
) -> Outcome<IO, S::Body> {
    let conn = Conn::new(io);
    let serving = Serving(&conn);
    let last = serve_requests(&conn, service, config, closing).await;
    drop(serving);
    match last {
        Last::Ended(served) => Outcome::Ended(served),
        // what asks for another protocol has no body that somebody could still be reading
        Last::Switched(body) => match conn.into_raw() {
            Some(raw) => Outcome::Switched(raw, body),
            None => Outcome::Ended(Served::Aborted),
        },
    }
}

/// The last exchange of a connection.
enum Last<B> {
    Ended(Served),
    Switched(B),
}

async fn serve_requests<IO: Transport, S: Service>(
    conn: &Arc<Conn<IO>>, service: &S, config: &Config, closing: &CancellationToken,
) -> Last<S::Body> {
    loop {
        let request = match next(conn, config, closing).await {
            Next::Request(request) => request,
            Next::Close => {
                shut(conn).await;
                return Last::Ended(Served::Done);
            }
            Next::Refuse(reject) => {
                let answer = service.refuse(&reject);
                let asked = Asked::nothing();
                let told = Box::pin(respond(conn, &asked, answer, false)).await;
                linger(conn, true).await;
                return Last::Ended(if told.is_ok() { Served::Refused } else { Served::Gone });
            }
        };
        // boxed, so that a connection at rest does not hold the place of a call
        match Box::pin(exchange(conn, service, *request, closing)).await {
            Ok(After::Next) => conn.lock().rest(),
            Ok(After::Close) => {
                // in a drain it waits for nothing but what came already
                linger(conn, !closing.is_cancelled()).await;
                return Last::Ended(Served::Done);
            }
            Ok(After::Unread) => {
                linger(conn, true).await;
                return Last::Ended(Served::Done);
            }
            Ok(After::Switched(body)) => return Last::Switched(body),
            Err(served) => {
                if served == Served::Aborted {
                    conn.lock().io.abort();
                }
                return Last::Ended(served);
            }
        }
    }
}

/// A connection as long as it is served: whoever still reads a body from it then, in whatever
/// task, does not keep it open.
struct Serving<'a, IO: Transport>(&'a Conn<IO>);

impl<IO: Transport> Drop for Serving<'_, IO> {
    fn drop(&mut self) {
        self.0.lock().finish();
    }
}

/// What follows an exchange.
enum After<B> {
    /// The next request.
    Next,
    /// Nothing.
    Close,
    /// Nothing, and of this request something was not read.
    Unread,
    /// Another protocol, under an answer with this body.
    Switched(B),
}

/// One request and its answer.
async fn exchange<IO: Transport, S: Service>(
    conn: &Arc<Conn<IO>>, service: &S, head: Head, closing: &CancellationToken,
) -> Result<After<S::Body>, Served> {
    let asked = Asked::new(&head.method, head.version, &head.headers);
    let turn = conn.lock().begin(head.framing, head.expects_continue);
    let body = match head.framing {
        Framing::None => RecvBody::empty(),
        Framing::Length(length) => RecvBody::new(Arc::<Conn<IO>>::clone(conn), turn, Some(length)),
        Framing::Chunked => RecvBody::new(Arc::<Conn<IO>>::clone(conn), turn, None),
    };
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers;
    let answer = tokio::select! {
        biased;
        answer = service.call(request) => answer,
        () = poll_fn(|cx| conn.lock().poll_gone(cx)) => return Err(Served::Gone),
    };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch(conn, &asked, answer).await.map(After::Switched);
    }
    let malformed = conn.lock().malformed();
    // whatever was made of it: the request itself was none
    let answer = malformed.map_or(answer, |why| service.refuse_called(&Reject::bad(why)));
    let says_close = answer.headers().get_all(http::header::CONNECTION).iter();
    let closes =
        says_close.into_iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    // nobody has a hold of the body any more, so what is left of it will stay unread
    let unread = !conn.lock().is_read() && (malformed.is_some() || Arc::strong_count(conn) == 1);
    let keep = head.keep_alive && !closes && !unread && !closing.is_cancelled();
    let kept = respond(conn, &asked, answer, keep).await?;
    Ok(match (conn.lock().finish(), kept) {
        (true, true) => After::Next,
        (true, false) => After::Close,
        (false, _) => After::Unread,
    })
}

/// Writes the head of an answer 101; its body.
async fn switch<IO: Transport, B: Body>(
    conn: &Conn<IO>, asked: &Asked, answer: Response<B>,
) -> Result<B, Served> {
    let (mut parts, body) = answer.into_parts();
    answer::frame(asked, parts.status, &mut parts.headers, &body);
    {
        let mut state = conn.lock();
        state.answers();
        answer::head(state.output.buffer(), asked, parts.status, &parts.headers, true);
    }
    let flushed = poll_fn(|cx| conn.lock().poll_flush(cx)).await;
    flushed.map(|()| body).map_err(|_| Served::Gone)
}

/// Waits for the head of the next request.
async fn next<IO: Transport>(
    conn: &Conn<IO>, config: &Config, closing: &CancellationToken,
) -> Next {
    let mut blank = false;
    while is_resting(conn, &mut blank) {
        let first = timeout(config.rest, poll_fn(|cx| conn.lock().poll_read(cx)));
        let first = tokio::select! {
            biased;
            first = first => first,
            () = closing.cancelled() => return Next::Close,
        };
        match first {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) | Err(_) => return Next::Close,
        }
    }
    let mut looked = 0;
    let whole = poll_fn(|cx| {
        let mut state = conn.lock();
        loop {
            if let Some(next) = take_head(&mut state, &mut looked) {
                return Poll::Ready(next);
            }
            match ready!(state.poll_read(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Next::Close),
            }
        }
    });
    let slow = Reject { status: StatusCode::REQUEST_TIMEOUT, why: "head took too long" };
    timeout(config.head, whole).await.unwrap_or(Next::Refuse(slow))
}

/// Whether nothing of a request came yet. One empty line before it is of a client that ends bodies
/// with it (RFC 9112 §2.2).
fn is_resting<IO: Transport>(conn: &Conn<IO>, blank: &mut bool) -> bool {
    let mut state = conn.lock();
    if !*blank && state.input.starts_with(b"\r\n") {
        state.input.advance(2);
        *blank = true;
    }
    let resting = state.input.is_empty();
    if resting {
        state.rest();
    }
    resting
}

/// Takes the head off the input, if all of it is there.
fn take_head<IO>(state: &mut State<IO>, looked: &mut usize) -> Option<Next> {
    match head::end(&state.input, *looked) {
        Err(reject) => Some(Next::Refuse(reject)),
        Ok(Some(end)) if end <= HEAD_BYTES_MAX => {
            let head = state.input.split_to(end);
            Some(match head::parse(&head) {
                Ok(head) => Next::Request(Box::new(head)),
                Err(reject) => Next::Refuse(reject),
            })
        }
        Ok(None) if state.input.len() < HEAD_BYTES_MAX => {
            *looked = state.input.len().saturating_sub(3);
            None
        }
        Ok(Some(_) | None) => {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            Some(Next::Refuse(Reject { status, why: "head is larger than 64 KiB" }))
        }
    }
}

/// Writes an answer to its end; whether the connection can go on.
async fn respond<IO: Transport, B>(
    conn: &Conn<IO>, asked: &Asked, answer: Response<B>, keep: bool,
) -> Result<bool, Served>
where
    B: Body<Data = bytes::Bytes, Error: std::fmt::Display> + Unpin,
{
    let (mut parts, mut body) = answer.into_parts();
    let ending = answer::frame(asked, parts.status, &mut parts.headers, &body);
    let keep = keep && ending != Ending::Close;
    {
        let mut state = conn.lock();
        state.answers();
        answer::head(state.output.buffer(), asked, parts.status, &parts.headers, keep);
    }
    let mut writer = Writer::new(ending, asked.trailers);
    poll_fn(|cx| {
        loop {
            // the lock is not held here: the body may be read from this very connection
            let mut waits = false;
            while !writer.ended && !conn.lock().output.is_full() {
                let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(cx) else {
                    waits = true;
                    break;
                };
                if let Err(why) = writer.put(&mut conn.lock().output, frame) {
                    tracing::debug!(%why, "answer could not be sent to its end");
                    return Poll::Ready(Err(Served::Aborted));
                }
            }
            let flushed = ready!(conn.lock().poll_flush(cx));
            match flushed {
                Err(_) => return Poll::Ready(Err(Served::Gone)),
                Ok(()) if writer.ended => return Poll::Ready(Ok(keep)),
                // an answer may be silent for long
                Ok(()) if waits => return conn.lock().poll_gone(cx).map(|()| Err(Served::Gone)),
                Ok(()) => {}
            }
        }
    })
    .await
}

/// Says that nothing more comes.
async fn shut<IO: Transport>(conn: &Conn<IO>) -> bool {
    let closing = poll_fn(|cx| Pin::new(&mut conn.lock().io).poll_shutdown(cx));
    timeout(LINGER, closing).await.is_ok_and(|closed| closed.is_ok())
}

/// Closes, and throws away what still comes for a while: closed at once, the kernel would answer
/// it with a reset, and the client might lose the answer (RFC 9112 §9.6). If it `waits` not, only
/// what came already is thrown away.
async fn linger<IO: Transport>(conn: &Conn<IO>, waits: bool) {
    if !shut(conn).await {
        return;
    }
    let mut left = LINGER_BYTES_MAX;
    let reading = poll_fn(|cx| -> Poll<io::Result<()>> {
        let mut state = conn.lock();
        loop {
            state.input.clear();
            match state.poll_read(cx)? {
                Poll::Pending if waits => return Poll::Pending,
                Poll::Pending | Poll::Ready(0) => return Poll::Ready(Ok(())),
                Poll::Ready(len) if len > left => return Poll::Ready(Ok(())),
                Poll::Ready(len) => left -= len,
            }
        }
    });
    if timeout(LINGER, reading).await.is_err() {
        tracing::trace!("client sent on after the last answer");
    }
}
