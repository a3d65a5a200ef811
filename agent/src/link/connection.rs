//! The state machine of one link, client or server: bytes in, bytes out, no I/O and no clock.
//!
//! Ephemeral state. Whoever waits parks a waker here; everything else is plain data. Frames are
//! taken in by `incoming`, put out by `outgoing`; this file holds the link as a whole.

mod incoming;
mod outgoing;

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use http::HeaderMap;

use super::error::{Code, LinkError};
use super::frame::{Decoder, Frame};
use super::head::Open;
use super::limits::{EARNED_MAX, Limits, PINGS_MAX};
use super::settings::Settings;
use super::stream::{Stream, Tail};

/// Which end of the link this is. Only clients open streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The caller's agent.
    Client,
    /// The callee's agent.
    Server,
}

/// A part of a received body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// One or more bytes.
    Data(Bytes),
    /// The last part, if there is one.
    Trailers(HeaderMap),
}

/// One side of a link.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    limits: Limits,
    ours: Settings,
    /// The peer's, or the floor until they arrive.
    theirs: Settings,
    greeted: bool,
    decoder: Decoder,
    streams: HashMap<u32, Stream>,
    /// Streams with a frame to send, in turn.
    ready: VecDeque<u32>,
    /// Streams that wait for credit of the connection.
    stalled: Vec<u32>,
    /// Encoded frames that go before any stream's.
    control: BytesMut,
    /// Highest id given (client) or seen (server).
    last: u32,
    /// Highest id whose OPEN left or arrived.
    opened: u32,
    active: u32,
    send_window: u32,
    recv_window: u32,
    unread: u32,
    backlog: VecDeque<(u32, Open)>,
    acceptor: Option<Waker>,
    quiet: Quiet,
    pings: VecDeque<u64>,
    next_ping: u64,
    drain: Drain,
    /// The peer's GOAWAY: streams above are not looked at.
    peer_last: Option<u32>,
    over: Option<LinkError>,
}

/// How far this side is with its own retirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    /// Told the client to open no more; the answer to this ping proves that it knows.
    Noticed(u64),
    /// Streams above are dropped.
    Final(u32),
}

/// Counts frames that move nothing forward, beyond those that progress explains.
#[derive(Debug, Default)]
struct Quiet {
    since: Option<Instant>,
    count: u32,
    /// Such frames that are still owed for what moved, for instance WINDOWs for DATA sent.
    earned: u32,
}

impl Connection {
    /// A fresh link whose SETTINGS wait to be sent.
    pub fn new(role: Role, limits: Limits) -> Self {
        let ours = limits.settings();
        let mut connection = Self {
            role,
            limits,
            ours,
            theirs: Settings::FLOOR,
            greeted: false,
            decoder: Decoder::default(),
            streams: HashMap::new(),
            ready: VecDeque::new(),
            stalled: Vec::new(),
            control: BytesMut::new(),
            last: 0,
            opened: 0,
            active: 0,
            send_window: Settings::FLOOR.connection_window,
            recv_window: ours.connection_window,
            unread: 0,
            backlog: VecDeque::new(),
            acceptor: None,
            quiet: Quiet::default(),
            pings: VecDeque::new(),
            next_ping: 1,
            drain: Drain::No,
            peer_last: None,
            over: None,
        };
        connection.control(&Frame::Settings(ours));
        connection
    }

