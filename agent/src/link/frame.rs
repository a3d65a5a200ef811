//! Frames: the 8-byte header, the kinds, encoding, and a decoder that takes any chunking.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;

use super::error::{Code, LinkError};
use super::head::{Open, ResponseHead, decode_trailers, encode_trailers};
use super::limits::ENTRIES_MAX;
use super::settings::{ENTRY, Settings};

/// One frame. `end` says that its sender sends no more on the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// What the sender takes; the first frame of each side, once.
    Settings(Settings),
    /// The client starts a stream.
    Open { stream: u32, end: bool, open: Open },
    /// The server's head of an answer; several if the first are informational.
    Head { stream: u32, end: bool, head: ResponseHead },
    /// Bytes of a body; empty only with `end`.
    Data { stream: u32, end: bool, data: Bytes },
    /// The fields after a body; always the end.
    Trailers { stream: u32, trailers: HeaderMap },
    /// Both directions of the stream are over.
    Reset { stream: u32, code: Code },
    /// The sender takes `credit` more bytes, on a stream or (0) all together.
    Window { stream: u32, credit: u32 },
    /// To be answered with [`Frame::Pong`] of the same value, in order.
    Ping(u64),
    /// The answer.
    Pong(u64),
    /// No stream above `last` was or will be looked at; with a code other than
    /// [`Code::DONE`] the link ends here.
    GoAway { last: u32, code: Code },
    /// A kind that may be skipped.
    Ignored,
}

/// Bytes before each payload: length u16, kind u8, flags u8, stream u32.
pub const HEADER: usize = 8;

pub(super) const SETTINGS: u8 = 0x01;
pub(super) const OPEN: u8 = 0x02;
pub(super) const HEAD: u8 = 0x03;
pub(super) const DATA: u8 = 0x04;
pub(super) const TRAILERS: u8 = 0x05;
pub(super) const RESET: u8 = 0x06;
pub(super) const WINDOW: u8 = 0x07;
pub(super) const PING: u8 = 0x08;
pub(super) const PONG: u8 = 0x09;
pub(super) const GOAWAY: u8 = 0x0a;

/// Kinds from here on may be skipped by who does not know them.
pub(super) const IGNORABLE: u8 = 0xc0;

/// The one flag: this frame is its sender's last on the stream.
pub(super) const END: u8 = 0x01;

/// Appends a frame header. The payload's length was checked by whoever made it.
pub(super) fn put_header(out: &mut BytesMut, kind: u8, end: bool, stream: u32, len: usize) {
    debug_assert!(len <= usize::from(u16::MAX), "payloads are bounded by the settings");
    out.put_u16(u16::try_from(len).unwrap_or(u16::MAX));
    out.put_u8(kind);
    out.put_u8(if end { END } else { 0 });
    out.put_u32(stream);
}

impl Frame {
    /// Appends the frame as a peer with settings `to` takes it.
    ///
    /// # Errors
    /// If such a peer would refuse it.
    pub fn encode(&self, out: &mut BytesMut, to: &Settings) -> Result<(), LinkError> {
        match self {
            Self::Settings(settings) => {
                put_header(out, SETTINGS, false, 0, Settings::LEN);
                settings.encode(out);
            }
            Self::Open { stream, end, open } => put(out, OPEN, *end, *stream, &open.encode(to)?),
            Self::Head { stream, end, head } => put(out, HEAD, *end, *stream, &head.encode(to)?),
            Self::Data { stream, end, data } => {
                let (found, max) = (data.len(), to.data_max as usize);
                if found > max {
                    return Err(LinkError::Oversized { kind: DATA, found, max });
                }
                put(out, DATA, *end, *stream, data);
            }
            Self::Trailers { stream, trailers } => {
                put(out, TRAILERS, true, *stream, &encode_trailers(trailers, to)?);
            }
            Self::Reset { stream, code } => {
                put(out, RESET, false, *stream, &code.0.to_be_bytes());
            }
            Self::Window { stream, credit } => {
                put(out, WINDOW, false, *stream, &credit.to_be_bytes());
            }
            Self::Ping(value) => put(out, PING, false, 0, &value.to_be_bytes()),
            Self::Pong(value) => put(out, PONG, false, 0, &value.to_be_bytes()),
            Self::GoAway { last, code } => {
                put_header(out, GOAWAY, false, 0, 8);
                out.put_u32(*last);
                out.put_u32(code.0);
            }
            Self::Ignored => put(out, IGNORABLE, false, 0, &[]),
        }
        Ok(())
    }

    /// Reads a payload of the length and kind that `header` announced.
    fn decode(header: Header, payload: &[u8], ours: &Settings) -> Result<Self, LinkError> {
        let (stream, end) = (header.stream, header.flags & END != 0);
        let block = || Bytes::copy_from_slice(payload);
        Ok(match header.kind {
            SETTINGS => Self::Settings(Settings::decode(payload)?),
            OPEN => Self::Open { stream, end, open: Open::decode(block(), ours)? },
            HEAD => Self::Head { stream, end, head: ResponseHead::decode(block(), ours)? },
            DATA => Self::Data { stream, end, data: block() },
            TRAILERS => Self::Trailers { stream, trailers: decode_trailers(block(), ours)? },
            RESET => Self::Reset { stream, code: Code(number(payload)) },
            WINDOW => Self::Window { stream, credit: number(payload) },
            PING => Self::Ping(wide(payload)),
            PONG => Self::Pong(wide(payload)),
            GOAWAY => {
                let both = wide(payload).to_be_bytes();
                Self::GoAway { last: number(&both[..4]), code: Code(number(&both[4..])) }
            }
            _ => Self::Ignored,
        })
    }
}

