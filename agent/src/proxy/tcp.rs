//! Copying bytes both ways, until both sides ended, nothing moves, or the connection must close.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::edge::Transport;

/// Bytes in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Copied {
    /// From the caller.
    pub(super) sent: u64,
    /// To the caller.
    pub(super) received: u64,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Both sides were done.
    Done,
    /// One side broke off.
    Broken,
    /// Nothing moved for too long.
    Idle,
    /// Policy or shutdown closed it.
    Closed,
}

impl Ended {
    /// Stable, for logs and metrics.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Broken => "broken",
            Self::Idle => "idle",
            Self::Closed => "closed",
        }
    }
}

/// Copies between `caller` and `callee`, with half-close, until the end.
pub(super) async fn copy<A, B>(
    mut caller: A, mut callee: B, idle: Duration, close: &CancellationToken,
) -> (Copied, Ended)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (sent, received) = (Counter::default(), Counter::default());
    let (mut there, mut back) = (Way::new(), Way::new());
    let mut turn = false;
    let both = poll_fn(|cx| {
        // in turns, or a direction that always has something to copy would starve the other
        turn = !turn;
        let first = if turn {
            there.poll(cx, &mut caller, &mut callee, &sent)?
        } else {
            back.poll(cx, &mut callee, &mut caller, &received)?
        };
        let second = if turn {
            back.poll(cx, &mut callee, &mut caller, &received)?
        } else {
            there.poll(cx, &mut caller, &mut callee, &sent)?
        };
        if first.is_ready() && second.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    });
    let ended = tokio::select! {
        done = both => done.map_or_else(broken, |()| Ended::Done),
        () = stalled(&sent, &received, idle) => Ended::Idle,
        () = close.cancelled() => Ended::Closed,
    };
    (Copied { sent: sent.get(), received: received.get() }, ended)
}

/// A transport whose bytes are counted, and the count.
pub(super) fn counted<T>(io: T) -> (Counted<T>, Moved) {
    let moved = Moved(Arc::default());
    (Counted { io, moved: moved.clone() }, moved)
}

/// See [`counted`].
#[derive(Debug)]
pub(super) struct Counted<T> {
    io: T,
    moved: Moved,
}

/// Bytes that passed in either direction so far.
#[derive(Clone, Debug)]
pub(super) struct Moved(Arc<Counter>);

impl Moved {
    /// Returns once nothing moved for `idle`, and at most twice that.
    pub(super) async fn stalled(&self, idle: Duration) {
        stalled(&self.0, &self.0, idle).await;
    }
}

impl<T: Transport> Transport for Counted<T> {
    fn abort(&self) {
        self.io.abort();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        this.moved.0.add(buf.filled().len() - before);
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(len)) = &wrote {
            this.moved.0.add(*len);
        }
        wrote
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(len)) = &wrote {
            this.moved.0.add(*len);
        }
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

fn broken(error: io::Error) -> Ended {
    tracing::debug!(%error, "one side broke off");
    Ended::Broken
}

/// Bytes so far; one task, so a cell would do but for `Send`.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One direction. At rest it holds no buffer: what is read lies on the stack, until it cannot be
/// written at once.
#[derive(Debug)]
struct Way {
    /// Read, and not yet written.
    rest: BytesMut,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Copying,
    /// The reader's side has ended, the writer's was not told yet.
    Ending,
    Done,
}

impl Way {
    fn new() -> Self {
        Self { rest: BytesMut::new(), stage: Stage::Copying }
    }

