//! [`ProxyBody`]: the bodies that pass through, without a box.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http_body::{Body, Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::connections::Registered;
use super::endpoints::InFlight;
use super::outbound::Switched;
use crate::edge::{self, RecvBody};
use crate::link::{LinkBody, LinkError};

/// A body on its way through the proxy, with what ends when it does.
#[derive(Debug)]
pub(super) struct ProxyBody {
    bytes: Origin,
    /// Counted as in flight until the body ends or is dropped.
    flight: Option<InFlight>,
    /// Closed when the call is no longer allowed.
    allowed: Option<Allowed>,
}

#[derive(Debug)]
enum Origin {
    /// From a local caller.
    Caller(RecvBody),
    /// From a local application.
    App(RecvBody),
    /// From another agent.
    Link(Declared),
    /// From the proxy itself; `None` once it was read.
    Own(Option<Bytes>),
    /// None: the connection leaves HTTP with the head.
    Switched(Box<Switched>),
}

/// A body from another agent, held to the length that its head declares: the link frames bodies
/// by itself, so a head may lie, and the next hop would take the lie for the end of the message.
#[derive(Debug)]
struct Declared {
    body: LinkBody,
    /// Bytes still owed, if a length was declared.
    left: Option<u64>,
}

#[derive(Debug)]
struct Allowed {
    withdrawn: Pin<Box<WaitForCancellationFutureOwned>>,
    _registered: Registered,
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The local caller's side.
    #[error("caller broke off")]
    Caller(#[source] edge::BodyError),
    /// The application's side.
    #[error("application broke off")]
    App(#[source] edge::BodyError),
    /// The other agent's side.
    #[error("link failed")]
    Link(#[source] LinkError),
    /// Another length than declared.
    #[error("body of the other agent is not of its declared length")]
    Length,
    /// Policy, revocation or identity changed.
    #[error("call is no longer allowed")]
    Withdrawn,
}

impl ProxyBody {
    /// A body from a local caller.
    pub(super) fn caller(body: RecvBody) -> Self {
        Self::new(Origin::Caller(body))
    }

    /// A body from a local application.
    pub(super) fn app(body: RecvBody) -> Self {
        Self::new(Origin::App(body))
    }

    /// A body that arrives over a link under a head with `headers`.
    pub(super) fn link(body: LinkBody, headers: &HeaderMap) -> Self {
        let left = headers.get(header::CONTENT_LENGTH);
        let left = left.and_then(|value| value.to_str().ok()?.parse().ok());
        Self::new(Origin::Link(Declared { body, left }))
    }

    /// A body of these bytes.
    pub(super) fn own(bytes: impl Into<Bytes>) -> Self {
        Self::new(Origin::Own(Some(bytes.into()).filter(|bytes| !bytes.is_empty())))
    }

    /// No body.
    pub(super) fn empty() -> Self {
        Self::new(Origin::Own(None))
    }

    /// No body, under an answer 101.
    pub(super) fn switched(switched: Switched) -> Self {
        Self::new(Origin::Switched(Box::new(switched)))
    }

    /// What the connection is for from now on, and what counts it as in flight meanwhile, if this
    /// is of an answer 101.
    pub(super) fn into_switched(self) -> Option<(Box<Switched>, Option<InFlight>)> {
        match self.bytes {
            Origin::Switched(switched) => Some((switched, self.flight)),
            Origin::Caller(_) | Origin::App(_) | Origin::Link(_) | Origin::Own(_) => None,
        }
    }

    /// Counts as in flight until this body is dropped.
    pub(super) fn counted(mut self, flight: InFlight) -> Self {
        self.flight = Some(flight);
        self
    }

    /// Breaks off when `registered` is closed.
    pub(super) fn while_allowed(mut self, registered: Registered) -> Self {
        let withdrawn = Box::pin(registered.close.clone().cancelled_owned());
        self.allowed = Some(Allowed { withdrawn, _registered: registered });
        self
    }

    fn new(bytes: Origin) -> Self {
        Self { bytes, flight: None, allowed: None }
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>, cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(allowed) = &mut this.allowed
            && allowed.withdrawn.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(BodyError::Withdrawn)));
        }
        match &mut this.bytes {
            Origin::Caller(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::Caller),
            Origin::App(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::App),
            Origin::Link(body) => body.poll_frame(cx),
            Origin::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Origin::Switched(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.bytes {
            Origin::Caller(body) => body.is_end_stream(),
            Origin::App(body) => body.is_end_stream(),
            // one that ended short must be seen to fail, not taken for empty
            Origin::Link(Declared { body, left }) => {
                left.is_none_or(|left| left == 0) && body.is_end_stream()
            }
            Origin::Own(bytes) => bytes.is_none(),
            Origin::Switched(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.bytes {
            Origin::Caller(body) => body.size_hint(),
            Origin::App(body) => body.size_hint(),
            Origin::Link(_) => SizeHint::default(),
            Origin::Switched(_) => SizeHint::with_exact(0),
            Origin::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
        }
    }
}

impl Declared {
    fn poll_frame(
        &mut self, cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        let Some(left) = &mut self.left else {
            return Poll::Ready(next.map(|frame| frame.map_err(BodyError::Link)));
        };
        Poll::Ready(match next {
            Some(Err(error)) => Some(Err(BodyError::Link(error))),
            Some(Ok(frame)) => match frame.data_ref().map(|data| data.len() as u64) {
                Some(len) if len <= *left => {
                    *left -= len;
                    Some(Ok(frame))
                }
                None if *left == 0 => Some(Ok(frame)),
                Some(_) | None => Some(Err(BodyError::Length)),
            },
            None if *left > 0 => {
                *left = 0; // said once
                Some(Err(BodyError::Length))
            }
            None => None,
        })
    }
}
