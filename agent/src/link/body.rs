//! Bodies in both directions, in the terms of `http_body`.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::time::Instant;

use super::connection::Chunk;
use super::error::{Code, LinkError};
use super::handle::{RecvHalf, SendHalf};

/// A body that arrives over the link. What is not read holds back its own sender only.
///
/// Dropped early it cancels the exchange at the client; at the server what still comes is dropped.
#[derive(Debug)]
pub struct LinkBody {
    half: RecvHalf,
}

impl LinkBody {
    pub(super) fn new(half: RecvHalf) -> Self {
        Self { half }
    }

    /// The next part; none after the last. Cancel safe.
    ///
    /// # Errors
    /// Why the stream ended before its end.
    pub async fn chunk(&mut self) -> Option<Result<Chunk, LinkError>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    pub(super) fn poll_chunk(&self, cx: &Context<'_>) -> Poll<Option<Result<Chunk, LinkError>>> {
        self.half.shared.with(|connection| connection.poll_chunk(self.half.id, cx))
    }

    /// The next head, on a TCP stream of the client.
    pub(super) async fn connected(&self) -> Result<(), LinkError> {
        let Self { half } = self;
        poll_fn(|cx| half.shared.with(|connection| connection.poll_head(half.id, cx)))
            .await
            .map(drop)
    }
}

impl Body for LinkBody {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        self: Pin<&mut Self>, cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        self.poll_chunk(cx).map_ok(|chunk| match chunk {
            Chunk::Data(data) => Frame::data(data),
            Chunk::Trailers(trailers) => Frame::trailers(trailers),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.half.shared.with(|connection| connection.drained(self.half.id))
    }
}

/// Sends a body. Dropped before it is finished it resets the stream.
#[derive(Debug)]
pub struct BodySink {
    half: SendHalf,
}

/// Why a body was not sent to its end. The stream was reset.
#[derive(Debug, thiserror::Error)]
pub enum SendBodyError<E> {
    /// The link or its peer ended the stream.
    #[error("cannot send the body over the link")]
    Link(#[source] LinkError),
    /// The body itself failed.
    #[error("cannot read the body to send")]
    Body(#[source] E),
}

impl BodySink {
    pub(super) fn new(half: SendHalf) -> Self {
        Self { half }
    }

    /// Sends `data`, waiting while the stream's queue is full: put a deadline around it, or use
    /// [`Self::send_by`]. Not cancel safe: a part may be queued.
    ///
    /// # Errors
    /// Why the stream ended.
    pub async fn send(&mut self, mut data: Bytes) -> Result<(), LinkError> {
        while !data.is_empty() {
            let room = poll_fn(|cx| self.poll_room(cx)).await?;
            let part = data.split_to(room.min(data.len()));
            self.queue(part, false)?;
        }
        Ok(())
    }

    /// [`Self::send`] until `deadline`.
    ///
    /// # Errors
    /// [`LinkError::Deadline`], after which only a reset makes sense; or why the stream ended.
    pub async fn send_by(&mut self, data: Bytes, deadline: Instant) -> Result<(), LinkError> {
        match tokio::time::timeout_at(deadline, self.send(data)).await {
            Ok(sent) => sent,
            Err(_) => Err(LinkError::Deadline),
        }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// Why the stream ended before.
    pub fn finish(self) -> Result<(), LinkError> {
        self.end()
    }

    /// Ends the body with trailers.
    ///
    /// # Errors
    /// Why the stream ended before, or the peer would refuse the trailers.
    pub fn finish_with(self, trailers: &HeaderMap) -> Result<(), LinkError> {
        let SendHalf { shared, id } = &self.half;
        shared.with(|connection| connection.send_trailers(*id, trailers))
    }

    /// Ends the stream, both ways.
    pub fn reset(self, code: Code) {
        self.half.reset(code);
    }

    /// Waits until the peer has ended the stream, or the link is gone. Cancel safe.
    pub async fn cancelled(&mut self) -> LinkError {
        poll_fn(|cx| self.half.poll_failed(cx)).await
    }

    /// Sends all of `body` and ends the stream's half; stops early if the peer ends the stream.
    /// A peer that has answered and wants no more of it is no error.
    ///
    /// # Errors
    /// [`SendBodyError`]; the stream is reset then.
    pub async fn send_body<B>(mut self, body: B) -> Result<(), SendBodyError<B::Error>>
    where
        B: Body,
    {
        match self.copy_body(body).await {
            Err(SendBodyError::Link(LinkError::Reset(Code::DONE))) => Ok(()),
            Err(SendBodyError::Body(error)) => {
                self.half.reset(Code::BROKEN);
                Err(SendBodyError::Body(error))
            }
            other => other,
        }
    }

    async fn copy_body<B: Body>(&mut self, body: B) -> Result<(), SendBodyError<B::Error>> {
        let mut body = pin!(body);
        while !body.is_end_stream() {
            let next = poll_fn(|cx| match self.half.poll_failed(cx) {
                Poll::Ready(error) => Poll::Ready(Err(error)),
                Poll::Pending => body.as_mut().poll_frame(cx).map(Ok),
            });
            let Some(frame) = next.await.map_err(SendBodyError::Link)? else { break };
            match frame.map_err(SendBodyError::Body)?.into_data() {
                Ok(mut data) => {
                    let data = data.copy_to_bytes(data.remaining());
                    self.send(data).await.map_err(SendBodyError::Link)?;
                }
                Err(frame) => {
                    let Ok(trailers) = frame.into_trailers() else { continue };
                    let SendHalf { shared, id } = &self.half;
                    let sent = shared.with(|connection| connection.send_trailers(*id, &trailers));
                    return sent.map_err(SendBodyError::Link);
                }
            }
        }
        self.end().map_err(SendBodyError::Link)
    }

    pub(super) fn end(&self) -> Result<(), LinkError> {
        self.queue(Bytes::new(), true)
    }

    pub(super) fn queue(&self, data: Bytes, end: bool) -> Result<(), LinkError> {
        let SendHalf { shared, id } = &self.half;
        shared.with(|connection| connection.send_data(*id, data, end))
    }

    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<usize, LinkError>> {
        let SendHalf { shared, id } = &self.half;
        shared.with(|connection| connection.poll_room(*id, cx))
    }
}
