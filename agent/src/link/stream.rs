//! One stream: what waits to be sent, what waits to be read, and who waits for either.

use std::collections::VecDeque;
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::error::LinkError;
use super::head::ResponseHead;
use super::limits::CHUNK_COST;

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) tcp: bool,
    pub(super) opened_at: Option<Instant>,
    /// Informational heads so far.
    pub(super) informed: u8,
    pub(super) send: Send,
    pub(super) recv: Recv,
    /// Set once the stream ended other than by both sides' END.
    pub(super) failed: Option<LinkError>,
    /// Counts as open between the two sides.
    pub(super) active: bool,
}

/// The outgoing half.
#[derive(Debug)]
pub(super) struct Send {
    /// Heads in the order to send: kind, payload, and whether it is the end.
    pub(super) heads: VecDeque<(u8, Bytes, bool)>,
    pub(super) data: VecDeque<Bytes>,
    /// Bytes in `data`, plus [`CHUNK_COST`] for each chunk.
    pub(super) queued: usize,
    pub(super) tail: Tail,
    /// The peer's credit.
    pub(super) window: u32,
    /// A final head was given: body may follow. A client's OPEN is one.
    pub(super) headed: bool,
    /// Is in a queue of the connection.
    pub(super) listed: bool,
    pub(super) released: bool,
    pub(super) waker: Option<Waker>,
}

/// What follows the queued data.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// More may be given.
    Open,
    /// END is owed.
    End,
    /// TRAILERS with this payload are owed.
    Trailers(Bytes),
    /// END was sent.
    Sent,
}

/// The incoming half.
#[derive(Debug)]
pub(super) struct Recv {
    pub(super) heads: VecDeque<ResponseHead>,
    /// A final head arrived: body may follow. A server has it with OPEN.
    pub(super) headed: bool,
    pub(super) data: Unread,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) ended: bool,
    /// Credit the peer still has.
    pub(super) window: u32,
    /// What the window is filled up to.
    pub(super) target: u32,
    pub(super) released: bool,
    pub(super) waker: Option<Waker>,
}

impl Stream {
    pub(super) fn new(tcp: bool, send_window: u32, recv_window: u32) -> Self {
        Self {
            tcp,
            opened_at: None,
            informed: 0,
            send: Send {
                heads: VecDeque::new(),
                data: VecDeque::new(),
                queued: 0,
                tail: Tail::Open,
                window: send_window,
                headed: false,
                listed: false,
                released: false,
                waker: None,
            },
            recv: Recv {
                heads: VecDeque::new(),
                headed: false,
                data: Unread::default(),
                trailers: None,
                ended: false,
                window: recv_window,
                target: recv_window,
                released: false,
                waker: None,
            },
            failed: None,
            active: true,
        }
    }

    /// Whether neither side owes the other a byte.
    pub(super) fn over(&self) -> bool {
        self.failed.is_some() || (self.recv.ended && self.send.tail == Tail::Sent)
    }

    /// Whether nobody here holds it and nobody there needs it.
    pub(super) fn forgettable(&self) -> bool {
        self.over() && self.send.released && self.recv.released
    }

    pub(super) fn wake(&mut self) {
        self.send.wake();
        self.recv.wake();
    }
}

impl Send {
    pub(super) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.queued += chunk.len() + CHUNK_COST;
            self.data.push_back(chunk);
        }
    }

    /// Whether a frame could leave, the connection's window aside.
    pub(super) fn sendable(&self) -> bool {
        !self.heads.is_empty()
            || if self.data.is_empty() {
                matches!(self.tail, Tail::End | Tail::Trailers(_))
            } else {
                self.window > 0
            }
    }

    /// Whether the next frame needs credit of the connection.
    pub(super) fn needs_credit(&self) -> bool {
        self.heads.is_empty() && !self.data.is_empty()
    }

    /// Moves the first `len` bytes of the queue, which must hold them, to `out`.
    pub(super) fn drain(&mut self, mut len: usize, out: &mut BytesMut) {
        while len > 0 {
            let Some(chunk) = self.data.front_mut() else {
                debug_assert!(false, "asked for more than is queued");
                return;
            };
            let part = len.min(chunk.len());
            out.extend_from_slice(&chunk[..part]);
            chunk.advance(part);
            self.queued -= part;
            len -= part;
            if chunk.is_empty() {
                self.data.pop_front();
                self.queued -= CHUNK_COST;
            }
        }
    }

    /// Payload bytes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.queued - self.data.len() * CHUNK_COST
    }

    pub(super) fn clear(&mut self) {
        self.heads.clear();
        self.data = VecDeque::new();
        self.queued = 0;
    }

    pub(super) fn park(&mut self, cx: &Context<'_>) {
        park(&mut self.waker, cx);
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Recv {
    pub(super) fn park(&mut self, cx: &Context<'_>) {
        park(&mut self.waker, cx);
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Credit to give back once it is worth a frame, when the window may be `target` wide.
    pub(super) fn due(&self, target: u32) -> Option<u32> {
        if self.ended {
            return None;
        }
        let unread = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        let due = target.saturating_sub(self.window.saturating_add(unread));
        (due > 0 && due >= target / 2).then_some(due)
    }
}

fn park(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

/// Received bytes in order. Small chunks are gathered, so that what a stalled reader costs
/// follows the bytes it holds and not the frames they came in.
#[derive(Debug, Default)]
pub(super) struct Unread {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl Unread {
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.len += chunk.len();
        let gather = chunk.len() < SMALL && !(self.is_only(&chunk));
        if gather {
            self.tail.extend_from_slice(&chunk);
            if self.tail.len() < GATHERED {
                return;
            }
        }
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail).freeze();
            self.chunks.push_back(tail);
        }
        if !gather && !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
    }

    /// The usual case, a reader that keeps up, needs no second copy.
    fn is_only(&self, chunk: &Bytes) -> bool {
        self.len == chunk.len()
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let chunk = match self.chunks.pop_front() {
            Some(chunk) => chunk,
            None if self.tail.is_empty() => return None,
            None => std::mem::take(&mut self.tail).freeze(),
        };
        self.len -= chunk.len();
        Some(chunk)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Drops all; says how many bytes there were.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(self).len
    }
}

/// Chunks under this are gathered ...
const SMALL: usize = 4 << 10;
/// ... into chunks of about this.
const GATHERED: usize = 16 << 10;
