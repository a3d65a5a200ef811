//! [`Conn`]: all that is known of one connection, without its transport.
//!
//! Bytes that were read go in by [`State::receive`]; frames to be written come out of
//! [`State::out`]. Whoever works on it does so under a short lock; its driver moves the bytes.

mod ending;
mod incoming;
mod outgoing;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use http::Request;

use super::budget::Budget;
use super::error::{Code, Fault};
use super::frame::{self, Frame, HEADER_LEN, Header, PREFACE, Settings, WINDOW_LIMIT};
use super::hpack::Decoder;
use super::output::Output;
use super::stream::{Gone, Streams, keep, wake};
use crate::edge::Reject;
use crate::edge::limits::{
    APP_STREAMS_MAX, CONNECTION_WINDOW, ENDED_MAX, FIELDS_BYTES_MAX, STREAM_WINDOW, STREAMS_MAX,
};

/// A connection, shared by its driver and its streams.
pub(super) struct Conn(Mutex<State>);

/// Which side this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

pub(super) struct State {
    role: Role,
    /// What is to be written.
    pub(super) out: Output,
    streams: Streams,
    /// Streams that did not end before their time.
    live: usize,
    decoder: Decoder,
    /// The block of fields that is not whole yet.
    block: Option<Block>,
    greeting: Greeting,
    /// The last stream that was opened.
    last: u32,
    /// Streams that ended, the last ones: the first bit says that it was this side that ended them,
    /// so that more may come on them.
    ended: VecDeque<u32>,
    /// Requests that nobody has taken yet.
    accepted: VecDeque<(u32, Accepted)>,
    /// Bytes that may still come, and those taken that were not allowed anew yet.
    recv_window: i64,
    taken: u32,
    /// Bytes that the other side takes.
    send_window: i64,
    /// The window its streams begin with, and how many it takes at once.
    peer_window: u32,
    peer_streams: usize,
    /// Streams that wait for room, in order.
    queue: VecDeque<u32>,
    /// Streams that were woken for their share of it, and have not taken it.
    granted: usize,
    budget: Budget,
    going: Going,
    over: Option<Over>,
    /// To be woken when something is to be written, unless it is at work.
    driver: Option<Waker>,
    driven: bool,
    /// What waits for a stream to become free.
    pub(super) freed: Option<Arc<tokio::sync::Notify>>,
}

/// How far the two sides have greeted each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    Preface,
    Settings,
    Done,
}

/// Whether new streams are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Going {
    /// They are.
    No,
    /// They are, but the other side was told to stop.
    Announced,
    /// Only up to this one.
    After(u32),
    /// This side, a client, was told to stop.
    Told,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// What came on it is no HTTP/2, or too much of something.
    Refused,
    /// The other side left within something.
    Gone,
    /// It left while nothing was under way.
    Left,
}

/// A request that came.
#[derive(Debug)]
pub(super) enum Accepted {
    Request {
        head: Box<Request<()>>,
        /// It has no body.
        ended: bool,
    },
    /// One that is not served.
    Refused(Reject),
}

/// A block of fields whose frames still come.
struct Block {
    stream: u32,
    bytes: BytesMut,
    frames: usize,
    end_stream: bool,
    /// What is wrong with it anyway.
    fault: Option<&'static str>,
}

/// What a PING carries that asks whether all requests sent before GOAWAY have come.
const DRAINED: [u8; 8] = *b"drained?";

/// Says of a stream that this side ended it.
const BY_US: u32 = 1 << 31;

