//! One connection of a client: all its requests at once, in one task.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::stream::{FuturesUnordered, StreamExt};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body::Body;
use tokio_util::sync::CancellationToken;

use super::body::{Broken, Receiver, Upload};
use super::clock::Timing;
use super::conn::{Accepted, Conn, Role};
use super::error::Code;
use super::pump::{Ended, Pump};
use crate::edge::framing::length_of;
use crate::edge::http1::{Config, Served};
use crate::edge::{RecvBody, Service, Transport};

/// Serves `io` until the client leaves, or `closing` is cancelled and what is under way is done.
pub async fn serve<IO: Transport, S: Service>(
    io: IO, service: &S, config: &Config, closing: &CancellationToken,
) -> Served {
    let timing = Timing { rest: config.rest, head: config.head };
    let mut pump = Pump::new(io, Role::Server, timing);
    let conn = Arc::clone(&pump.conn);
    // only while there are calls: even when empty it has room for one
    let mut calls: Option<FuturesUnordered<_>> = None;
    let mut closed = pin!(closing.cancelled());
    let mut is_open = true;
    let ended = poll_fn(|cx| {
        if is_open && closed.as_mut().poll(cx).is_ready() {
            is_open = false;
            pump.drain();
        }
        pump.poll(cx, |cx| {
            loop {
                let next = conn.lock().accept();
                let Some((id, accepted)) = next else { break };
                let calls = calls.get_or_insert_default();
                calls.push(exchange(&conn, service, id, accepted));
            }
            while let Some(running) = &mut calls {
                match running.poll_next_unpin(cx) {
                    Poll::Ready(Some(())) => {}
                    Poll::Ready(None) => calls = None,
                    Poll::Pending => break,
                }
            }
        })
    });
    match ended.await {
        Ended::Resting => Served::Done,
        Ended::Gone => Served::Gone,
        Ended::Refused => Served::Refused,
    }
}

/// One request and its answer.
async fn exchange<S: Service>(conn: &Arc<Conn>, service: &S, id: u32, accepted: Accepted) {
    let (method, answer) = match accepted {
        Accepted::Refused(reject) => (Method::GET, Some(service.refuse(&reject))),
        Accepted::Request { head, ended } => {
            let body = if ended {
                RecvBody::empty()
            } else {
                RecvBody::new(Arc::new(Receiver::new(Arc::clone(conn), id)), id.into(), None)
            };
            let method = head.method().clone();
            let call = pin!(service.call(head.map(|()| body)));
            (method, unless_gone(conn, id, call).await)
        }
    };
    let code = match answer {
        Some(answer) => respond(conn, id, &method, answer).await,
        None => Code::No,
    };
    conn.with(|state| state.finish(id, code));
}

/// What `call` gives, unless its stream ends before.
async fn unless_gone<F: Future>(
    conn: &Conn, id: u32, mut call: std::pin::Pin<&mut F>,
) -> Option<F::Output> {
    poll_fn(|cx| {
        if let Poll::Ready(answer) = call.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        match conn.lock().watch(id, cx) {
            Ok(()) => Poll::Pending,
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

/// Sends an answer to its end; the code to end the stream with if it has not ended by itself.
async fn respond<B>(conn: &Conn, id: u32, method: &Method, answer: Response<B>) -> Code
where
    B: Body<Data = bytes::Bytes, Error: std::fmt::Display> + Unpin,
{
    let (mut parts, body) = answer.into_parts();
    if parts.status.is_informational() {
        tracing::debug!(status = %parts.status, "answer is no answer");
        return Code::Internal;
    }
    let Ending { length, bodiless } = ending(method, parts.status, &mut parts.headers, &body);
    let ended = bodiless || length == Some(0);
    let head = Response::from_parts(parts, ());
    if conn.with(|state| state.respond(id, &head, ended)).is_err() {
        return Code::No;
    }
    let mut upload = Upload::new(body, length, ended);
    match poll_fn(|cx| upload.poll(conn, id, cx)).await {
        Ok(()) | Err(Broken::Gone(_)) => Code::No,
        Err(Broken::Body(why)) => {
            tracing::debug!(%why, "answer could not be sent to its end");
            Code::Internal
        }
    }
}

/// How an answer's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ending {
    length: Option<u64>,
    /// There is none, whatever the head says.
    bodiless: bool,
}

/// Decides how the body ends and makes the head say so.
fn ending(
    method: &Method, status: StatusCode, headers: &mut HeaderMap, body: &impl Body,
) -> Ending {
    let mut declared = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = match (declared.next(), declared.next()) {
        (Some(only), None) => length_of(only.as_bytes()),
        _ => None,
    };
    if length.is_none() || status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    }
    if *method == Method::HEAD
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    {
        return Ending { length: None, bodiless: true };
    }
    let known = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
    // the head of one that is empty ends the stream
    if let (None, Some(known @ 1..)) = (length, known) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(known));
    }
    Ending { length: length.or(known), bodiless: false }
}
