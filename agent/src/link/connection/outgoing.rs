//! What leaves: opening, queueing, and taking turns.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::{Connection, Role};
use crate::link::error::LinkError;
use crate::link::frame::{DATA, HEAD, OPEN, TRAILERS, put_header};
use crate::link::head::{Open, ResponseHead, encode_trailers};
use crate::link::limits::INFORMED_MAX;
use crate::link::stream::{Stream, Tail};

impl Connection {
    /// Opens a stream; `end` says that nothing follows.
    ///
    /// # Errors
    /// If this is a server, the link is retired, full or out of ids, or the peer would refuse
    /// the head. Nothing was sent then.
    pub fn open(&mut self, open: &Open, end: bool) -> Result<u32, LinkError> {
        if self.role != Role::Client {
            return Err(LinkError::Misuse("only the client opens streams"));
        }
        if self.draining() || self.last == u32::MAX - 1 {
            return Err(LinkError::Draining);
        }
        let max = self.theirs.streams_max;
        if self.active >= max {
            return Err(LinkError::TooManyStreams { max });
        }
        let payload = open.encode(&self.theirs)?;
        self.last += 1;
        let id = self.last;
        let tcp = matches!(open, Open::Tcp(_));
        let mut stream = Stream::new(tcp, self.theirs.stream_window, self.ours.stream_window);
        stream.send.headed = true;
        stream.send.heads.push_back((OPEN, payload, false));
        if end {
            stream.send.tail = Tail::End;
        }
        self.streams.insert(id, stream);
        self.active += 1;
        self.list(id);
        Ok(id)
    }

    /// Sends a head of the answer; after the final one the body may follow.
    ///
    /// # Errors
    /// If the stream failed, has its final head already, or the peer would refuse this one.
    pub fn send_head(&mut self, id: u32, head: &ResponseHead, end: bool) -> Result<(), LinkError> {
        let server = self.role == Role::Server;
        let payload = head.encode(&self.theirs)?;
        let stream = self.sender(id)?;
        if !server || stream.send.headed {
            return Err(LinkError::Misuse("no head is due"));
        }
        if stream.tcp && *head != ResponseHead::connected() {
            return Err(LinkError::Misuse("a TCP stream has no other head than connected"));
        }
        if head.informational() {
            if stream.informed >= INFORMED_MAX {
                return Err(LinkError::Misuse("informational heads are spent"));
            }
            stream.informed += 1;
        }
        stream.send.headed = !head.informational();
        if end && stream.send.headed {
            stream.send.tail = Tail::End;
        }
        stream.send.heads.push_back((HEAD, payload, false));
        self.list(id);
        Ok(())
    }

    /// Queues bytes of the body, whatever their number: callers ask [`Self::poll_room`] first.
    ///
    /// # Errors
    /// If the stream failed, was ended, or has no final head yet.
    pub fn send_data(&mut self, id: u32, data: Bytes, end: bool) -> Result<(), LinkError> {
        let stream = self.body_sender(id)?;
        stream.send.push(data);
        if end {
            stream.send.tail = Tail::End;
        }
        self.list(id);
        Ok(())
    }

    /// Ends this side of an HTTP stream with trailers.
    ///
    /// # Errors
    /// As [`Self::send_data`], and if the peer would refuse the trailers.
    pub fn send_trailers(&mut self, id: u32, trailers: &HeaderMap) -> Result<(), LinkError> {
        let payload = encode_trailers(trailers, &self.theirs)?;
        let stream = self.body_sender(id)?;
        if stream.tcp {
            return Err(LinkError::Misuse("a TCP stream has no trailers"));
        }
        stream.send.tail = Tail::Trailers(payload);
        self.list(id);
        Ok(())
    }

    /// How many bytes the stream may queue, 1 or more; waits while its queue is full.
    pub fn poll_room(&mut self, id: u32, cx: &Context<'_>) -> Poll<Result<usize, LinkError>> {
        let max = self.limits.send_queue;
        let stream = match self.body_sender(id) {
            Ok(stream) => stream,
            Err(error) => return Poll::Ready(Err(error)),
        };
        match max.saturating_sub(stream.send.queued) {
            0 => {
                stream.send.park(cx);
                Poll::Pending
            }
            room => Poll::Ready(Ok(room)),
        }
    }

