//! [`Conn`]: a transport with what was read and not yet taken, and what is to be written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Frame;
use tokio::io::ReadBuf;
use tokio_util::io::poll_read_buf;

use super::answer::Ending;
use super::chunked::{Chunked, Step};
use super::raw::Raw;
use crate::edge::Transport;
use crate::edge::body::{BodyError, Source};
use crate::edge::framing::Framing;
use crate::edge::limits::{
    COPIED_MAX, GATHERED_MAX, HEAD_READ_SIZE, PIPELINED_MAX, READ_LEAST, READ_SIZE,
};

/// A connection, shared with the body that is read from it.
pub(super) struct Conn<IO>(Mutex<State<IO>>);

/// Reading and writing do not share a waker: a body may be read by another task than the one that
/// writes.
pub(super) struct State<IO> {
    pub(super) io: IO,
    /// Read and not yet taken.
    pub(super) input: BytesMut,
    pub(super) output: Output,
    body: Remaining,
    /// Counts exchanges, so that the body of an earlier one takes nothing of a later.
    turn: u64,
    /// `100 Continue` is owed before the body is waited for.
    continues: bool,
    /// Waits for the body: to be woken when it gives nothing any more.
    reader: Option<Waker>,
    /// Waits for the client to leave: to be woken once the body was read.
    watcher: Option<Waker>,
}

/// What is still to come of the body under way.
#[derive(Debug)]
enum Remaining {
    Nothing,
    Length(u64),
    Chunked(Chunked),
    /// All until the other side closes.
    Close,
    /// It can no longer be read.
    Failed(BodyError),
}

/// What is to be written, in this order.
#[derive(Debug, Default)]
pub(super) struct Output {
    first: BytesMut,
    /// Data that is written where it lies.
    data: Bytes,
    then: BytesMut,
}

impl Output {
    /// Where what is copied goes.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        if self.data.is_empty() { &mut self.first } else { &mut self.then }
    }

    /// Adds data; large data is not copied. At most one call between two flushes once
    /// [`Output::is_full`].
    pub(super) fn data(&mut self, data: Bytes) {
        if data.len() < COPIED_MAX || !self.data.is_empty() {
            self.buffer().extend_from_slice(&data);
        } else {
            self.data = data;
        }
    }

    /// Whether to write before more is added.
    pub(super) fn is_full(&self) -> bool {
        !self.data.is_empty() || self.first.len() >= GATHERED_MAX
    }

    fn slices(&self) -> [IoSlice<'_>; 3] {
        [IoSlice::new(&self.first), IoSlice::new(&self.data), IoSlice::new(&self.then)]
    }

    fn advance(&mut self, mut len: usize) {
        let first = len.min(self.first.len());
        self.first.advance(first);
        len -= first;
        let data = len.min(self.data.len());
        self.data.advance(data);
        if self.data.is_empty() {
            // lets go of the buffer it was read into
            self.data = Bytes::new();
        }
        self.then.advance(len - data);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.data.is_empty() && self.then.is_empty()
    }
}

impl<IO: Transport> Conn<IO> {
    pub(super) fn new(io: IO) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State::new(io))))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<IO>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is once it left HTTP; nothing while somebody still reads a body from it.
    pub(super) fn into_raw(self: Arc<Self>) -> Option<Raw<IO>> {
        let state = Arc::into_inner(self)?.0.into_inner();
        Some(state.unwrap_or_else(PoisonError::into_inner).into_raw())
    }
}

impl<IO: Transport> Source for Conn<IO> {
    fn poll_part(
        &self, turn: u64, cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.lock();
        if state.turn != turn {
            return Poll::Ready(Some(Err(BodyError::Incomplete)));
        }
        let Poll::Ready(part) = state.poll_body(cx) else {
            keep(&mut state.reader, cx);
            return Poll::Pending;
        };
        if let Some(Err(error)) = &part {
            state.body = Remaining::Failed(*error);
        }
        if !state.is_read_from() {
            wake(&mut state.watcher);
        }
        Poll::Ready(part)
    }

    fn malformed(&self, turn: u64) -> Option<&'static str> {
        let state = self.lock();
        state.malformed().filter(|_| state.turn == turn)
    }
}

