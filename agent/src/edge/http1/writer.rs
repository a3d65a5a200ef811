//! [`Writer`]: bodies as bytes.

use bytes::Bytes;
use http_body::Frame;

use super::answer::{Ending, chunk_size, last_chunk};
use super::conn::Output;
use crate::edge::trailers;

/// Puts a body into the form its head promised.
pub(super) struct Writer {
    ending: Ending,
    /// Whether the receiver takes trailers.
    trailers: bool,
    /// Nothing more is to be put.
    pub(super) ended: bool,
}

impl Writer {
    pub(super) fn new(ending: Ending, trailers: bool) -> Self {
        Self { ending, trailers, ended: matches!(ending, Ending::None | Ending::Length(0)) }
    }

    /// Puts the next frame of the body, or its end, into `output`.
    ///
    /// # Errors
    /// Why the message cannot be ended as its head promised.
    pub(super) fn put<E: std::fmt::Display>(
        &mut self, output: &mut Output, frame: Option<Result<Frame<Bytes>, E>>,
    ) -> Result<(), String> {
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(why)) => return Err(why.to_string()),
            None => {
                self.ended = true;
                return match self.ending {
                    Ending::Length(1..) => Err("body is shorter than its length".to_owned()),
                    Ending::Chunked => {
                        last_chunk(output.buffer(), None);
                        Ok(())
                    }
                    Ending::Length(_) | Ending::None | Ending::Close => Ok(()),
                };
            }
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => {
                if let (Ending::Chunked, Ok(trailers)) = (self.ending, other.into_trailers()) {
                    let trailers = trailers::forwarded(trailers).filter(|_| self.trailers);
                    last_chunk(output.buffer(), trailers.as_ref());
                    self.ended = true;
                }
                return Ok(());
            }
        };
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.ending {
            Ending::Length(left) => {
                let len = data.len() as u64;
                *left = left.checked_sub(len).ok_or("body is longer than its length")?;
                self.ended = *left == 0;
                output.data(data);
            }
            Ending::Chunked => {
                chunk_size(output.buffer(), data.len());
                output.data(data);
                output.buffer().extend_from_slice(b"\r\n");
            }
            Ending::Close => output.data(data),
            Ending::None => {}
        }
        Ok(())
    }
}