    /// Takes bytes from the peer, cut anywhere. `now` must not go back.
    ///
    /// # Errors
    /// The peer's violation, or its error GOAWAY. The link is over then: send what
    /// [`Self::output`] still gives and close.
    pub fn input(&mut self, now: Instant, mut bytes: &[u8]) -> Result<(), LinkError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        loop {
            let step = match self.decoder.next(&mut bytes, &self.ours) {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => self.take(now, frame),
                Err(error) => Err(error),
            };
            if let Err(error) = step {
                self.end(error.clone());
                return Err(error);
            }
        }
    }

    /// Ends the link: every open stream gets `error` (or, if its OPEN never left,
    /// [`LinkError::Draining`], after which it may be opened elsewhere), the peer a GOAWAY with its code unless it
    /// sent one itself. Does nothing if the link is over already.
    pub fn end(&mut self, error: LinkError) {
        if self.over.is_some() {
            return;
        }
        if !matches!(error, LinkError::GoneAway(_)) {
            let last = if self.role == Role::Server { self.opened } else { 0 };
            self.control(&Frame::GoAway { last, code: error.code() });
        }
        self.over = Some(error.clone());
        let open: Vec<u32> =
            self.streams.iter().filter(|(_, s)| s.active).map(|(id, _)| *id).collect();
        for id in open {
            let unsent = self.role == Role::Client && id > self.opened;
            self.close_stream(id, if unsent { &LinkError::Draining } else { &error });
        }
        self.ready.clear();
        self.stalled.clear();
        self.wake_acceptor();
    }

    /// Retires the link: no new streams, those that are open finish.
    pub fn shutdown(&mut self) {
        if self.drain != Drain::No || self.over.is_some() {
            return;
        }
        match self.role {
            Role::Client => {
                self.drain = Drain::Final(0);
                self.control(&Frame::GoAway { last: 0, code: Code::DONE });
            }
            Role::Server => {
                self.control(&Frame::GoAway { last: u32::MAX, code: Code::DONE });
                self.drain = Drain::Noticed(self.push_ping());
            }
        }
    }

    /// Asks the peer for a sign of life, unless it owes too many already.
    pub fn ping(&mut self) {
        if self.over.is_none() && self.pings.len() < PINGS_MAX {
            self.push_ping();
        }
    }

    /// Whether the peer owes an answer to a PING.
    pub fn awaits_pong(&self) -> bool {
        !self.pings.is_empty()
    }

    /// Streams open between both sides.
    pub fn active(&self) -> u32 {
        self.active
    }

    /// Whether the peer's SETTINGS arrived.
    pub fn greeted(&self) -> bool {
        self.greeted
    }

    /// Whether the link takes no new streams.
    pub fn draining(&self) -> bool {
        self.drain != Drain::No || self.peer_last.is_some() || self.over.is_some()
    }

    /// Whether nothing is left to do but to close: retired and empty, or broken.
    pub fn finished(&self) -> bool {
        let retired = match self.drain {
            Drain::Final(_) => true,
            Drain::No | Drain::Noticed(_) => self.peer_last.is_some(),
        };
        self.over.is_some() || (retired && self.active == 0)
    }

    /// Why the link is over, if it is and was not simply retired.
    pub fn error(&self) -> Option<&LinkError> {
        self.over.as_ref()
    }

    /// The next stream the peer opened; none once the link is over.
    pub fn poll_accept(&mut self, cx: &Context<'_>) -> Poll<Option<(u32, Open)>> {
        while let Some((id, open)) = self.backlog.pop_front() {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            if stream.failed.is_none() {
                return Poll::Ready(Some((id, open)));
            }
            self.forget(id); // cancelled before anyone saw it
        }
        if self.finished() {
            return Poll::Ready(None);
        }
        self.acceptor = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Nobody accepts streams any more: those that wait and those to come are refused.
    pub fn refuse_all(&mut self) {
        self.limits.backlog_max = 0;
        while let Some((id, _)) = self.backlog.pop_front() {
            self.reset(id, Code::REFUSED);
            self.forget(id);
        }
    }

    /// Ends one stream both ways, telling the peer `code`. Nothing happens to one that is over.
    pub fn reset(&mut self, id: u32, code: Code) {
        let Some(stream) = self.streams.get(&id) else { return };
        if stream.over() {
            return;
        }
        if id <= self.opened && self.over.is_none() {
            self.control(&Frame::Reset { stream: id, code });
            self.quiet.earn(4); // frames under way to a stream that is no more
        }
        self.close_stream(id, &LinkError::Ended(code));
    }

    /// Nobody here sends on the stream any more. One that is not ended is reset.
    pub fn release_send(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.send.released = true;
        if stream.send.tail == Tail::Open {
            let code = match self.role {
                Role::Client => Code::CANCELLED,
                Role::Server if stream.send.headed => Code::BROKEN,
                Role::Server => Code::INTERNAL,
            };
            self.reset(id, code);
        }
        self.settle(id);
    }

    /// Nobody here reads the stream any more. At the client that cancels it unless it is ended;
    /// at the server what still comes is dropped, and the end of the answer ends the stream.
    pub fn release_recv(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.recv.released = true;
        let dropped = stream.recv.data.clear();
        stream.recv.heads.clear();
        stream.recv.trailers = None;
        let cancel = self.role == Role::Client && !stream.recv.ended;
        self.read(dropped);
        if cancel {
            self.reset(id, Code::CANCELLED);
        }
        self.settle(id);
    }

    /// Draws the consequences of a stream's new state: DONE to a peer that sends on in vain,
    /// one stream less, nothing remembered of what nobody holds.
    fn settle(&mut self, id: u32) {
        let Some(stream) = self.streams.get(&id) else { return };
        let answered = stream.send.tail == Tail::Sent && stream.failed.is_none();
        if self.role == Role::Server && answered && stream.recv.released && !stream.recv.ended {
            self.reset(id, Code::DONE);
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.active && stream.over() {
            stream.active = false;
            self.active -= 1;
            if self.finished() {
                self.wake_acceptor();
            }
        }
        if self.streams.get(&id).is_some_and(Stream::forgettable) {
            self.streams.remove(&id);
        }
    }

    /// Drops a stream that was never handed out, with what it holds.
    fn forget(&mut self, id: u32) {
        if let Some(mut stream) = self.streams.remove(&id) {
            debug_assert!(!stream.active, "only a stream that is over is forgotten");
            self.read(stream.recv.data.clear());
        }
    }

    /// Marks a stream as failed. Bytes that came before the peer's END stay readable.
    fn close_stream(&mut self, id: u32, error: &LinkError) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.over() {
            return;
        }
        stream.failed = Some(error.clone());
        stream.send.clear();
        let mut dropped = 0;
        if !stream.recv.ended {
            dropped = stream.recv.data.clear();
            stream.recv.heads.clear();
        }
        stream.wake();
        self.read(dropped);
        self.settle(id);
    }

    /// Encodes a frame that goes before any stream's. Such frames are always within bounds.
    fn control(&mut self, frame: &Frame) {
        let encoded = frame.encode(&mut self.control, &self.theirs);
        debug_assert!(encoded.is_ok(), "control frames fit every peer");
    }

    fn push_ping(&mut self) -> u64 {
        let value = self.next_ping;
        self.next_ping += 1;
        self.pings.push_back(value);
        self.control(&Frame::Ping(value));
        value
    }

    fn wake_acceptor(&mut self) {
        if let Some(waker) = self.acceptor.take() {
            waker.wake();
        }
    }
}

impl Quiet {
    /// Counts one frame that moved nothing forward.
    fn tick(&mut self, now: Instant, max: u32, period: Duration) -> Result<(), LinkError> {
        let fresh = self.since.is_none_or(|since| now.duration_since(since) >= period);
        if fresh {
            self.since = Some(now);
            self.count = 0;
        }
        if self.earned > 0 {
            self.earned -= 1;
            return Ok(());
        }
        self.count += 1;
        if self.count > max {
            return Err(LinkError::Flood { max, seconds: period.as_secs() });
        }
        Ok(())
    }

    /// Something moved, which `frames` others may follow.
    fn earn(&mut self, frames: u32) {
        self.earned = (self.earned + frames).min(EARNED_MAX);
    }
}

#[cfg(test)]
mod tests;
