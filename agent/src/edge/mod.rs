//! The interoperable edge: what speaks HTTP with applications on this host.
//!
//! [`framing`] says how a message's body ends, and takes one reading only; [`http1`] and
//! [`http2`] put messages on and off a transport. None of them knows policy, routes or the link.

pub mod framing;
pub mod http1;
pub mod http2;

mod body;
mod limits;
mod sniff;
mod trailers;

use std::future::Future;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

pub use body::{BodyError, Fate, RecvBody};
pub use sniff::{Spoken, sniff};

/// What answers the requests of one connection.
pub trait Service: Send + Sync {
    /// The bodies of its answers.
    type Body: http_body::Body<Data = Bytes, Error: std::fmt::Display> + Send + Unpin;

    /// Answers a request whose head and framing have one reading. Dropped when the client is gone.
    fn call(&self, request: Request<RecvBody>)
    -> impl Future<Output = Response<Self::Body>> + Send;

    /// The answer to what is no such request; the connection ends with it.
    fn refuse(&self, reject: &Reject) -> Response<Self::Body>;

    /// [`Self::refuse`] for a request that was called, and then its body turned out to be malformed.
    fn refuse_called(&self, reject: &Reject) -> Response<Self::Body> {
        self.refuse(reject)
    }
}

/// Why a message is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Reject {
    /// 400, 408, 413, 417, 431, 501 or 505.
    pub status: StatusCode,
    /// What was found, in a few words.
    pub why: &'static str,
}

impl Reject {
    pub(crate) const fn bad(why: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, why }
    }
}

/// A transport that an edge speaks over.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Makes the close that follows a reset: an orderly one would tell the other side that it has
    /// seen all there is.
    fn abort(&self) {}
}

#[cfg(test)]
impl Transport for tokio::io::DuplexStream {}
