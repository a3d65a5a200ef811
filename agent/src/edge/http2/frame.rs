//! Frames as bytes (RFC 9113 §4 and §6): read strictly, written plainly.

use bytes::{BufMut, BytesMut};

use super::error::{Code, Fault};
use crate::edge::limits::FRAME_MAX;

/// What a client begins a connection with (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's header.
pub(super) const HEADER_LEN: usize = 9;

/// The largest window there is.
pub(super) const WINDOW_LIMIT: u32 = 0x7fff_ffff;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITIZED: u8 = 0x20;

/// The first nine bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes behind it.
    pub(super) len: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// A frame, borrowed from the bytes it came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Data {
        stream: u32,
        data: &'a [u8],
        /// What counts against the windows: the data and its padding.
        flow: u32,
        end: bool,
    },
    Headers {
        stream: u32,
        block: &'a [u8],
        end_stream: bool,
        end_headers: bool,
        /// The stream it is said to depend on; of no other meaning (RFC 9113 §5.3.2).
        depends_on: Option<u32>,
    },
    Priority {
        stream: u32,
        depends_on: u32,
    },
    Reset {
        stream: u32,
        code: Code,
    },
    Settings(Settings),
    SettingsAck,
    Ping {
        ack: bool,
        payload: [u8; 8],
    },
    GoAway {
        last: u32,
        code: Code,
    },
    WindowUpdate {
        stream: u32,
        increment: u32,
    },
    Continuation {
        stream: u32,
        block: &'a [u8],
        end_headers: bool,
    },
    /// Of a kind that does not exist: ignored (RFC 9113 §4.1).
    Unknown,
}

/// What a SETTINGS frame changes, of what has a meaning here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// Streams that the sender takes at once.
    pub(super) streams: Option<u32>,
    /// The window that streams begin with.
    pub(super) window: Option<u32>,
}