fn put(out: &mut BytesMut, kind: u8, end: bool, stream: u32, payload: &[u8]) {
    put_header(out, kind, end, stream, payload.len());
    out.put_slice(payload);
}

/// The number that is the payload; its length was checked with the header.
fn number(mut payload: &[u8]) -> u32 {
    payload.try_get_u32().unwrap_or_default()
}

fn wide(mut payload: &[u8]) -> u64 {
    payload.try_get_u64().unwrap_or_default()
}

#[derive(Clone, Copy)]
struct Header {
    len: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Header {
    /// Reads a header and refuses what no payload could make right, before any is buffered.
    fn parse(bytes: [u8; HEADER], ours: &Settings) -> Result<Self, LinkError> {
        let [a, b, kind, flags, stream @ ..] = bytes;
        let len = usize::from(u16::from_be_bytes([a, b]));
        let header = Self { len, kind, flags, stream: u32::from_be_bytes(stream) };
        header.check_length(ours)?;
        header.check_stream()?;
        Ok(header)
    }

    fn check_length(self, ours: &Settings) -> Result<(), LinkError> {
        let Self { len, kind, .. } = self;
        let at_most = |max| {
            if len <= max { Ok(()) } else { Err(LinkError::Oversized { kind, found: len, max }) }
        };
        let exactly = |want, expected| {
            if len == want { Ok(()) } else { Err(LinkError::Length { kind, found: len, expected }) }
        };
        match kind {
            SETTINGS => at_most(ENTRIES_MAX * ENTRY),
            OPEN | HEAD | TRAILERS => at_most(ours.head_max as usize),
            DATA => at_most(ours.data_max as usize),
            RESET | WINDOW => exactly(4, "4"),
            PING | PONG | GOAWAY => exactly(8, "8"),
            IGNORABLE.. => at_most(ours.data_max as usize),
            _ => Err(LinkError::UnknownKind { found: kind }),
        }
    }

    fn check_stream(self) -> Result<(), LinkError> {
        let Self { len, kind, flags, stream } = self;
        let own = match kind {
            OPEN | HEAD | DATA | TRAILERS => END,
            IGNORABLE.. => u8::MAX,
            _ => 0,
        };
        if flags & !own != 0 || (kind == TRAILERS && flags != END) {
            return Err(LinkError::Flags { kind, found: flags });
        }
        if kind == DATA && len == 0 && flags & END == 0 {
            return Err(LinkError::Length { kind, found: 0, expected: "1 or more without end" });
        }
        match kind {
            OPEN | HEAD | DATA | TRAILERS | RESET if stream == 0 => {
                Err(LinkError::StreamId { kind, found: 0, expected: "1 or more" })
            }
            SETTINGS | PING | PONG | GOAWAY if stream != 0 => {
                Err(LinkError::StreamId { kind, found: stream, expected: "0" })
            }
            _ => Ok(()),
        }
    }
}

/// Turns bytes, however they are cut, into frames; holds at most one unfinished frame.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: BytesMut,
}

impl Decoder {
    /// Takes the next frame off `input`; none once all of it is consumed.
    ///
    /// # Errors
    /// At the first byte that proves a frame wrong. The decoder must not be used after that.
    pub fn next(&mut self, input: &mut &[u8], ours: &Settings) -> Result<Option<Frame>, LinkError> {
        if !self.partial.is_empty() {
            return self.resume(input, ours);
        }
        let Some((bytes, rest)) = input.split_first_chunk::<HEADER>() else {
            self.keep(input);
            return Ok(None);
        };
        let header = Header::parse(*bytes, ours)?;
        if rest.len() < header.len {
            self.partial.reserve(HEADER + header.len);
            self.keep(input);
            return Ok(None);
        }
        let (payload, rest) = rest.split_at(header.len);
        *input = rest;
        Frame::decode(header, payload, ours).map(Some)
    }

    fn resume(&mut self, input: &mut &[u8], ours: &Settings) -> Result<Option<Frame>, LinkError> {
        if !self.fill(input, HEADER) {
            return Ok(None);
        }
        let Some((bytes, _)) = self.partial.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let header = Header::parse(*bytes, ours)?;
        if !self.fill(input, HEADER + header.len) {
            return Ok(None);
        }
        let whole = std::mem::take(&mut self.partial); // gives its memory back
        Frame::decode(header, &whole[HEADER..], ours).map(Some)
    }

    /// Moves bytes until `partial` has `want` of them; says whether it has.
    fn fill(&mut self, input: &mut &[u8], want: usize) -> bool {
        let missing = want.saturating_sub(self.partial.len()).min(input.len());
        let (bytes, rest) = input.split_at(missing);
        self.partial.extend_from_slice(bytes);
        *input = rest;
        self.partial.len() >= want
    }

    fn keep(&mut self, input: &mut &[u8]) {
        self.partial.extend_from_slice(input);
        *input = &[];
    }
}

#[cfg(test)]
mod tests;
