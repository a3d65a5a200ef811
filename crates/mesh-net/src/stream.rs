//! The agents' stream in bytes: frames of [`mesh_core::stream`] with MessagePack bodies.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes, BytesMut};
use mesh_core::stream::{FrameError, HEADER_BYTES, Kind, ToAgent, ToServer, header, parse_header};

use crate::pack::MessagePack;

/// A message of one direction of the stream.
pub trait Message: Sized + sealed::Sealed {
    #[doc(hidden)]
    fn kind_of(&self) -> Kind;
    #[doc(hidden)]
    fn write(&self) -> Result<Vec<u8>, String>;
    #[doc(hidden)]
    fn read(kind: Kind, body: &[u8]) -> Result<Self, FrameError>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! message {
    ($name:ident) => {
        impl sealed::Sealed for $name {}

        impl Message for $name {
            fn kind_of(&self) -> Kind {
                self.kind()
            }

            fn write(&self) -> Result<Vec<u8>, String> {
                self.encode(&MessagePack)
            }

            fn read(kind: Kind, body: &[u8]) -> Result<Self, FrameError> {
                Self::decode(kind, body, &MessagePack)
            }
        }
    };
}

message!(ToAgent);
message!(ToServer);

/// What announces a [`ToAgent::Resource`].
const RESOURCE: Kind = Kind { kind: 3, version: 1 };

/// `message` as one frame.
///
/// # Errors
/// [`FrameError::Length`] if it is larger than any message may be.
pub fn encode<M: Message>(message: &M) -> Result<Bytes, FrameError> {
    let kind = message.kind_of();
    let body = message.write().map_err(|why| FrameError::Body {
        kind: kind.kind,
        version: kind.version,
        why,
    })?;
    frame(kind, &body)
}

/// The frame of a [`ToAgent::Resource`] whose body was serialised before, with
/// [`crate::pack::to_vec`]: once for all agents, who share the bytes.
///
/// # Errors
/// [`FrameError::Length`] if it is larger than any message may be.
pub fn encode_resource_frame(body: &[u8]) -> Result<Bytes, FrameError> {
    frame(RESOURCE, body)
}

fn frame(kind: Kind, body: &[u8]) -> Result<Bytes, FrameError> {
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + body.len());
    frame.put_slice(&header(kind, body.len())?);
    frame.put_slice(body);
    Ok(frame.freeze())
}

/// Cuts a stream of bytes into messages.
///
/// Holds at most one message and one chunk, if [`FrameReader::next`] is called until it gives
/// `None` after each [`FrameReader::push`]. After an error the stream is of no more use.
#[derive(Debug)]
pub struct FrameReader<M> {
    buffer: BytesMut,
    messages: PhantomData<fn() -> M>,
}

impl<M> Default for FrameReader<M> {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), messages: PhantomData }
    }
}

impl<M: Message> FrameReader<M> {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the bytes that came next.
    pub fn push(&mut self, chunk: Bytes) {
        self.buffer.extend_from_slice(&chunk);
    }

    /// The next message, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`FrameError`] if the peer's bytes are no message: too large, unknown, or malformed.
    #[expect(clippy::should_implement_trait, reason = "fallible, and `None` is not the end")]
    pub fn next(&mut self) -> Result<Option<M>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let (kind, body_len) = parse_header(*header)?;
        let end = HEADER_BYTES + body_len;
        let Some(body) = self.buffer.get(HEADER_BYTES..end) else { return Ok(None) };
        let message = M::read(kind, body)?;
        // `split_to` keeps what follows; an empty buffer gives a large message's memory back.
        drop(self.buffer.split_to(end));
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(Some(message))
    }

    /// Whether the stream may end here: nothing of a message was begun.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use mesh_core::limits::STREAM_MESSAGE_BYTES_MAX;
    use mesh_core::resource::Resource;
    use mesh_core::revision::Revision;
    use mesh_core::stream::{Ack1, Batch1, Goodbye1, Servers1};
    use mesh_core::trust::Bundle;

    use super::*;
    use crate::pack;

    fn bundle() -> Resource {
        let trust_domain = "td".parse().unwrap();
        Resource::Bundle(Bundle { trust_domain, roots: Vec::new(), revoked: Vec::new() })
    }

    #[test]
    fn messages_come_out_as_they_went_in_however_they_are_cut() {
        let batch = Batch1 { revision: Revision::new(1, 4), full: false, resources: 1 };
        let resource = bundle();
        let sent = vec![
            ToAgent::Batch(batch),
            ToAgent::Resource(resource),
            ToAgent::Servers(Servers1 { servers: vec!["ctl-2:7300".to_owned()] }),
            ToAgent::Goodbye(Goodbye1 { reason: "moving".to_owned() }),
        ];
        let bytes: Vec<u8> = sent.iter().flat_map(|m| encode(m).unwrap()).collect();
        for size in [1, 2, 7, 8, 9, 64, bytes.len()] {
            let mut reader = FrameReader::<ToAgent>::new();
            let mut got = Vec::new();
            for chunk in bytes.chunks(size) {
                reader.push(Bytes::copy_from_slice(chunk));
                while let Some(message) = reader.next().unwrap() {
                    got.push(message);
                }
            }
            assert_eq!(got, sent, "in chunks of {size}");
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn a_resource_serialised_before_is_the_same_frame() {
        let resource = bundle();
        let shared = encode_resource_frame(&pack::to_vec(&resource).unwrap()).unwrap();
        assert_eq!(shared, encode(&ToAgent::Resource(resource)).unwrap());
    }

    #[test]
    fn what_is_no_message_ends_the_stream() {
        let ack = encode(&ToServer::Ack(Ack1 { revision: Revision::ZERO })).unwrap();
        let mut reader = FrameReader::<ToAgent>::new();
        reader.push(ack);
        assert_eq!(reader.next(), Err(FrameError::Unknown { kind: 67, version: 1 }));
        let mut reader = FrameReader::<ToServer>::new();
        reader.push(Bytes::from_static(&[0xff; 8]));
        assert_eq!(reader.next(), Err(FrameError::Length { found: u32::MAX as usize }));
        let mut reader = FrameReader::<ToServer>::new();
        reader.push(Bytes::from_static(&[0, 0, 0, 5, 0, 67, 0, 1, 0xc1]));
        assert!(matches!(reader.next(), Err(FrameError::Body { kind: 67, .. })));
        let large = vec![0; STREAM_MESSAGE_BYTES_MAX];
        assert!(matches!(encode_resource_frame(&large), Err(FrameError::Length { .. })));
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut seed = 7_u64;
        for _ in 0..2_000 {
            let mut bytes = Vec::new();
            for _ in 0..40 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bytes.push((seed >> 56) as u8);
            }
            bytes[..4].copy_from_slice(&[0, 0, 0, 30]);
            bytes[4..8].copy_from_slice(&[0, 65 + (seed >> 60) as u8 % 6, 0, 1]);
            let mut reader = FrameReader::<ToServer>::new();
            reader.push(Bytes::from(bytes));
            let _ = reader.next();
        }
    }
}