impl Header {
    /// The header that `bytes` begin with, if all of it is there.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, s0, s1, s2, s3] = bytes.first_chunk::<HEADER_LEN>()?;
        Some(Self {
            len: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            // the first bit means nothing (RFC 9113 §4.1)
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        })
    }

    /// Whether it continues a block of fields.
    pub(super) fn is_continuation(&self) -> bool {
        self.kind == CONTINUATION
    }

    /// Whether it carries data.
    pub(super) fn is_data(&self) -> bool {
        self.kind == DATA
    }

    /// Whether it is SETTINGS and no acknowledgement of them.
    pub(super) fn is_settings(&self) -> bool {
        self.kind == SETTINGS && self.flags & ACK == 0
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether a frame of this length may come, judged before its payload is waited for.
    ///
    /// # Errors
    /// A frame larger than was agreed (RFC 9113 §4.2).
    pub(super) fn check(&self) -> Result<(), Fault> {
        if self.len > FRAME_MAX {
            return Err(Fault::connection(Code::FrameSize, "frame is larger than 16 KiB"));
        }
        Ok(())
    }

    /// The frame of this header with `payload`, which has its length.
    ///
    /// # Errors
    /// What RFC 9113 §6 forbids of a frame by itself.
    pub(super) fn parse<'a>(&self, payload: &'a [u8]) -> Result<Frame<'a>, Fault> {
        let on_stream = matches!(
            self.kind,
            DATA | HEADERS | PRIORITY | RST_STREAM | PUSH_PROMISE | CONTINUATION
        );
        if on_stream && self.stream == 0 {
            return Err(protocol("a frame of a stream is on stream 0"));
        }
        if matches!(self.kind, SETTINGS | PING | GOAWAY) && self.stream != 0 {
            return Err(protocol("a frame of the connection is on a stream"));
        }
        match self.kind {
            DATA => self.data(payload),
            HEADERS => self.headers(payload),
            PRIORITY => self.priority(payload),
            RST_STREAM => {
                let code = u32_of(payload).ok_or(size("RST_STREAM has not 4 bytes"))?;
                Ok(Frame::Reset { stream: self.stream, code: Code::of(code) })
            }
            SETTINGS => self.settings(payload),
            PUSH_PROMISE => Err(protocol("nobody may push streams here")),
            PING => {
                let payload = payload.try_into().map_err(|_| size("PING has not 8 bytes"))?;
                Ok(Frame::Ping { ack: self.has(ACK), payload })
            }
            GOAWAY => goaway(payload).ok_or(size("GOAWAY has less than 8 bytes")),
            WINDOW_UPDATE => {
                let raw = u32_of(payload).ok_or(size("WINDOW_UPDATE has not 4 bytes"))?;
                let increment = raw & WINDOW_LIMIT;
                Ok(Frame::WindowUpdate { stream: self.stream, increment })
            }
            CONTINUATION => Ok(Frame::Continuation {
                stream: self.stream,
                block: payload,
                end_headers: self.has(END_HEADERS),
            }),
            _ => Ok(Frame::Unknown),
        }
    }

    fn data<'a>(&self, payload: &'a [u8]) -> Result<Frame<'a>, Fault> {
        let data = self.unpadded(payload)?;
        let flow = u32::try_from(payload.len()).map_err(|_| size("DATA is too large"))?;
        Ok(Frame::Data { stream: self.stream, data, flow, end: self.has(END_STREAM) })
    }

    fn headers<'a>(&self, payload: &'a [u8]) -> Result<Frame<'a>, Fault> {
        let mut block = self.unpadded(payload)?;
        let mut depends_on = None;
        if self.has(PRIORITIZED) {
            let (priority, rest) =
                block.split_first_chunk::<5>().ok_or(size("HEADERS end within their priority"))?;
            depends_on = u32_of(priority.get(..4).unwrap_or_default()).map(|id| id & WINDOW_LIMIT);
            block = rest;
        }
        Ok(Frame::Headers {
            stream: self.stream,
            block,
            end_stream: self.has(END_STREAM),
            end_headers: self.has(END_HEADERS),
            depends_on,
        })
    }

    fn priority<'a>(&self, payload: &'a [u8]) -> Result<Frame<'a>, Fault> {
        let fields = payload.first_chunk::<4>().filter(|_| payload.len() == 5);
        let why = "PRIORITY has not 5 bytes";
        let depends_on = fields.ok_or(Fault::stream(self.stream, Code::FrameSize, why))?;
        let depends_on = u32::from_be_bytes(*depends_on) & WINDOW_LIMIT;
        Ok(Frame::Priority { stream: self.stream, depends_on })
    }

    /// What is between the length of the padding and the padding (RFC 9113 §6.1).
    fn unpadded<'a>(&self, payload: &'a [u8]) -> Result<&'a [u8], Fault> {
        if !self.has(PADDED) {
            return Ok(payload);
        }
        let (padding, rest) = payload.split_first().ok_or(size("padding has no length"))?;
        let len = rest.len().checked_sub(usize::from(*padding));
        let unpadded = len.and_then(|len| rest.get(..len));
        unpadded.ok_or(protocol("padding is longer than its frame"))
    }

    fn settings<'a>(&self, payload: &'a [u8]) -> Result<Frame<'a>, Fault> {
        if self.has(ACK) {
            let empty = payload.is_empty().then_some(Frame::SettingsAck);
            return empty.ok_or(size("an acknowledgement of SETTINGS has a payload"));
        }
        let (entries, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(size("SETTINGS end within an entry"));
        }
        let mut settings = Settings::default();
        for &[k0, k1, v0, v1, v2, v3] in entries {
            settings.take(u16::from_be_bytes([k0, k1]), u32::from_be_bytes([v0, v1, v2, v3]))?;
        }
        Ok(Frame::Settings(settings))
    }
}

impl Settings {
    /// Takes one entry; of several of a kind the last stands (RFC 9113 §6.5.3).
    fn take(&mut self, kind: u16, value: u32) -> Result<(), Fault> {
        match kind {
            2 if value > 1 => return Err(protocol("SETTINGS_ENABLE_PUSH is neither 0 nor 1")),
            3 => self.streams = Some(value),
            4 if value > WINDOW_LIMIT => {
                let why = "SETTINGS_INITIAL_WINDOW_SIZE is over 2^31-1";
                return Err(Fault::connection(Code::FlowControl, why));
            }
            4 => self.window = Some(value),
            5 if !(1 << 14..1 << 24).contains(&value) => {
                return Err(protocol("SETTINGS_MAX_FRAME_SIZE is out of its range"));
            }
            8 if value > 1 => {
                return Err(protocol("SETTINGS_ENABLE_CONNECT_PROTOCOL is neither 0 nor 1"));
            }
            // pushes, a table and frames larger than are sent here, and the unknown
            _ => {}
        }
        Ok(())
    }
}

