//! [`Raw`]: a connection whose bytes are nobody's business any more.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::edge::Transport;

/// A connection that left HTTP, or never spoke it.
#[derive(Debug)]
pub struct Raw<IO> {
    io: IO,
    /// What was read behind the last head.
    early: Bytes,
}

impl<IO: Transport> Raw<IO> {
    /// A connection of which nothing was read.
    pub fn new(io: IO) -> Self {
        Self { io, early: Bytes::new() }
    }

    pub(in crate::edge) fn after(io: IO, early: BytesMut) -> Self {
        // an empty one would hold its buffer
        let early = if early.is_empty() { Bytes::new() } else { early.freeze() };
        Self { io, early }
    }
}

impl<IO: Transport> Transport for Raw<IO> {
    fn abort(&self) {
        self.io.abort();
    }
}

impl<IO: Transport> AsyncRead for Raw<IO> {
    fn poll_read(
        self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let len = this.early.len().min(buf.remaining());
        buf.put_slice(this.early.get(..len).unwrap_or_default());
        this.early.advance(len);
        if this.early.is_empty() {
            this.early = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: Transport> AsyncWrite for Raw<IO> {
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
}
