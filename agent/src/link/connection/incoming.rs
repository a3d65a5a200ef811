//! What arrives: the peer's frames, each held against the state it meets, and the credit that
//! reading gives back.

use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;

use super::{Chunk, Connection, Drain, Role};
use crate::link::error::{Code, LinkError};
use crate::link::frame::{
    DATA, Frame, GOAWAY, HEAD, OPEN, PONG, RESET, SETTINGS, TRAILERS, WINDOW,
};
use crate::link::head::{Open, ResponseHead};
use crate::link::limits::{INFORMED_MAX, WINDOW_MAX};
use crate::link::settings::Settings;
use crate::link::stream::Stream;

impl Connection {
    pub(super) fn take(&mut self, now: Instant, frame: Frame) -> Result<(), LinkError> {
        if !self.greeted && !matches!(frame, Frame::Settings(_)) {
            return Err(LinkError::Malformed("first frame is not SETTINGS"));
        }
        match frame {
            Frame::Settings(settings) => self.on_settings(settings),
            Frame::Open { stream, end, open } => self.on_open(now, stream, end, open),
            Frame::Head { stream, end, head } => self.on_head(now, stream, end, head),
            Frame::Data { stream, end, data } => self.on_data(now, stream, end, data),
            Frame::Trailers { stream, trailers } => self.on_trailers(now, stream, trailers),
            Frame::Reset { stream, code } => self.on_reset(now, stream, code),
            Frame::Window { stream, credit } => self.on_window(now, stream, credit),
            Frame::Ping(value) => {
                self.quiet(now)?;
                self.control(&Frame::Pong(value));
                Ok(())
            }
            Frame::Pong(value) => self.on_pong(value),
            Frame::GoAway { last, code } => self.on_goaway(now, last, code),
            Frame::Ignored => self.quiet(now),
        }
    }

    fn on_settings(&mut self, settings: Settings) -> Result<(), LinkError> {
        if self.greeted {
            return Err(LinkError::State { kind: SETTINGS, stream: 0 });
        }
        self.greeted = true;
        // Frames already sent were counted against the floor; nobody announces less.
        let more = settings.stream_window - self.theirs.stream_window;
        self.send_window += settings.connection_window - self.theirs.connection_window;
        self.theirs = settings;
        for stream in self.streams.values_mut() {
            stream.send.window += more;
        }
        let mut ids: Vec<u32> = self.streams.keys().copied().collect();
        ids.sort_unstable(); // OPENs leave in order
        for id in ids {
            self.list(id);
        }
        self.unstall();
        Ok(())
    }

    fn on_open(&mut self, now: Instant, id: u32, end: bool, open: Open) -> Result<(), LinkError> {
        if self.role != Role::Server {
            return Err(LinkError::State { kind: OPEN, stream: id });
        }
        if id <= self.opened || id == u32::MAX {
            let expected = "an id above all before and below 4294967295";
            return Err(LinkError::StreamId { kind: OPEN, found: id, expected });
        }
        self.opened = id;
        if matches!(self.drain, Drain::Final(_)) {
            return Ok(()); // the final GOAWAY, under way, says so
        }
        let full = self.active >= self.ours.streams_max;
        if full || self.backlog.len() >= self.limits.backlog_max {
            self.quiet(now)?;
            self.control(&Frame::Reset { stream: id, code: Code::REFUSED });
            return Ok(());
        }
        let tcp = matches!(open, Open::Tcp(_));
        let mut stream = Stream::new(tcp, self.theirs.stream_window, self.ours.stream_window);
        stream.opened_at = Some(now);
        stream.recv.headed = true;
        stream.recv.ended = end;
        self.streams.insert(id, stream);
        self.active += 1;
        self.backlog.push_back((id, open));
        self.wake_acceptor();
        Ok(())
    }

    fn on_head(
        &mut self, now: Instant, id: u32, end: bool, head: ResponseHead,
    ) -> Result<(), LinkError> {
        if self.role != Role::Client {
            return Err(LinkError::State { kind: HEAD, stream: id });
        }
        if head.informational() {
            self.quiet(now)?;
        }
        let Some(stream) = self.receiver(now, id, HEAD)? else { return Ok(()) };
        let misplaced = stream.recv.headed
            || (head.informational() && (end || stream.informed >= INFORMED_MAX))
            || (stream.tcp && head != ResponseHead::connected());
        if misplaced {
            return Err(LinkError::State { kind: HEAD, stream: id });
        }
        stream.informed += u8::from(head.informational());
        stream.recv.headed = !head.informational();
        stream.recv.ended = end;
        stream.recv.heads.push_back(head);
        stream.recv.wake();
        self.settle(id);
        Ok(())
    }

