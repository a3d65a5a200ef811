//! [`ReadAhead`]: what a socket has, in one read.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits::AHEAD_SIZE;

/// A transport below TLS, which asks for 4 KiB at a time whatever the socket holds: each would be a
/// system call. Nothing is held while it rests.
#[derive(Debug)]
pub struct ReadAhead<IO> {
    io: IO,
    /// Read, and not yet asked for.
    rest: BytesMut,
}

impl<IO> ReadAhead<IO> {
    /// Reads from `io`, which must be used through this from now on.
    pub fn new(io: IO) -> Self {
        Self { io, rest: BytesMut::new() }
    }

    /// The transport itself.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for ReadAhead<IO> {
    fn poll_read(
        self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            let mut space = [const { MaybeUninit::uninit() }; AHEAD_SIZE];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            let (now, rest) = read.filled().split_at(read.filled().len().min(buf.remaining()));
            buf.put_slice(now);
            this.rest.extend_from_slice(rest);
            return Poll::Ready(Ok(()));
        }
        let len = this.rest.len().min(buf.remaining());
        buf.put_slice(&this.rest[..len]);
        this.rest.advance(len);
        if this.rest.is_empty() {
            this.rest = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for ReadAhead<IO> {
    fn poll_write(
        self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
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
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_read_ahead_comes_in_order_and_then_the_end() {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let sent: Vec<u8> =
            (0..300_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        near.write_all(&sent).await.unwrap();
        drop(near);
        let mut ahead = ReadAhead::new(far);
        let (mut seen, mut size) = (Vec::new(), 1);
        loop {
            // sizes below and above what one read brings
            size = size * 7 % 100_003;
            let mut part = vec![0; size];
            let len = ahead.read(&mut part).await.unwrap();
            if len == 0 {
                break;
            }
            seen.extend_from_slice(&part[..len]);
        }
        assert!(seen == sent, "{} bytes of {}", seen.len(), sent.len());
        assert_eq!(ahead.rest.capacity(), 0, "nothing is held at the end");
    }
}
