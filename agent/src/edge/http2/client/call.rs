//! [`Call`]: a request on its way, and its answer.

use std::fmt::Display;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response};
use http_body::{Body, Frame};

use super::super::body::{Broken, Upload};
use super::super::conn::{Conn, State};
use super::super::error::Code;
use super::super::stream::Gone;
use super::head_of;
use crate::edge::RecvBody;
use crate::edge::body::{BodyError, Source};
use crate::edge::framing::length_of;
use crate::edge::http1::SendError;

/// A request that is sent.
pub(super) struct Call<B> {
    head: Bytes,
    bodiless: bool,
    /// The request ends with its head.
    ended: bool,
    /// It may be acted on twice.
    repeatable: bool,
    upload: Upload<B>,
}

/// What became of a call on one stream.
pub(super) enum Outcome<B> {
    Answered(Response<RecvBody>),
    /// The application surely has not looked at it, or may do so twice, and it is whole.
    Unseen(Box<Call<B>>),
    /// Likewise, but part of its body is spent.
    Lost,
    Failed(SendError),
}

/// A stream as long as somebody wants what comes on it.
struct Opened {
    conn: Arc<Conn>,
    id: u32,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.conn.with(|state| state.finish(self.id, Code::Cancel));
    }
}

impl<B> Call<B>
where
    B: Body<Data = Bytes, Error: Display> + Send + Unpin + 'static,
{
    pub(super) fn new(request: Request<B>) -> Self {
        let (mut parts, body) = request.into_parts();
        let length = frame(&parts.method, &mut parts.headers, &body);
        let ended = body.is_end_stream();
        Self {
            head: head_of(&parts),
            bodiless: parts.method == Method::HEAD,
            ended,
            repeatable: ended && parts.method.is_idempotent(),
            upload: Upload::new(body, length, ended),
        }
    }

    /// Opens a stream with the head.
    pub(super) fn open(&self, state: &mut State) -> u32 {
        state.open(&self.head, self.ended, self.bodiless)
    }

    /// Sends the body and waits for the answer's head.
    pub(super) async fn answer(mut self, (conn, id): (Arc<Conn>, u32)) -> Outcome<B> {
        let opened = Opened { conn, id };
        let answered = poll_fn(|cx| {
            if let Poll::Ready(Err(Broken::Body(why))) = self.upload.poll(&opened.conn, id, cx) {
                return Poll::Ready(Err(Broken::Body(why)));
            }
            opened.conn.lock().poll_head(id, cx).map_err(Broken::Gone)
        });
        match answered.await {
            Ok((head, ended)) => Outcome::Answered(self.answered(opened, *head, ended)),
            Err(Broken::Body(why)) => Outcome::Failed(SendError::Request(why)),
            Err(Broken::Gone(Gone::Unseen)) if !self.upload.begun => {
                Outcome::Unseen(Box::new(self))
            }
            Err(Broken::Gone(Gone::Unseen)) => Outcome::Lost,
            // a kept connection may turn out to be closed
            Err(Broken::Gone(Gone::Closed)) if self.repeatable => Outcome::Unseen(Box::new(self)),
            Err(Broken::Gone(Gone::Malformed(why))) => Outcome::Failed(SendError::Answer(why)),
            Err(Broken::Gone(Gone::Reset(_) | Gone::Closed)) => Outcome::Failed(SendError::Closed),
        }
    }

    fn answered(self, opened: Opened, head: Response<()>, ended: bool) -> Response<RecvBody> {
        head.map(|()| {
            if ended {
                // what of the request was not sent is not wanted
                return RecvBody::empty();
            }
            let id = opened.id.into();
            let upload = Some(self.upload).filter(|upload| !upload.is_done());
            RecvBody::new(Arc::new(Answer { opened, upload: Mutex::new(upload) }), id, None)
        })
    }
}

/// How long a request's body is, and a head that says so.
fn frame(method: &Method, headers: &mut HeaderMap, body: &impl Body) -> Option<u64> {
    let declared = headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
    if let Some(length) = declared.and_then(length_of) {
        // once, and in one spelling
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        return Some(length);
    }
    headers.remove(header::CONTENT_LENGTH);
    let says = [Method::POST, Method::PUT, Method::PATCH].contains(method);
    // RFC 9110 §8.6: methods that mean something by a body say when there is none
    if says && body.is_end_stream() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    None
}

/// An answer's body, with what is left to send of the request. Dropped, it ends the stream.
struct Answer<B> {
    opened: Opened,
    upload: Mutex<Option<Upload<B>>>,
}

impl<B> Source for Answer<B>
where
    B: Body<Data = Bytes, Error: Display> + Send + Unpin + 'static,
{
    fn poll_part(
        &self, _turn: u64, cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Opened { conn, id } = &self.opened;
        let mut slot = self.upload.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upload) = slot.as_mut() {
            match upload.poll(conn, *id, cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(()) | Err(Broken::Gone(_))) => *slot = None,
                Poll::Ready(Err(Broken::Body(why))) => {
                    tracing::debug!(%why, "request was not sent to its end");
                    *slot = None;
                    conn.with(|state| {
                        state.reset(*id, Code::Cancel, Gone::Reset(Code::Cancel));
                    });
                }
            }
        }
        Poll::Ready(ready!(conn.with(|state| state.poll_body(*id, cx))))
    }
}