    fn on_data(&mut self, now: Instant, id: u32, end: bool, data: Bytes) -> Result<(), LinkError> {
        let len = spend(&mut self.recv_window, 0, &data)?;
        let Some(stream) = self.receiver(now, id, DATA)? else {
            self.credit_connection();
            return Ok(());
        };
        if !stream.recv.headed {
            return Err(LinkError::State { kind: DATA, stream: id });
        }
        spend(&mut stream.recv.window, id, &data)?;
        stream.recv.ended = end;
        let kept = if stream.recv.released { 0 } else { len };
        if kept > 0 {
            stream.recv.data.push(data);
        }
        stream.recv.wake();
        self.unread += kept;
        self.quiet.earn(1);
        self.credit_connection();
        self.settle(id);
        Ok(())
    }

    fn on_trailers(&mut self, now: Instant, id: u32, trailers: HeaderMap) -> Result<(), LinkError> {
        let Some(stream) = self.receiver(now, id, TRAILERS)? else { return Ok(()) };
        if stream.tcp || !stream.recv.headed {
            return Err(LinkError::State { kind: TRAILERS, stream: id });
        }
        stream.recv.ended = true;
        if !stream.recv.released {
            stream.recv.trailers = Some(trailers);
        }
        stream.recv.wake();
        self.settle(id);
        Ok(())
    }

    fn on_reset(&mut self, now: Instant, id: u32, code: Code) -> Result<(), LinkError> {
        self.check_opened(id, RESET)?;
        let rapid = self.limits.rapid_reset;
        let young = self
            .streams
            .get(&id)
            .is_none_or(|stream| stream.opened_at.is_some_and(|at| now.duration_since(at) < rapid));
        if young {
            self.quiet(now)?;
        }
        self.close_stream(id, &LinkError::Reset(code));
        Ok(())
    }

    fn on_window(&mut self, now: Instant, id: u32, credit: u32) -> Result<(), LinkError> {
        self.quiet(now)?;
        let bad = LinkError::BadCredit { stream: id, credit };
        let window = if id == 0 {
            &mut self.send_window
        } else {
            self.check_opened(id, WINDOW)?;
            match self.streams.get_mut(&id) {
                Some(stream) => &mut stream.send.window,
                None if credit == 0 => return Err(bad),
                None => return Ok(()),
            }
        };
        let wider = window.checked_add(credit).filter(|&w| credit > 0 && w <= WINDOW_MAX);
        *window = wider.ok_or(bad)?;
        if id == 0 {
            self.unstall();
        } else {
            self.list(id);
        }
        Ok(())
    }

    fn on_pong(&mut self, value: u64) -> Result<(), LinkError> {
        if self.pings.pop_front() != Some(value) {
            return Err(LinkError::State { kind: PONG, stream: 0 });
        }
        if self.drain == Drain::Noticed(value) {
            let last = self.opened;
            self.drain = Drain::Final(last);
            self.control(&Frame::GoAway { last, code: Code::DONE });
            if self.finished() {
                self.wake_acceptor();
            }
        }
        Ok(())
    }

    fn on_goaway(&mut self, now: Instant, last: u32, code: Code) -> Result<(), LinkError> {
        if code != Code::DONE {
            return Err(LinkError::GoneAway(code));
        }
        self.quiet(now)?;
        let raised = self.peer_last.is_some_and(|before| last > before);
        if raised || (self.role == Role::Server && last != 0) {
            let expected = "no more than before, and 0 from a client";
            return Err(LinkError::StreamId { kind: GOAWAY, found: last, expected });
        }
        self.peer_last = Some(last);
        if self.role == Role::Client {
            let refused: Vec<u32> = self.streams.keys().copied().filter(|id| *id > last).collect();
            for id in refused {
                self.close_stream(id, &LinkError::Reset(Code::REFUSED));
            }
        }
        if self.finished() {
            self.wake_acceptor();
        }
        Ok(())
    }

