//! What goes out on streams: heads, bodies within the windows, their end.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Response;
use http::header::HeaderMap;
use tokio::time::Instant;

use super::super::error::{Code, Fault};
use super::super::frame::{self, WINDOW_LIMIT};
use super::super::head;
use super::super::stream::{Expects, Gone, Stream, Streams, keep, wake};
use super::{Over, State};
use crate::edge::limits::{FRAME_MAX, SHARE, WINDOW_GATHERED_MAX};

/// The head of an answer, and whether it is all of it.
type Answered = (Box<Response<()>>, bool);

impl State {
    /// Opens a stream with a request whose head is `block`; its number.
    pub(in super::super) fn open(&mut self, block: &[u8], end: bool, bodiless: bool) -> u32 {
        let id = if self.last == 0 { 1 } else { self.last + 2 };
        self.last = id;
        let window = i64::from(self.peer_window);
        let expects = Expects::Head { informed: 0, bodiless };
        let mut stream = Stream::new(window, None, false, expects);
        stream.sent = end;
        self.streams.insert(id, stream);
        self.live += 1;
        self.out.put(|out| {
            let at = frame::begin_headers(out);
            out.extend_from_slice(block);
            frame::end_headers(out, at, id, end);
        });
        id
    }

    /// Puts the head of an answer.
    ///
    /// # Errors
    /// The stream is gone.
    pub(in super::super) fn respond(
        &mut self, id: u32, head: &Response<()>, end: bool,
    ) -> Result<(), Gone> {
        let fields = |out: &mut BytesMut| head::put_response(out, head.status(), head.headers());
        self.put_fields(id, end, fields)?;
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.answered = true;
        }
        self.budget.answer();
        Ok(())
    }

    /// Puts trailers: the end of what is sent.
    ///
    /// # Errors
    /// The stream is gone.
    pub(in super::super) fn trailers(&mut self, id: u32, fields: &HeaderMap) -> Result<(), Gone> {
        self.put_fields(id, true, |out| head::put_fields(out, fields))
    }

    fn put_fields(
        &mut self, id: u32, end: bool, fields: impl FnOnce(&mut BytesMut),
    ) -> Result<(), Gone> {
        let stream = self.alive(id)?;
        stream.sent = end;
        self.budget.message();
        self.out.put(|out| {
            let at = frame::begin_headers(out);
            fields(out);
            frame::end_headers(out, at, id, end);
        });
        Ok(())
    }

    fn alive(&mut self, id: u32) -> Result<&mut Stream, Gone> {
        alive(&mut self.streams, self.over, id)
    }

    /// Puts `data` into frames as there is room; ready once all of it, and the `end`, was put.
    pub(in super::super) fn poll_send(
        &mut self, id: u32, data: &mut Bytes, end: bool, cx: &Context<'_>,
    ) -> Poll<Result<(), Gone>> {
        loop {
            let (full, connection) = (self.out.is_full(), self.send_window);
            let mut others = !self.queue.is_empty();
            let granted = &mut self.granted;
            let stream = match alive(&mut self.streams, self.over, id) {
                Ok(stream) => stream,
                Err(gone) => return Poll::Ready(Err(gone)),
            };
            if std::mem::take(&mut stream.granted) {
                *granted -= 1;
            }
            others |= *granted > 0;
            if stream.share == 0 && !others {
                stream.share = SHARE;
            }
            if data.is_empty() && (!end || stream.sent) {
                return Poll::Ready(Ok(()));
            }
            let window = usize::try_from(stream.window.min(connection)).unwrap_or(0);
            let room = window.min(FRAME_MAX).min(stream.share);
            if !data.is_empty() && (full || room == 0) {
                keep(&mut stream.sender, cx);
                if window == 0 {
                    stream.stalled.get_or_insert_with(Instant::now);
                }
                let queues = stream.window > 0 && !stream.queued;
                if queues {
                    stream.queued = true;
                    self.queue.push_back(id);
                }
                return Poll::Pending;
            }
            let part = data.split_to(room.min(data.len()));
            stream.stalled = None;
            stream.window -= part.len() as i64;
            stream.share -= part.len();
            stream.sent = end && data.is_empty();
            let last = stream.sent;
            self.send_window -= part.len() as i64;
            self.budget.message();
            self.out.data(id, part, last);
        }
    }

    /// Wakes those who wait for room, in their order, as many as get a share of it.
    pub(in super::super) fn grant(&mut self) -> bool {
        let mut granted = false;
        let room = WINDOW_GATHERED_MAX.saturating_sub(self.out.len());
        for _ in 0..room.div_ceil(SHARE) {
            if !self.is_awaited() {
                break;
            }
            let next = self.queue.pop_front().and_then(|id| self.streams.get_mut(&id));
            let Some(stream) = next else { continue };
            stream.queued = false;
            stream.share = SHARE;
            wake(&mut stream.sender);
            granted = true;
            if !std::mem::replace(&mut stream.granted, true) {
                self.granted += 1;
            }
        }
        granted
    }

    /// Whether somebody waits for room who may have it.
    pub(super) fn is_awaited(&self) -> bool {
        !self.queue.is_empty() && self.send_window > 0
    }

    pub(super) fn window_update(&mut self, id: u32, increment: u32) -> Result<(), Fault> {
        let limit = i64::from(WINDOW_LIMIT);
        if id == 0 {
            self.send_window += i64::from(increment);
            return if increment == 0 {
                Err(super::protocol("a window grows by nothing"))
            } else if self.send_window > limit {
                Err(Fault::connection(Code::FlowControl, "a window is over 2^31-1"))
            } else {
                Ok(())
            };
        }
        if self.is_idle(id) {
            return Err(super::protocol("a window is of a stream that was not opened"));
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.gone.is_none()) else {
            return Ok(());
        };
        stream.window += i64::from(increment);
        if increment == 0 {
            return Err(Fault::stream(id, Code::Protocol, "a window grows by nothing"));
        }
        if stream.window > limit {
            return Err(Fault::stream(id, Code::FlowControl, "a window is over 2^31-1"));
        }
        wake(&mut stream.sender);
        Ok(())
    }

    /// Ends a stream before its time and tells the other side.
    pub(in super::super) fn reset(&mut self, id: u32, code: Code, gone: Gone) {
        self.out.put(|out| frame::put_reset(out, id, code));
        let Some(stream) = self.streams.get_mut(&id) else { return self.remember(id, true) };
        let unread = stream.incoming.discard();
        if stream.gone.is_none() {
            stream.end(gone);
            self.live -= 1;
        }
        self.taken += unread;
        self.allow();
    }

    /// Whoever answered a stream, or asked on it, is done with it: what was not ended is reset.
    pub(in super::super) fn finish(&mut self, id: u32, code: Code) {
        let Some(stream) = self.streams.get(&id) else { return };
        let whole = stream.sent && stream.incoming.ended;
        let reset = stream.gone.is_none() && !whole;
        // more may be on its way
        let by_us = reset || (stream.gone.is_some() && !stream.by_peer);
        if reset && self.over.is_none() {
            self.out.put(|out| frame::put_reset(out, id, code));
        }
        self.forget(id, by_us);
    }

    /// Waits for a stream to end before its time.
    pub(in super::super) fn watch(&mut self, id: u32, cx: &Context<'_>) -> Result<(), Gone> {
        self.alive(id).map(|stream| keep(&mut stream.sender, cx))
    }

    /// Takes the head of the answer on a stream, and says whether it is all of the answer.
    pub(in super::super) fn poll_head(
        &mut self, id: u32, cx: &Context<'_>,
    ) -> Poll<Result<Answered, Gone>> {
        let taken = self.streams.get_mut(&id).and_then(|stream| {
            let head = stream.head.take()?;
            Some((head, stream.incoming.is_over()))
        });
        match taken {
            Some(taken) => Poll::Ready(Ok(taken)),
            None => match self.watch(id, cx) {
                Ok(()) => Poll::Pending,
                Err(gone) => Poll::Ready(Err(gone)),
            },
        }
    }

    /// Ends streams that wait for too long for the other side to make room, and says when to look
    /// again.
    pub(in super::super) fn end_stalled(&mut self, now: Instant, stall: Duration) {
        let late = |stream: &Stream| {
            stream.gone.is_none()
                && stream.stalled.is_some_and(|since| now.duration_since(since) >= stall)
        };
        let ids: Vec<u32> =
            self.streams.iter().filter(|(_, stream)| late(stream)).map(|(id, _)| *id).collect();
        for id in ids {
            self.reset(id, Code::Cancel, Gone::Reset(Code::Cancel));
        }
    }
}

/// A stream that something may be sent on.
fn alive(streams: &mut Streams, over: Option<Over>, id: u32) -> Result<&mut Stream, Gone> {
    match streams.get_mut(&id) {
        None => Err(Gone::Closed),
        Some(Stream { gone: Some(gone), .. }) => Err(*gone),
        Some(_) if over.is_some() => Err(Gone::Closed),
        Some(stream) => Ok(stream),
    }
}
