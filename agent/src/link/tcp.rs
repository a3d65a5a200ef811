//! A TCP stream over the link, or an exchange that left HTTP, as tokio reads and writes it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::{BodySink, LinkBody};
use super::connection::Chunk;
use super::error::{Code, LinkError};

/// The bytes of one connection, carried by a link. Shutting down its write side is a half-close;
/// dropping it before both sides ended resets it.
#[derive(Debug)]
pub struct LinkStream {
    sink: BodySink,
    body: LinkBody,
    /// Taken from the body, not yet read.
    rest: Bytes,
    shut: bool,
}

impl LinkStream {
    /// What both halves of an exchange are once its head was answered with status 101.
    pub fn new(sink: BodySink, body: LinkBody) -> Self {
        Self { sink, body, rest: Bytes::new(), shut: false }
    }

    /// At the client: waits until the instance took the connection. Call it once at most.
    /// Cancel safe.
    ///
    /// # Errors
    /// Why it did not; [`LinkError::unprocessed`] tells whether to try another.
    pub async fn connected(&self) -> Result<(), LinkError> {
        self.body.connected().await
    }

    /// Both halves in chunks, without a copy. Use it before reading.
    pub fn into_parts(self) -> (BodySink, LinkBody) {
        (self.sink, self.body)
    }

    /// Ends the stream, both ways.
    pub fn reset(self, code: Code) {
        self.sink.reset(code);
    }
}

impl LinkStream {
    fn put_rest(&mut self, buf: &mut ReadBuf<'_>) {
        let len = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..len]);
        self.rest.advance(len);
        if self.rest.is_empty() {
            // lets go of the buffer it came in: what comes next may be long in coming
            self.rest = Bytes::new();
        }
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(
        self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            match ready!(this.body.poll_chunk(cx)) {
                Some(Ok(Chunk::Data(data))) => this.rest = data,
                Some(Ok(Chunk::Trailers(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
            }
        }
        this.put_rest(buf);
        // what else is there goes along: one write to the application instead of several
        while buf.remaining() > 0
            && let Poll::Ready(Some(Ok(Chunk::Data(data)))) = this.body.poll_chunk(cx)
        {
            this.rest = data;
            this.put_rest(buf);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(
        self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.sink.poll_room(cx)).map_err(to_io)?;
        let len = room.min(buf.len());
        self.sink.queue(Bytes::copy_from_slice(&buf[..len]), false).map_err(to_io)?;
        Poll::Ready(Ok(len))
    }

    /// The driver sends what is written in the same turn; there is nothing to push.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            self.sink.end().map_err(to_io)?;
            self.shut = true;
        }
        Poll::Ready(Ok(()))
    }
}

fn to_io(error: LinkError) -> io::Error {
    let kind = match &error {
        LinkError::Io(kind) => *kind,
        LinkError::TooSlow(_) | LinkError::Deadline => io::ErrorKind::TimedOut,
        LinkError::Misuse(_) => io::ErrorKind::BrokenPipe,
        _ => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, error)
}
