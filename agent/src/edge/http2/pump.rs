//! [`Pump`]: moves the bytes of one connection between its transport and its state.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::ReadBuf;
use tokio_util::io::poll_read_buf;

use super::clock::{Clock, Timing};
use super::conn::{Conn, Over, Role};
use super::output::Output;
use crate::edge::Transport;
use crate::edge::limits::{
    FRAMES_READ_SIZE, LINGER_BYTES_MAX, OWED_MAX, READ_LEAST, READ_SIZE, ROUNDS_MAX,
};

/// A connection and its transport.
pub(super) struct Pump<IO> {
    io: IO,
    pub(super) conn: Arc<Conn>,
    /// The begin of a frame whose rest has not come.
    input: BytesMut,
    /// What is being written.
    output: Output,
    clock: Clock,
    /// Nothing more is written: bytes that were thrown away since.
    closing: Option<usize>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing was under way.
    Resting,
    /// The other side left, or takes nothing any more.
    Gone,
    /// What it sent is not taken.
    Refused,
}

impl<IO: Transport> Pump<IO> {
    pub(super) fn new(io: IO, role: Role, timing: Timing) -> Self {
        Self {
            io,
            conn: Conn::new(role),
            input: BytesMut::new(),
            output: Output::default(),
            clock: Clock::new(timing),
            closing: None,
        }
    }

    /// Tells the other side that the connection will end; what is on its way is still taken.
    pub(super) fn drain(&mut self) {
        if self.clock.drain() {
            self.conn.lock().announce();
        }
    }

    /// Moves bytes until there is nothing to move, having `work` use them in between; ready once
    /// the connection is over.
    pub(super) fn poll(
        &mut self, cx: &mut Context<'_>, mut work: impl FnMut(&mut Context<'_>),
    ) -> Poll<Ended> {
        if self.poll_rounds(cx, &mut work) {
            cx.waker().wake_by_ref();
        }
        if let Some(ended) = self.over() {
            return self.poll_close(cx).map(|()| ended);
        }
        if self.clock.poll(&mut self.conn.lock(), &self.input, cx) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Reads, works and writes in turns; whether there may be more to do at once.
    fn poll_rounds(
        &mut self, cx: &mut Context<'_>, work: &mut impl FnMut(&mut Context<'_>),
    ) -> bool {
        self.conn.lock().enter();
        for _ in 0..ROUNDS_MAX {
            let more = self.poll_read(cx);
            work(cx);
            let flushed = self.poll_write(cx);
            let mut state = self.conn.lock();
            let granted = flushed && state.grant();
            if !more && !granted && !state.leave(cx, flushed) {
                return false;
            }
        }
        self.conn.lock().leave(cx, false);
        true
    }

    /// Feeds what the transport has to the connection; whether there may be more.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        {
            let state = self.conn.lock();
            let owed = self.output.len() + state.out.len();
            if owed > OWED_MAX || state.over().is_some() || self.closing.is_some() {
                return false;
            }
        }
        let read = if self.input.is_empty() { self.read_whole(cx) } else { self.read_on(cx) };
        match read {
            Poll::Pending => false,
            Poll::Ready(Ok(1..)) => true,
            Poll::Ready(Ok(0) | Err(_)) => {
                self.conn.lock().left();
                false
            }
        }
    }

    /// Reads while no frame is cut: nothing is held while it is waited for.
    fn read_whole(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [const { MaybeUninit::uninit() }; FRAMES_READ_SIZE];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        let bytes = read.filled();
        let taken = self.conn.lock().receive(bytes, None);
        self.input.extend_from_slice(bytes.get(taken..).unwrap_or_default());
        Poll::Ready(Ok(bytes.len()))
    }

    /// Reads on behind the begin of a frame. Data stays in the buffer that it is read into.
    fn read_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() - self.input.len() < READ_LEAST {
            self.input.reserve(READ_SIZE);
        }
        let len = ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input))?;
        let whole = self.input.split().freeze();
        let taken = self.conn.lock().receive(&whole, Some(&whole));
        // what follows is read behind it, into the same buffer unless data was left in it
        self.input = match whole.try_into_mut() {
            Ok(mut whole) => {
                whole.advance(taken);
                whole
            }
            Err(whole) => BytesMut::from(whole.get(taken..).unwrap_or_default()),
        };
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        Poll::Ready(Ok(len))
    }

    /// Writes what there is; whether all of it was.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            if self.output.is_empty() {
                self.output = std::mem::take(&mut self.conn.lock().out);
            }
            if self.output.is_empty() {
                self.clock.moved();
                return !matches!(Pin::new(&mut self.io).poll_flush(cx), Poll::Ready(Err(_)));
            }
            let (slices, count) = self.output.slices();
            let slices = slices.get(..count).unwrap_or_default();
            match Pin::new(&mut self.io).poll_write_vectored(cx, slices) {
                Poll::Ready(Ok(len @ 1..)) => {
                    self.clock.moved();
                    self.output.advance(len);
                }
                Poll::Pending => {
                    self.clock.stuck();
                    return false;
                }
                Poll::Ready(Ok(_) | Err(_)) => {
                    self.output = Output::default();
                    self.conn.lock().left();
                    return false;
                }
            }
        }
    }

    /// Whether the connection is over, and how.
    fn over(&self) -> Option<Ended> {
        let state = self.conn.lock();
        match state.over() {
            Some(Over::Refused) => Some(Ended::Refused),
            Some(Over::Gone) => Some(Ended::Gone),
            Some(Over::Left) => Some(Ended::Resting),
            None if state.is_going() && state.is_resting() => Some(Ended::Resting),
            None => None,
        }
    }

    /// Says that nothing more comes, and throws away what still does for a while: closed at once,
    /// the kernel would answer it with a reset, and the last frames might be lost.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let gone = matches!(self.conn.lock().over(), Some(Over::Gone | Over::Left));
        if gone || self.clock.poll_closing(cx).is_ready() {
            return Poll::Ready(());
        }
        if self.closing.is_none() {
            if !self.output.is_empty() {
                return Poll::Pending;
            }
            if ready!(Pin::new(&mut self.io).poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            self.closing = Some(0);
        }
        let mut space = [const { MaybeUninit::uninit() }; FRAMES_READ_SIZE];
        loop {
            let mut read = ReadBuf::uninit(&mut space);
            let thrown = self.closing.get_or_insert(0);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() && *thrown < LINGER_BYTES_MAX => {
                    *thrown += read.filled().len();
                }
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}