fn keep(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

fn wake(place: &mut Option<Waker>) {
    if let Some(waker) = place.take() {
        waker.wake();
    }
}

impl<IO: Transport> State<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            output: Output::default(),
            body: Remaining::Nothing,
            turn: 0,
            continues: false,
            reader: None,
            watcher: None,
        }
    }

    /// Expects a body that ends as `ending` says.
    pub(super) fn receives(&mut self, ending: Ending) {
        self.body = match ending {
            Ending::None | Ending::Length(0) => Remaining::Nothing,
            Ending::Length(length) => Remaining::Length(length),
            Ending::Chunked => Remaining::Chunked(Chunked::new()),
            Ending::Close => Remaining::Close,
        };
    }

    /// Whether the body was read to its end.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.body, Remaining::Nothing)
    }

    /// Whether more of the body can be read.
    fn is_read_from(&self) -> bool {
        !matches!(self.body, Remaining::Nothing | Remaining::Failed(_))
    }

    /// What is wrong with the body, if its framing is broken.
    pub(super) fn malformed(&self) -> Option<&'static str> {
        match self.body {
            Remaining::Failed(BodyError::Malformed(why)) => Some(why),
            _ => None,
        }
    }

    /// Whether nothing is to be read or written any more, and nothing came that nobody asked for.
    pub(super) fn is_at_rest(&self) -> bool {
        self.is_read() && self.input.is_empty() && self.output.is_empty()
    }

    /// Begins an exchange whose request has a body of this framing; the exchange's number.
    pub(super) fn begin(&mut self, framing: Framing, continues: bool) -> u64 {
        self.turn += 1;
        self.continues = continues && self.input.is_empty();
        self.body = match framing {
            Framing::None => Remaining::Nothing,
            Framing::Length(length) => Remaining::Length(length),
            Framing::Chunked => Remaining::Chunked(Chunked::new()),
        };
        self.turn
    }

    /// Ends the exchange: its body gives nothing any more. Whether all of it was read.
    pub(super) fn finish(&mut self) -> bool {
        self.turn += 1;
        wake(&mut self.reader);
        self.is_read()
    }

    /// From now on an answer is under way, and `100 Continue` comes too late.
    pub(super) fn answers(&mut self) {
        self.continues = false;
    }

    /// Reads at rest, into a buffer on the stack: what rests holds none.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [const { std::mem::MaybeUninit::uninit() }; HEAD_READ_SIZE];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        self.input.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Ready once the client is gone. Takes what further requests it sends meanwhile, within
    /// bounds; while a body is still to be read, its reader sees the end.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_read_from() {
            keep(&mut self.watcher, cx);
            return Poll::Pending;
        }
        if matches!(self.body, Remaining::Failed(BodyError::Incomplete)) {
            return Poll::Ready(());
        }
        while self.is_read() && self.input.len() < PIPELINED_MAX {
            match ready!(self.poll_read(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Writes what is to be written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let slices = self.output.slices();
            match ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => self.output.advance(len),
            }
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// The connection as it is outside of HTTP. What was to be written must have been.
    pub(super) fn into_raw(self) -> Raw<IO> {
        debug_assert!(self.output.is_empty(), "the last head was sent");
        Raw::after(self.io, self.input)
    }

    /// Gives the memory of empty buffers back.
    pub(super) fn rest(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        self.output = Output::default();
    }

    pub(super) fn poll_body(
        &mut self, cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match &mut self.body {
                Remaining::Nothing => return Poll::Ready(None),
                Remaining::Failed(error) => return Poll::Ready(Some(Err(*error))),
                Remaining::Length(left) if !self.input.is_empty() => {
                    let len = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
                    let data = self.input.split_to(len).freeze();
                    *left -= len as u64;
                    if *left == 0 {
                        self.body = Remaining::Nothing;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Remaining::Close if !self.input.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(self.input.split().freeze()))));
                }
                Remaining::Length(_) | Remaining::Close => {}
                Remaining::Chunked(chunked) => match chunked.step(&mut self.input) {
                    Ok(Step::More) => {}
                    Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(Step::End(trailers)) => {
                        self.body = Remaining::Nothing;
                        return Poll::Ready(trailers.map(|fields| Ok(Frame::trailers(fields))));
                    }
                    Err(why) => return Poll::Ready(Some(Err(BodyError::Malformed(why)))),
                },
            }
            match (ready!(self.poll_more(cx)), &self.body) {
                (Ok(1..), _) => {}
                (Ok(0), Remaining::Close) => self.body = Remaining::Nothing,
                (Ok(0) | Err(_), _) => return Poll::Ready(Some(Err(BodyError::Incomplete))),
            }
        }
    }

    /// Reads more of the body, having told the client that it is wanted.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.continues {
            if self.output.is_empty() {
                self.output.buffer().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            match self.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.continues = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // the rest of it goes out once there is room, or before the answer
                Poll::Pending => {}
            }
        }
        // parts of a body share a buffer until it is full, or a byte at a time would take one each
        if self.input.capacity() - self.input.len() < READ_LEAST {
            self.input.reserve(READ_SIZE);
        }
        let read = poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input);
        // one that is waited for may be waited for long: it holds no buffer, if nobody shares it
        if read.is_pending() && self.input.is_empty() && self.input.try_reclaim(READ_SIZE) {
            self.input = BytesMut::new();
        }
        read
    }
}