    /// Waits until the stream failed, for whoever works on an answer nobody may want.
    pub fn poll_failed(&mut self, id: u32, cx: &Context<'_>) -> Poll<LinkError> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(LinkError::Misuse("stream is gone"));
        };
        if let Some(error) = &stream.failed {
            return Poll::Ready(error.clone());
        }
        stream.send.park(cx);
        Poll::Pending
    }

    /// Whether [`Self::output`] has something to give.
    pub fn has_output(&self) -> bool {
        !self.control.is_empty() || !self.ready.is_empty()
    }

    /// Appends frames until `out` holds a batch or nothing is left that may leave. Streams take
    /// turns of one frame.
    pub fn output(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(&self.control);
        self.control = BytesMut::new();
        while out.len() < self.limits.write_batch {
            let Some(id) = self.ready.pop_front() else { return };
            self.emit(id, out);
        }
    }

    /// Moves one frame of the stream to `out`.
    fn emit(&mut self, id: u32, out: &mut BytesMut) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.send.listed = false;
        if stream.failed.is_some() {
            return;
        }
        if let Some((kind, payload, _)) = stream.send.heads.pop_front() {
            let send = &mut stream.send;
            let last = send.heads.is_empty() && send.headed && send.data.is_empty();
            let end = last && send.tail == Tail::End;
            put_header(out, kind, end, id, payload.len());
            out.extend_from_slice(&payload);
            if end {
                send.tail = Tail::Sent;
            }
            if kind == OPEN {
                self.opened = id;
            }
        } else if stream.send.data.is_empty() {
            emit_tail(stream, id, out);
        } else if !self.emit_data(id, out) {
            return;
        }
        self.list(id);
        self.settle(id);
    }

    /// Sends as much as one frame and both windows take; says whether that was anything.
    fn emit_data(&mut self, id: u32, out: &mut BytesMut) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        let send = &mut stream.send;
        if self.send_window == 0 {
            send.listed = true;
            self.stalled.push(id);
            return false;
        }
        let credit = self.theirs.data_max.min(send.window).min(self.send_window);
        let waiting = send.waiting();
        let len = waiting.min(credit as usize);
        let Ok(spent) = u32::try_from(len) else { return false };
        if len == 0 {
            return false;
        }
        let end = len == waiting && send.tail == Tail::End;
        put_header(out, DATA, end, id, len);
        send.drain(len, out);
        send.window -= spent;
        self.send_window -= spent;
        if end {
            send.tail = Tail::Sent;
        }
        if send.queued <= self.limits.send_queue / 2 {
            send.wake();
        }
        self.quiet.earn(2); // each is worth a WINDOW of the stream and one of the connection
        true
    }

    /// Puts the stream in line if it has a frame that may leave.
    pub(super) fn list(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.send.listed || stream.failed.is_some() || !stream.send.sendable() {
            return;
        }
        stream.send.listed = true;
        if self.send_window == 0 && stream.send.needs_credit() {
            self.stalled.push(id);
        } else {
            self.ready.push_back(id);
        }
    }

    /// Back in line, now that the connection has credit.
    pub(super) fn unstall(&mut self) {
        self.ready.extend(self.stalled.drain(..));
    }

    fn sender(&mut self, id: u32) -> Result<&mut Stream, LinkError> {
        let stream = self.streams.get_mut(&id).ok_or(LinkError::Misuse("stream is gone"))?;
        if let Some(error) = &stream.failed {
            return Err(error.clone());
        }
        if stream.send.tail != Tail::Open {
            return Err(LinkError::Misuse("stream was ended"));
        }
        Ok(stream)
    }

    fn body_sender(&mut self, id: u32) -> Result<&mut Stream, LinkError> {
        let stream = self.sender(id)?;
        if !stream.send.headed {
            return Err(LinkError::Misuse("the head comes first"));
        }
        Ok(stream)
    }
}

/// The end after the data, with trailers or without.
fn emit_tail(stream: &mut Stream, id: u32, out: &mut BytesMut) {
    match std::mem::replace(&mut stream.send.tail, Tail::Sent) {
        Tail::End => put_header(out, DATA, true, id, 0),
        Tail::Trailers(payload) => {
            put_header(out, TRAILERS, true, id, payload.len());
            out.extend_from_slice(&payload);
        }
        kept @ (Tail::Open | Tail::Sent) => stream.send.tail = kept,
    }
}