impl Conn {
    pub(super) fn new(role: Role) -> Arc<Self> {
        let mut state = State {
            role,
            out: Output::default(),
            streams: Streams::default(),
            live: 0,
            decoder: Decoder::new(),
            block: None,
            greeting: if role == Role::Server { Greeting::Preface } else { Greeting::Settings },
            last: 0,
            ended: VecDeque::new(),
            accepted: VecDeque::new(),
            recv_window: i64::from(CONNECTION_WINDOW),
            taken: 0,
            send_window: i64::from(STREAM_WINDOW),
            peer_window: STREAM_WINDOW,
            peer_streams: STREAMS_MAX,
            queue: VecDeque::new(),
            granted: 0,
            budget: Budget::default(),
            going: Going::No,
            over: None,
            driver: None,
            driven: false,
            freed: None,
        };
        if role == Role::Client {
            state.greet();
        }
        Arc::new(Self(Mutex::new(state)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the connection, and lets its driver know if something is to be written, or if there
    /// is nothing to wait for any more.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = work(&mut state);
        let done = state.over.is_some() || (state.is_going() && state.is_resting());
        if !state.driven && (!state.out.is_empty() || state.is_awaited() || done) {
            wake(&mut state.driver);
        }
        result
    }
}

impl State {
    /// Says what this side takes. A server does so once it was greeted.
    fn greet(&mut self) {
        let list = u32::try_from(FIELDS_BYTES_MAX).unwrap_or_default();
        let streams = u32::try_from(STREAMS_MAX).unwrap_or_default();
        let (first, entries): (&[u8], _) = match self.role {
            Role::Server => (&[], [(3, streams), (6, list)]),
            Role::Client => (PREFACE, [(2, 0), (6, list)]),
        };
        self.out.put(|out| {
            out.extend_from_slice(first);
            frame::put_settings(out, &entries);
            frame::put_window_update(out, 0, CONNECTION_WINDOW - STREAM_WINDOW);
        });
    }

    /// From now on the driver is at work: it sees for itself what is to be written.
    pub(super) fn enter(&mut self) {
        self.driven = true;
    }

    /// The driver rests, unless there is something to write.
    pub(super) fn leave(&mut self, cx: &Context<'_>, writes: bool) -> bool {
        let due = writes && !self.out.is_empty();
        if !due {
            self.driven = false;
            keep(&mut self.driver, cx);
        }
        due
    }

    /// Whether nothing is under way.
    pub(super) fn is_resting(&self) -> bool {
        self.streams.is_empty() && self.accepted.is_empty()
    }

    /// Whether the head of a message is under way, or the greeting, or another frame than data;
    /// `cut` is what there is of the next frame.
    pub(super) fn awaits_head(&self, cut: &[u8]) -> bool {
        let greets = self.greeting == Greeting::Settings && self.role == Role::Server;
        let is_data = || Header::read(cut).is_some_and(|header| header.is_data());
        self.block.is_some() || greets || (!cut.is_empty() && !is_data())
    }

    pub(super) fn over(&self) -> Option<Over> {
        self.over
    }

    /// Takes a request that came, and was not given up since.
    pub(super) fn accept(&mut self) -> Option<(u32, Accepted)> {
        while let Some((id, accepted)) = self.accepted.pop_front() {
            if self.streams.get(&id).is_some_and(|stream| stream.gone.is_none()) {
                return Some((id, accepted));
            }
            self.finish(id, Code::No);
        }
        None
    }

    /// Takes all whole frames of `bytes`, and says how many bytes that were. Data may stay where
    /// it is if `whole` holds it.
    pub(super) fn receive(&mut self, bytes: &[u8], whole: Option<&Bytes>) -> usize {
        let mut at = 0;
        while self.over.is_none() {
            let rest = bytes.get(at..).unwrap_or_default();
            match self.next(rest, whole) {
                Ok(0) => return at,
                Ok(len) => at += len,
                Err((len, fault)) => {
                    at += len;
                    self.punish(fault);
                }
            }
        }
        bytes.len()
    }

    /// Takes one frame, or the preface, from `bytes`.
    fn next(&mut self, bytes: &[u8], whole: Option<&Bytes>) -> Result<usize, (usize, Fault)> {
        if self.greeting == Greeting::Preface {
            let begun = PREFACE.get(..bytes.len()).unwrap_or(PREFACE);
            if !bytes.starts_with(begun) {
                return Err((0, protocol("connection does not begin with HTTP/2's preface")));
            }
            if begun.len() < PREFACE.len() {
                return Ok(0);
            }
            self.greeting = Greeting::Settings;
            self.greet();
            return Ok(PREFACE.len());
        }
        let Some(header) = Header::read(bytes) else { return Ok(0) };
        header.check().and_then(|()| self.expect(&header)).map_err(|fault| (0, fault))?;
        let len = HEADER_LEN + header.len;
        let Some(payload) = bytes.get(HEADER_LEN..len) else { return Ok(0) };
        let taken = header.parse(payload).and_then(|frame| self.take(frame, whole));
        taken.map(|()| len).map_err(|fault| (len, fault))
    }

    /// Whether a frame may come now, judged by its first bytes.
    fn expect(&mut self, header: &Header) -> Result<(), Fault> {
        if self.greeting == Greeting::Settings {
            if !header.is_settings() {
                return Err(protocol("the first frame is no SETTINGS"));
            }
            self.greeting = Greeting::Done;
        }
        if self.block.is_some() != header.is_continuation() {
            return Err(protocol("a block of fields is not continued, or was not begun"));
        }
        Ok(())
    }

    fn take(&mut self, frame: Frame<'_>, whole: Option<&Bytes>) -> Result<(), Fault> {
        match frame {
            Frame::Data { stream, data, flow, end } => self.data(stream, data, flow, end, whole),
            Frame::Headers { stream, block, end_stream, end_headers, depends_on } => {
                let itself = depends_on == Some(stream);
                let fault = itself.then_some("a stream depends on itself");
                self.headers(stream, block, end_stream, end_headers, fault)
            }
            Frame::Continuation { stream, block, end_headers } => {
                self.continuation(stream, block, end_headers)
            }
            Frame::Priority { stream, depends_on } => {
                self.budget.frame()?;
                if stream == depends_on {
                    let why = "a stream depends on itself";
                    return Err(Fault::stream(stream, Code::Protocol, why));
                }
                Ok(())
            }
            Frame::Reset { stream, code } => self.reset_by_peer(stream, code),
            Frame::Settings(settings) => self.settings(&settings),
            Frame::SettingsAck | Frame::Unknown => self.budget.frame(),
            Frame::Ping { ack: true, payload } => {
                self.budget.frame()?;
                if payload == DRAINED && self.going == Going::Announced {
                    self.go();
                }
                Ok(())
            }
            Frame::Ping { ack: false, payload } => {
                self.budget.frame()?;
                self.out.put(|out| frame::put_ping(out, payload, true));
                Ok(())
            }
            Frame::GoAway { last, code } => self.told_to_go(last, code),
            Frame::WindowUpdate { stream, increment } => {
                self.budget.frame()?;
                self.window_update(stream, increment)
            }
        }
    }

    fn settings(&mut self, settings: &Settings) -> Result<(), Fault> {
        self.budget.frame()?;
        if let Some(streams) = settings.streams {
            self.peer_streams = usize::try_from(streams).unwrap_or(usize::MAX);
        }
        if let Some(window) = settings.window {
            let change = i64::from(window) - i64::from(self.peer_window);
            self.peer_window = window;
            for stream in self.streams.values_mut() {
                stream.window += change;
                if stream.window > i64::from(WINDOW_LIMIT) {
                    let why = "a window is over 2^31-1";
                    return Err(Fault::connection(Code::FlowControl, why));
                }
                if stream.window > 0 {
                    wake(&mut stream.sender);
                }
            }
        }
        self.out.put(frame::put_settings_ack);
        self.notify_freed();
        Ok(())
    }

    /// Ends what the fault says.
    fn punish(&mut self, fault: Fault) {
        match fault {
            Fault::Connection { code, why } => self.fail(code, why),
            Fault::Stream { id, code, why } if self.is_idle(id) => self.fail(code, why),
            Fault::Stream { id, code, why } => {
                tracing::debug!(stream = id, why, "stream ended for what came on it");
                self.reset(id, code, Gone::Malformed(why));
                if let Err(Fault::Connection { code, why }) = self.budget.reset() {
                    self.fail(code, why);
                }
            }
        }
    }

    /// Whether a stream was never opened. One that came too late was, though it was not taken.
    fn is_idle(&self, id: u32) -> bool {
        id.is_multiple_of(2) || (id > self.last && !self.is_late(id))
    }

    fn is_late(&self, id: u32) -> bool {
        self.role == Role::Server && id > self.last && matches!(self.going, Going::After(_))
    }

    /// How a stream ended that is no more: by this side, or as it should; or it was skipped.
    fn how_ended(&self, id: u32) -> Option<bool> {
        let ended = self.ended.iter().rev().find(|ended| *ended & !BY_US == id)?;
        Some(ended & BY_US != 0)
    }

    /// Forgets a stream.
    pub(super) fn forget(&mut self, id: u32, by_us: bool) {
        let Some(mut stream) = self.streams.remove(&id) else { return };
        let unread = stream.incoming.discard();
        if stream.gone.is_none() {
            self.live -= 1;
        }
        self.granted -= usize::from(stream.granted);
        self.taken += unread;
        self.allow();
        self.remember(id, by_us);
        self.notify_freed();
        if self.streams.is_empty() {
            // what rests holds no more than it must
            self.streams = Streams::default();
            (self.queue, self.accepted) = (VecDeque::new(), VecDeque::new());
        }
    }

    fn remember(&mut self, id: u32, by_us: bool) {
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(if by_us { id | BY_US } else { id });
    }

    fn notify_freed(&self) {
        if let Some(freed) = &self.freed {
            freed.notify_waiters();
        }
    }

    /// Whether the other side has said what it takes.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeting == Greeting::Done
    }

    /// Whether a client may open one more stream.
    pub(super) fn has_room(&self) -> bool {
        self.over.is_none()
            && self.is_greeted()
            && self.going == Going::No
            && self.live < self.peer_streams.min(APP_STREAMS_MAX)
            && self.last < WINDOW_LIMIT - 2
    }
}

fn protocol(why: &'static str) -> Fault {
    Fault::connection(Code::Protocol, why)
}
