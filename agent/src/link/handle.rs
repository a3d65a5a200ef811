//! What callers hold: the client that opens streams, the server that accepts them.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::body::{BodySink, LinkBody};
use super::driver::Shared;
use super::error::{Code, LinkError};
use super::head::{Open, RequestHead, ResponseHead, TcpOpen};
use super::tcp::LinkStream;

/// The caller's side of a link. Clones share it; when the last one is dropped the link takes
/// no new streams and closes once those that are open have finished.
#[derive(Clone, Debug)]
pub struct LinkClient(Arc<ClientOwner>);

#[derive(Debug)]
struct ClientOwner(Arc<Shared>);

impl Drop for ClientOwner {
    fn drop(&mut self) {
        self.0.with(|connection| connection.shutdown());
    }
}

impl LinkClient {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(ClientOwner(shared)))
    }

    /// Opens an HTTP exchange; `end` says that the request has no body. Does not wait.
    ///
    /// Dropping the response cancels the exchange, and so does dropping the sink unfinished.
    ///
    /// # Errors
    /// [`LinkError::unprocessed`] tells those after which another link may be tried.
    pub fn open_http(
        &self, head: RequestHead, end: bool,
    ) -> Result<(BodySink, ResponseFuture), LinkError> {
        let (send, recv) = self.open(&Open::Http(head), end)?;
        Ok((BodySink::new(send), ResponseFuture(Some(recv))))
    }

    /// Opens a TCP stream, on which may be written at once. Does not wait;
    /// [`LinkStream::connected`] does.
    ///
    /// # Errors
    /// As [`Self::open_http`].
    pub fn open_tcp(&self, open: TcpOpen) -> Result<LinkStream, LinkError> {
        let (send, recv) = self.open(&Open::Tcp(open), false)?;
        Ok(LinkStream::new(BodySink::new(send), LinkBody::new(recv)))
    }

    /// Streams open now.
    pub fn in_flight(&self) -> u32 {
        self.shared().with(|connection| connection.active())
    }

    /// Whether it may still open streams. A full link may later.
    pub fn is_open(&self) -> bool {
        self.shared().with(|connection| !connection.draining())
    }

    /// Takes no new streams; the link closes when those that are open have finished. Bound the
    /// wait by a deadline on the driver.
    pub fn close_gracefully(&self) {
        self.shared().with(|connection| connection.shutdown());
    }

    fn open(&self, open: &Open, end: bool) -> Result<(SendHalf, RecvHalf), LinkError> {
        let id = self.shared().with(|connection| connection.open(open, end))?;
        Ok(halves(self.shared(), id))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }
}

/// The callee's side of a link. Clones share it; when the last one is dropped new streams are
/// refused and the link closes once those that are open have finished.
#[derive(Clone, Debug)]
pub struct LinkServer(Arc<ServerOwner>);

#[derive(Debug)]
struct ServerOwner(Arc<Shared>);

impl Drop for ServerOwner {
    fn drop(&mut self) {
        self.0.with(|connection| {
            connection.refuse_all();
            connection.shutdown();
        });
    }
}

impl LinkServer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(ServerOwner(shared)))
    }

    /// The next stream; none once the link is retired and empty, or broken. One task at a time
    /// may wait. Cancel safe.
    pub async fn accept(&self) -> Option<Incoming> {
        let shared = &self.0.0;
        let (id, open) = poll_fn(|cx| shared.with(|connection| connection.poll_accept(cx))).await?;
        let (send, recv) = halves(shared, id);
        let responder = Responder { half: Some(send) };
        Some(Incoming { open, body: LinkBody::new(recv), responder })
    }

    /// Streams open now.
    pub fn in_flight(&self) -> u32 {
        self.0.0.with(|connection| connection.active())
    }

    /// Tells the client to open no more; the link closes when what is open has finished. Keep
    /// accepting: streams that crossed the news are served. Bound the wait by a deadline on
    /// the driver.
    pub fn close_gracefully(&self) {
        self.0.0.with(|connection| connection.shutdown());
    }
}

/// A stream the peer opened. Dropping the responder unanswered resets it.
#[derive(Debug)]
pub struct Incoming {
    /// What it is for.
    pub open: Open,
    /// The request's body. Dropping it drops what still comes.
    pub body: LinkBody,
    /// Where the answer goes.
    pub responder: Responder,
}