    /// The next head of the answer, informational ones included.
    pub fn poll_head(
        &mut self, id: u32, cx: &Context<'_>,
    ) -> Poll<Result<ResponseHead, LinkError>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(LinkError::Misuse("stream is gone")));
        };
        if let Some(head) = stream.recv.heads.pop_front() {
            return Poll::Ready(Ok(head));
        }
        if let Some(error) = &stream.failed {
            return Poll::Ready(Err(error.clone()));
        }
        if stream.recv.headed {
            return Poll::Ready(Err(LinkError::Misuse("the final head was taken")));
        }
        stream.recv.park(cx);
        Poll::Pending
    }

    /// The next part of the body; none after the last. Taking data gives credit back.
    pub fn poll_chunk(
        &mut self, id: u32, cx: &Context<'_>,
    ) -> Poll<Option<Result<Chunk, LinkError>>> {
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(None) };
        if let Some(data) = stream.recv.data.pop() {
            self.credit_stream(id);
            self.read(data.len());
            return Poll::Ready(Some(Ok(Chunk::Data(data))));
        }
        if stream.recv.ended {
            let trailers = stream.recv.trailers.take();
            return Poll::Ready(trailers.map(|trailers| Ok(Chunk::Trailers(trailers))));
        }
        if let Some(error) = &stream.failed {
            return Poll::Ready(Some(Err(error.clone())));
        }
        stream.recv.park(cx);
        Poll::Pending
    }

    /// Whether the whole body was taken.
    pub fn drained(&self, id: u32) -> bool {
        self.streams.get(&id).is_none_or(|stream| {
            let recv = &stream.recv;
            recv.ended && recv.data.len() == 0 && recv.trailers.is_none()
        })
    }

    /// Bytes left the buffers.
    pub(super) fn read(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        debug_assert!(bytes <= self.unread, "only what was counted is read");
        self.unread = self.unread.saturating_sub(bytes);
        if bytes > 0 {
            self.credit_connection();
        }
    }

    /// Gives the stream its window back, a wider one if its reader keeps up: it leaves no more than
    /// half of one unread. While unread bytes press, no more than the initial one.
    fn credit_stream(&mut self, id: u32) {
        let pressed = self.unread >= self.limits.unread_max / 2;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let recv = &mut stream.recv;
        if stream.failed.is_some() || recv.due(recv.target).is_none() {
            return;
        }
        let initial = self.ours.stream_window;
        let most = self.limits.stream_window_max.clamp(initial, WINDOW_MAX);
        let keeps_up = recv.data.len() <= recv.target as usize / 2;
        if !pressed && keeps_up {
            recv.target = recv.target.saturating_mul(2).min(most);
        }
        let target = if pressed { initial } else { recv.target };
        if let Some(credit) = recv.due(target) {
            recv.window += credit;
            self.control(&Frame::Window { stream: id, credit });
        }
    }

    /// Gives the connection its window back as bytes arrive, so that readers who stall hold up
    /// only themselves, until what they leave unread is all that memory allows.
    fn credit_connection(&mut self) {
        if self.over.is_some() {
            return;
        }
        let spare = self.limits.unread_max.saturating_sub(self.unread);
        let target = self.ours.connection_window.min(spare);
        let due = target.saturating_sub(self.recv_window);
        let starved = self.recv_window < self.ours.data_max && due >= self.ours.data_max;
        if due > 0 && (due >= self.ours.connection_window / 2 || starved) {
            self.recv_window += due;
            self.control(&Frame::Window { stream: 0, credit: due });
        }
    }

    /// The stream a frame is for; none if it is over here and the frame crossed that news.
    fn receiver(
        &mut self, now: Instant, id: u32, kind: u8,
    ) -> Result<Option<&mut Stream>, LinkError> {
        self.check_opened(id, kind)?;
        let live = self.streams.get(&id).is_some_and(|stream| stream.failed.is_none());
        if !live {
            if kind != DATA {
                self.quiet(now)?; // DATA is bounded by the connection's window
            }
            return Ok(None);
        }
        let stream = self.streams.get_mut(&id);
        if stream.as_ref().is_some_and(|stream| stream.recv.ended) {
            return Err(LinkError::State { kind, stream: id });
        }
        Ok(stream)
    }

    fn check_opened(&self, id: u32, kind: u8) -> Result<(), LinkError> {
        if id > self.opened {
            return Err(LinkError::State { kind, stream: id });
        }
        Ok(())
    }

    fn quiet(&mut self, now: Instant) -> Result<(), LinkError> {
        self.quiet.tick(now, self.limits.quiet_max, self.limits.quiet_period)
    }
}

/// Takes the bytes off a window.
fn spend(window: &mut u32, stream: u32, data: &Bytes) -> Result<u32, LinkError> {
    let exceeded = LinkError::WindowExceeded { stream, found: data.len(), window: *window };
    let len = u32::try_from(data.len()).map_err(|_| exceeded.clone())?;
    *window = window.checked_sub(len).ok_or(exceeded)?;
    Ok(len)
}
