//! [`Stream`]: one request and its answer on a connection.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use http::Response;
use http::header::HeaderMap;
use tokio::time::Instant;

use super::error::Code;
use crate::edge::limits::{SHARE, SLICED_LEAST, STREAM_WINDOW};

/// A stream, from its head to the end of both its bodies.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) incoming: Incoming,
    /// Bytes that the other side takes; below nothing after it made its window smaller.
    pub(super) window: i64,
    /// The head of an answer was put.
    pub(super) answered: bool,
    /// The end of what is sent was put.
    pub(super) sent: bool,
    /// Waits for room, for an answer's head, or for the stream's end.
    pub(super) sender: Option<Waker>,
    /// Stands in the queue of those who wait for room.
    pub(super) queued: bool,
    /// Was woken for its share, and has not taken it.
    pub(super) granted: bool,
    /// Bytes it may still gather while others wait.
    pub(super) share: usize,
    /// Since when the other side's windows leave no room.
    pub(super) stalled: Option<Instant>,
    /// How it ended before its time.
    pub(super) gone: Option<Gone>,
    /// It was the other side that did.
    pub(super) by_peer: bool,
    /// The answer's head, until somebody takes it; of a client's stream.
    pub(super) head: Option<Box<Response<()>>>,
    pub(super) expects: Expects,
}

/// Which fields come next on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expects {
    /// The head of an answer, after so many preliminary ones; to a HEAD request?
    Head {
        informed: usize,
        bodiless: bool,
    },
    Trailers,
}

/// Why a stream is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// The other side, or what it did, ended it.
    Reset(Code),
    /// What came on it is no message.
    Malformed(&'static str),
    /// The other side surely has not looked at it.
    Unseen,
    /// The connection ended.
    Closed,
}

/// What comes on a stream.
#[derive(Debug)]
pub(super) struct Incoming {
    parts: VecDeque<Bytes>,
    /// What comes last, in small parts.
    tail: BytesMut,
    pub(super) trailers: Option<HeaderMap>,
    /// All of it came.
    pub(super) ended: bool,
    /// Somebody reads it.
    pub(super) wanted: bool,
    /// Bytes that may still come.
    pub(super) window: i64,
    /// Bytes that were taken and not allowed anew yet.
    pub(super) taken: u32,
    /// Bytes of data still to come, if a length was declared.
    pub(super) declared: Option<u64>,
    pub(super) reader: Option<Waker>,
}

impl Stream {
    pub(super) fn new(window: i64, declared: Option<u64>, ended: bool, expects: Expects) -> Self {
        Self {
            incoming: Incoming {
                parts: VecDeque::new(),
                tail: BytesMut::new(),
                trailers: None,
                ended,
                wanted: true,
                window: i64::from(STREAM_WINDOW),
                taken: 0,
                declared,
                reader: None,
            },
            window,
            answered: false,
            sent: false,
            sender: None,
            queued: false,
            granted: false,
            share: SHARE,
            stalled: None,
            gone: None,
            by_peer: false,
            head: None,
            expects,
        }
    }

    /// Ends it before its time; what came on it so far is dropped.
    pub(super) fn end(&mut self, gone: Gone) {
        self.gone.get_or_insert(gone);
        self.incoming.discard();
        wake(&mut self.sender);
        wake(&mut self.incoming.reader);
    }
}

impl Incoming {
    /// Adds data; if it lies in `whole`, it may stay there.
    pub(super) fn push(&mut self, data: &[u8], whole: Option<&Bytes>) {
        match whole.filter(|_| data.len() >= SLICED_LEAST) {
            Some(whole) => {
                if !self.tail.is_empty() {
                    self.parts.push_back(self.tail.split().freeze());
                }
                self.parts.push_back(whole.slice_ref(data));
            }
            None => self.tail.extend_from_slice(data),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let tail = |tail: &mut BytesMut| (!tail.is_empty()).then(|| std::mem::take(tail).freeze());
        self.parts.pop_front().or_else(|| tail(&mut self.tail))
    }

    /// Whether all of it came, and was taken.
    pub(super) fn is_over(&self) -> bool {
        self.ended && self.parts.is_empty() && self.tail.is_empty() && self.trailers.is_none()
    }

    /// Throws away what came, and says how many bytes it was.
    pub(super) fn discard(&mut self) -> u32 {
        let mut len = 0;
        while let Some(part) = self.pop() {
            len += part.len();
        }
        self.trailers = None;
        u32::try_from(len).unwrap_or(u32::MAX)
    }
}

/// Remembers who waits.
pub(super) fn keep(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

/// Wakes who waits.
pub(super) fn wake(place: &mut Option<Waker>) {
    if let Some(waker) = place.take() {
        waker.wake();
    }
}

/// The streams of a connection by their numbers.
pub(super) type Streams = HashMap<u32, Stream, BuildHasherDefault<IdHasher>>;

/// Spreads numbers that follow each other. There are few at a time: nobody gains by choosing them.
#[derive(Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