    /// Copies what can be copied; ready once the end was.
    fn poll<R, W>(
        &mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W, bytes: &Counter,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            ready!(self.poll_rest(cx, to, bytes))?;
            match self.stage {
                Stage::Done => return Poll::Ready(Ok(())),
                Stage::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.stage = Stage::Done;
                }
                Stage::Copying => {
                    let mut space = [const { MaybeUninit::uninit() }; COPY_SIZE];
                    let mut read = ReadBuf::uninit(&mut space);
                    if Pin::new(&mut *from).poll_read(cx, &mut read)?.is_pending() {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        return Poll::Pending;
                    }
                    let mut found = read.filled();
                    if found.is_empty() {
                        self.stage = Stage::Ending;
                    } else if let Poll::Ready(len) = poll_some(cx, to, found, bytes)? {
                        found.advance(len);
                    }
                    self.rest.extend_from_slice(found);
                }
            }
        }
    }

    fn poll_rest<W: AsyncWrite + Unpin>(
        &mut self, cx: &mut Context<'_>, to: &mut W, bytes: &Counter,
    ) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            let len = ready!(poll_some(cx, to, &self.rest, bytes))?;
            self.rest.advance(len);
            if self.rest.is_empty() {
                self.rest = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Writes some of `found`, and counts it.
fn poll_some<W: AsyncWrite + Unpin>(
    cx: &mut Context<'_>, to: &mut W, found: &[u8], bytes: &Counter,
) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(cx, found))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        len => {
            bytes.add(len);
            Poll::Ready(Ok(len))
        }
    }
}

/// Returns once nothing moved either way for `idle`.
async fn stalled(sent: &Counter, received: &Counter, idle: Duration) {
    let mut before = (0, 0);
    loop {
        tokio::time::sleep(idle).await;
        let now = (sent.get(), received.get());
        if now == before {
            return;
        }
        before = now;
    }
}

/// Bytes of one read.
const COPY_SIZE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn half_close_is_carried_and_bytes_are_counted() {
        let (mut app, caller) = tokio::io::duplex(64);
        let (callee, mut server) = tokio::io::duplex(64);
        let close = CancellationToken::new();
        let copying = async { copy(caller, callee, Duration::from_secs(5), &close).await };
        let talking = async {
            app.write_all(b"ping").await.unwrap();
            app.shutdown().await.unwrap();
            let mut seen = Vec::new();
            server.read_to_end(&mut seen).await.unwrap();
            assert_eq!(seen, b"ping");
            server.write_all(b"pong!").await.unwrap();
            server.shutdown().await.unwrap();
            let mut answer = Vec::new();
            app.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"pong!");
        };
        let ((copied, ended), ()) = tokio::join!(copying, talking);
        assert_eq!(copied, Copied { sent: 4, received: 5 });
        assert_eq!(ended, Ended::Done);
    }

    #[tokio::test]
    async fn closing_ends_an_open_connection() {
        let (_app, caller) = tokio::io::duplex(64);
        let (callee, _server) = tokio::io::duplex(64);
        let close = CancellationToken::new();
        close.cancel();
        let (_, ended) = copy(caller, callee, Duration::from_secs(5), &close).await;
        assert_eq!(ended, Ended::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn b_slow_what_moves_no_byte_is_seen_and_what_drips_is_not() {
        let idle = Duration::from_secs(5);
        let (mut client, io) = tokio::io::duplex(64);
        let (mut io, moved) = counted(io);
        let dripping = async {
            for _ in 0..10 {
                tokio::time::sleep(idle * 4 / 5).await;
                client.write_u8(b'x').await.unwrap();
                io.read_u8().await.unwrap();
            }
        };
        tokio::select! {
            () = dripping => {}
            () = moved.stalled(idle) => panic!("it was not silent"),
        }
        // a reader that takes nothing: what cannot be written moves nothing either
        let writing = async { drop(io.write_all(&[0; 100]).await) };
        let began = tokio::time::Instant::now();
        tokio::select! {
            () = writing => panic!("there is no room for it"),
            () = moved.stalled(idle) => {}
        }
        assert!(began.elapsed() <= idle * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_ends() {
        let (_app, caller) = tokio::io::duplex(64);
        let (callee, _server) = tokio::io::duplex(64);
        let close = CancellationToken::new();
        let (_, ended) = copy(caller, callee, Duration::from_secs(5), &close).await;
        assert_eq!(ended, Ended::Idle);
    }
}