impl Incoming {
    /// Takes a TCP stream: tells the caller that the instance is connected.
    ///
    /// # Errors
    /// If the stream failed meanwhile, or is not TCP and was answered.
    pub fn accept_tcp(mut self) -> Result<LinkStream, LinkError> {
        let sink = self.responder.respond(&ResponseHead::connected(), false)?;
        Ok(LinkStream::new(sink, self.body))
    }
}

/// Answers one stream.
#[derive(Debug)]
pub struct Responder {
    half: Option<SendHalf>,
}

impl Responder {
    /// Sends an informational head (1xx).
    ///
    /// # Errors
    /// If the stream failed, or the final head was sent.
    pub fn inform(&self, head: &ResponseHead) -> Result<(), LinkError> {
        if !head.informational() {
            return Err(LinkError::Misuse("not an informational head"));
        }
        let half = self.half.as_ref().ok_or(ANSWERED)?;
        half.shared.with(|connection| connection.send_head(half.id, head, false))
    }

    /// Sends the final head and gives the body's sink, which is finished already if `end`.
    ///
    /// # Errors
    /// If the stream failed, or the peer would refuse the head: then another may be tried.
    pub fn respond(&mut self, head: &ResponseHead, end: bool) -> Result<BodySink, LinkError> {
        if head.informational() {
            return Err(LinkError::Misuse("not a final head"));
        }
        let half = self.half.as_ref().ok_or(ANSWERED)?;
        half.shared.with(|connection| connection.send_head(half.id, head, end))?;
        self.half.take().map(BodySink::new).ok_or(ANSWERED)
    }

    /// Ends the stream without an answer.
    pub fn reset(&mut self, code: Code) {
        if let Some(half) = self.half.take() {
            half.reset(code);
        }
    }

    /// Waits until the caller has cancelled the stream, or the link is gone. Cancel safe.
    pub async fn cancelled(&mut self) -> LinkError {
        let Some(half) = &self.half else { return ANSWERED };
        poll_fn(|cx| half.poll_failed(cx)).await
    }
}

/// The answer to come: its final head and body. Dropping it cancels the exchange.
#[derive(Debug)]
pub struct ResponseFuture(Option<RecvHalf>);

impl ResponseFuture {
    /// The next head, informational ones included; the final one is followed by
    /// [`Self::into_body`]. Cancel safe.
    ///
    /// # Errors
    /// Why the stream ended, or [`LinkError::Misuse`] after the final head.
    pub async fn head(&mut self) -> Result<ResponseHead, LinkError> {
        poll_fn(|cx| self.poll_head(cx)).await
    }

    /// The body, once the final head was taken with [`Self::head`].
    pub fn into_body(mut self) -> Option<LinkBody> {
        self.0.take().map(LinkBody::new)
    }

    fn poll_head(&mut self, cx: &Context<'_>) -> Poll<Result<ResponseHead, LinkError>> {
        let Some(half) = &self.0 else { return Poll::Ready(Err(ANSWERED)) };
        half.shared.with(|connection| connection.poll_head(half.id, cx))
    }
}

impl Future for ResponseFuture {
    type Output = Result<(ResponseHead, LinkBody), LinkError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let head = std::task::ready!(self.poll_head(cx))?;
            if head.informational() {
                continue;
            }
            let half = self.0.take().ok_or(ANSWERED)?;
            return Poll::Ready(Ok((head, LinkBody::new(half))));
        }
    }
}

/// Holds the outgoing half of a stream; dropped unfinished it resets the stream.
#[derive(Debug)]
pub(super) struct SendHalf {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u32,
}

/// Holds the incoming half of a stream.
#[derive(Debug)]
pub(super) struct RecvHalf {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u32,
}

fn halves(shared: &Arc<Shared>, id: u32) -> (SendHalf, RecvHalf) {
    (SendHalf { shared: Arc::clone(shared), id }, RecvHalf { shared: Arc::clone(shared), id })
}

impl SendHalf {
    pub(super) fn reset(&self, code: Code) {
        self.shared.with(|connection| connection.reset(self.id, code));
    }

    pub(super) fn poll_failed(&self, cx: &Context<'_>) -> Poll<LinkError> {
        self.shared.with(|connection| connection.poll_failed(self.id, cx))
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.shared.with(|connection| connection.release_send(self.id));
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.shared.with(|connection| connection.release_recv(self.id));
    }
}

const ANSWERED: LinkError = LinkError::Misuse("stream was answered");
