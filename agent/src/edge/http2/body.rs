//! Bodies on their way: [`Receiver`] gives what comes on a stream, [`Upload`] sends one.

use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::HeaderMap;
use http_body::{Body, Frame};

use super::conn::Conn;
use super::stream::Gone;
use crate::edge::body::{BodyError, Source};
use crate::edge::trailers;

/// What comes on a stream. Dropped, the rest of it is thrown away.
pub(super) struct Receiver {
    conn: Arc<Conn>,
    stream: u32,
    /// All of it was given; the stream may be no more.
    ended: AtomicBool,
}

impl Receiver {
    pub(super) fn new(conn: Arc<Conn>, stream: u32) -> Self {
        Self { conn, stream, ended: AtomicBool::new(false) }
    }
}

impl Source for Receiver {
    fn poll_part(
        &self, _turn: u64, cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended.load(Ordering::Relaxed) {
            return Poll::Ready(None);
        }
        let part = ready!(self.conn.with(|state| state.poll_body(self.stream, cx)));
        if !matches!(&part, Some(Ok(frame)) if frame.is_data()) {
            self.ended.store(true, Ordering::Relaxed);
        }
        Poll::Ready(part)
    }

    fn malformed(&self, _turn: u64) -> Option<&'static str> {
        self.conn.lock().malformed(self.stream)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if !self.ended.load(Ordering::Relaxed) {
            self.conn.with(|state| state.unwanted(self.stream));
        }
    }
}

/// A body that is sent on a stream.
pub(super) struct Upload<B> {
    body: B,
    /// Bytes still to come, if a length was declared.
    left: Option<u64>,
    /// What the body gave and no window took yet.
    data: Bytes,
    state: Sending,
    /// Whether any of the body was asked for.
    pub(super) begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    /// More of the body is to come.
    Open,
    /// What there is is the last of it.
    Last,
    Done,
}

/// Why a body was not sent to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Its stream is gone.
    Gone(Gone),
    /// It broke off, or is not what was declared.
    Body(String),
}

impl<B> Upload<B>
where
    B: Body<Data = Bytes, Error: Display> + Unpin,
{
    /// `ended` says that the head was the end already.
    pub(super) fn new(body: B, left: Option<u64>, ended: bool) -> Self {
        let state = if ended { Sending::Done } else { Sending::Open };
        Self { body, left, data: Bytes::new(), state, begun: false }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == Sending::Done
    }

    /// Sends what can be sent; ready once all of it was.
    pub(super) fn poll(
        &mut self, conn: &Conn, stream: u32, cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        while self.state != Sending::Done {
            let last = self.state == Sending::Last;
            if last || !self.data.is_empty() {
                let sent = conn.with(|state| state.poll_send(stream, &mut self.data, last, cx));
                ready!(sent).map_err(Broken::Gone)?;
                if last {
                    self.state = Sending::Done;
                }
                continue;
            }
            self.begun = true;
            // no lock is held here: the body may be read from this very connection
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(frame) => {
                    let trailers = self.take(frame.transpose()).map_err(Broken::Body)?;
                    if let Some(fields) = trailers {
                        let put = conn.with(|state| state.trailers(stream, &fields));
                        put.map_err(Broken::Gone)?;
                        self.state = Sending::Done;
                    }
                }
                Poll::Pending => {
                    let alive = conn.lock().watch(stream, cx);
                    return match alive {
                        Ok(()) => Poll::Pending,
                        Err(gone) => Poll::Ready(Err(Broken::Gone(gone))),
                    };
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes a frame of the body, or its end; trailers come back.
    fn take<E: Display>(
        &mut self, frame: Result<Option<Frame<Bytes>>, E>,
    ) -> Result<Option<HeaderMap>, String> {
        const SHORT: &str = "body is shorter than its length";
        let Some(frame) = frame.map_err(|error| error.to_string())? else {
            self.state = Sending::Last;
            return if self.left > Some(0) { Err(SHORT.to_owned()) } else { Ok(None) };
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => {
                if self.left > Some(0) {
                    return Err(SHORT.to_owned());
                }
                let trailers = other.into_trailers().ok().and_then(trailers::forwarded);
                if trailers.is_none() {
                    self.state = Sending::Last;
                }
                return Ok(trailers);
            }
        };
        if let Some(left) = &mut self.left {
            let rest = left.checked_sub(data.len() as u64);
            *left = rest.ok_or("body is longer than its length")?;
        }
        self.data = data;
        if self.body.is_end_stream() {
            self.state = Sending::Last;
            return if self.left > Some(0) { Err(SHORT.to_owned()) } else { Ok(None) };
        }
        Ok(None)
    }
}