fn goaway(payload: &[u8]) -> Option<Frame<'static>> {
    let last = u32_of(payload.get(..4)?)? & WINDOW_LIMIT;
    Some(Frame::GoAway { last, code: Code::of(u32_of(payload.get(4..8)?)?) })
}

fn u32_of(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

fn protocol(why: &'static str) -> Fault {
    Fault::connection(Code::Protocol, why)
}

fn size(why: &'static str) -> Fault {
    Fault::connection(Code::FrameSize, why)
}

fn header(len: usize, kind: u8, flags: u8, stream: u32) -> [u8; HEADER_LEN] {
    debug_assert!(len <= FRAME_MAX, "a frame of {len} bytes");
    let [_, a, b, c] = u32::try_from(len).unwrap_or_default().to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    [a, b, c, kind, flags, s0, s1, s2, s3]
}

fn put_header(out: &mut BytesMut, len: usize, kind: u8, flags: u8, stream: u32) {
    out.put_slice(&header(len, kind, flags, stream));
}

/// Puts the header of a DATA frame; its `len` bytes follow.
pub(super) fn put_data(out: &mut BytesMut, stream: u32, len: usize, end: bool) {
    put_header(out, len, DATA, if end { END_STREAM } else { 0 }, stream);
}

/// Makes room for the header of HEADERS; where it is.
pub(super) fn begin_headers(out: &mut BytesMut) -> usize {
    let at = out.len();
    put_header(out, 0, HEADERS, 0, 0);
    at
}

/// Ends the block of fields that was put behind the header at `at`, cut into as many frames as it
/// needs.
pub(super) fn end_headers(out: &mut BytesMut, at: usize, stream: u32, end: bool) {
    let len = out.len() - at - HEADER_LEN;
    let first = len.min(FRAME_MAX);
    let rest = (len > FRAME_MAX).then(|| out.split_off(at + HEADER_LEN + first));
    let flags = if end { END_STREAM } else { 0 } | if rest.is_none() { END_HEADERS } else { 0 };
    if let Some(place) = out.get_mut(at..at + HEADER_LEN) {
        place.copy_from_slice(&header(first, HEADERS, flags, stream));
    }
    let Some(mut rest) = rest else { return };
    while !rest.is_empty() {
        let part = rest.split_to(rest.len().min(FRAME_MAX));
        let flags = if rest.is_empty() { END_HEADERS } else { 0 };
        put_header(out, part.len(), CONTINUATION, flags, stream);
        out.put_slice(&part);
    }
}

pub(super) fn put_reset(out: &mut BytesMut, stream: u32, code: Code) {
    put_header(out, 4, RST_STREAM, 0, stream);
    out.put_u32(code.number());
}

/// Puts SETTINGS with these entries.
pub(super) fn put_settings(out: &mut BytesMut, entries: &[(u16, u32)]) {
    put_header(out, entries.len() * 6, SETTINGS, 0, 0);
    for (kind, value) in entries {
        out.put_u16(*kind);
        out.put_u32(*value);
    }
}

pub(super) fn put_settings_ack(out: &mut BytesMut) {
    put_header(out, 0, SETTINGS, ACK, 0);
}

pub(super) fn put_ping(out: &mut BytesMut, payload: [u8; 8], ack: bool) {
    put_header(out, 8, PING, if ack { ACK } else { 0 }, 0);
    out.put_slice(&payload);
}

/// Puts GOAWAY; `why` is for whoever debugs the other side.
pub(super) fn put_goaway(out: &mut BytesMut, last: u32, code: Code, why: &str) {
    put_header(out, 8 + why.len(), GOAWAY, 0, 0);
    out.put_u32(last);
    out.put_u32(code.number());
    out.put_slice(why.as_bytes());
}

pub(super) fn put_window_update(out: &mut BytesMut, stream: u32, increment: u32) {
    put_header(out, 4, WINDOW_UPDATE, 0, stream);
    out.put_u32(increment);
}

#[cfg(test)]
mod tests;
