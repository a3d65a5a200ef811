//! [`RecvBody`]: the body of a request as it arrives at an edge.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// A body that arrives; read from its connection only as it is asked for.
pub struct RecvBody {
    /// `None` once it has ended.
    source: Option<Arc<dyn Source>>,
    /// Which exchange of the connection it belongs to.
    turn: u64,
    /// Bytes still to come, if a length was declared.
    left: Option<u64>,
}

/// A connection that bodies are read from.
pub(super) trait Source: Send + Sync {
    /// The next part of the body of exchange `turn`.
    fn poll_part(
        &self, turn: u64, cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>;

    /// What is wrong with the body of exchange `turn`, if its framing was found to be broken.
    fn malformed(&self, _turn: u64) -> Option<&'static str> {
        None
    }
}

/// What becomes of a body, for who gives the body itself away.
pub struct Fate {
    source: Option<Arc<dyn Source>>,
    turn: u64,
}

impl Fate {
    /// What is wrong with it, as far as it was read.
    pub fn malformed(&self) -> Option<&'static str> {
        self.source.as_ref()?.malformed(self.turn)
    }
}

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The connection ended within it, or went on without it.
    #[error("connection ended within a body")]
    Incomplete,
    /// Its framing is broken.
    #[error("body is malformed: {0}")]
    Malformed(&'static str),
}

impl RecvBody {
    /// No body.
    pub fn empty() -> Self {
        Self { source: None, turn: 0, left: Some(0) }
    }

    /// What will have become of it. Drop it before the request is answered: until then somebody may
    /// still read the body, and the connection stays as it is for that.
    pub fn fate(&self) -> Fate {
        Fate { source: self.source.clone(), turn: self.turn }
    }

    pub(super) fn new(source: Arc<dyn Source>, turn: u64, left: Option<u64>) -> Self {
        Self { source: Some(source), turn, left }
    }
}

impl Body for RecvBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>, cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(source) = &this.source else { return Poll::Ready(None) };
        let part = std::task::ready!(source.poll_part(this.turn, cx));
        match &part {
            Some(Ok(frame)) => {
                let len = frame.data_ref().map_or(0, |data| data.len() as u64);
                this.left = this.left.map(|left| left.saturating_sub(len));
                if this.left == Some(0) {
                    this.source = None;
                }
            }
            Some(Err(_)) | None => this.source = None,
        }
        Poll::Ready(part)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fate").field("turn", &self.turn).finish_non_exhaustive()
    }
}

impl fmt::Debug for RecvBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBody").field("turn", &self.turn).field("left", &self.left).finish()
    }
}
