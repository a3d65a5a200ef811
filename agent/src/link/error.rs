//! What can end a stream or a link, and the code that tells the peer.

use std::fmt;
use std::io;

/// A reason as carried by RESET and GOAWAY; codes this version does not name are kept as they came.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

impl Code {
    /// Nothing is wrong: the exchange is complete, or the link is only retired.
    pub const DONE: Self = Self(0);
    /// A frame was malformed, or came where it may not.
    pub const PROTOCOL: Self = Self(1);
    /// More bytes than the window allowed, or a window beyond its bound.
    pub const FLOW: Self = Self(2);
    /// A frame or head over the receiver's bound.
    pub const TOO_LARGE: Self = Self(3);
    /// Too many frames that move nothing forward.
    pub const FLOOD: Self = Self(4);
    /// The sender's own fault.
    pub const INTERNAL: Self = Self(5);
    /// The stream was not looked at; opening it elsewhere is safe.
    pub const REFUSED: Self = Self(6);
    /// Whoever wanted the answer no longer does.
    pub const CANCELLED: Self = Self(7);
    /// The instance could not be reached; it saw no byte of the stream.
    pub const UNAVAILABLE: Self = Self(8);
    /// The caller may not do this.
    pub const DENIED: Self = Self(9);
    /// A deadline passed at the sender.
    pub const TIMEOUT: Self = Self(10);
    /// The application behind the sender broke off in the middle.
    pub const BROKEN: Self = Self(11);
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::DONE => "done",
            Self::PROTOCOL => "protocol",
            Self::FLOW => "flow control",
            Self::TOO_LARGE => "too large",
            Self::FLOOD => "flood",
            Self::INTERNAL => "internal",
            Self::REFUSED => "refused",
            Self::CANCELLED => "cancelled",
            Self::UNAVAILABLE => "unavailable",
            Self::DENIED => "denied",
            Self::TIMEOUT => "timeout",
            Self::BROKEN => "broken",
            Self(other) => return write!(f, "code {other}"),
        };
        f.write_str(name)
    }
}

/// Why a stream or a whole link ended, or an operation was not accepted.
///
/// Cheap to clone: the end of a link is told to each of its streams.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    // The peer's bytes: each of these closes the link.
    /// Neither known nor in the range that may be skipped.
    #[error("frame kind {found:#04x} is unknown")]
    UnknownKind { found: u8 },
    /// A length the kind does not have.
    #[error("frame of kind {kind:#04x} has {found} bytes, expected {expected}")]
    Length { kind: u8, found: usize, expected: &'static str },
    /// Over the bound this side announced.
    #[error("frame of kind {kind:#04x} has {found} bytes, expected at most {max}")]
    Oversized { kind: u8, found: usize, max: usize },
    /// A flag the kind does not have.
    #[error("frame of kind {kind:#04x} has flags {found:#04x}, expected none beyond its own")]
    Flags { kind: u8, found: u8 },
    /// Stream 0 where a stream is needed, a stream where 0 is, or an id out of order.
    #[error("frame of kind {kind:#04x} names stream {found}, expected {expected}")]
    StreamId { kind: u8, found: u32, expected: &'static str },
    /// A head, trailer or settings block that does not parse; says what is wrong with it.
    #[error("malformed block: {0}")]
    Malformed(&'static str),
    /// A setting below its floor or above its ceiling.
    #[error("setting {id} is {found}, expected {min} to {max}")]
    Setting { id: u16, found: u32, min: u32, max: u32 },
    /// A frame of a known kind where the state of link or stream has no place for it.
    #[error("frame of kind {kind:#04x} on stream {stream}, where it may not come")]
    State { kind: u8, stream: u32 },
    /// The peer sent more than its credit.
    #[error("stream {stream} got {found} bytes, expected at most the {window} of its window")]
    WindowExceeded { stream: u32, found: usize, window: u32 },
    /// Credit that lifts a window over 2^31 - 1, or credit of zero.
    #[error("stream {stream} got credit {credit}, expected 1 or more within 2147483647")]
    BadCredit { stream: u32, credit: u32 },
    /// Too many frames that move nothing forward.
    #[error("more than {max} frames without progress in {seconds} s")]
    Flood { max: u32, seconds: u64 },

    // Refused here, nothing was sent.
    /// The peer takes no more streams at once.
    #[error("link carries {max} streams, the most its peer takes")]
    TooManyStreams { max: u32 },
    /// The link is being retired.
    #[error("link takes no new streams")]
    Draining,
    /// The head, encoded, is over the peer's bound.
    #[error("head has {found} bytes, expected at most {max}")]
    HeadTooLarge { found: usize, max: usize },
    /// More header fields than the peer takes.
    #[error("head has {found} fields, expected at most {max}")]
    TooManyHeaders { found: usize, max: usize },
    /// A head that may not travel as it is: hop-by-hop fields, a bad target.
    #[error("head cannot be sent: {0}")]
    BadHead(&'static str),
    /// A call that the state of the stream does not allow: the caller's bug.
    #[error("stream cannot do this now: {0}")]
    Misuse(&'static str),

    // Ends.
    /// The peer ended the stream.
    #[error("stream reset by peer: {0}")]
    Reset(Code),
    /// This side ended the stream.
    #[error("stream ended here: {0}")]
    Ended(Code),
    /// The peer closed the link and says why.
    #[error("link closed by peer: {0}")]
    GoneAway(Code),
    /// The transport ended while streams were open.
    #[error("link ended without notice")]
    PeerGone,
    /// The transport failed.
    #[error("link transport failed: {0}")]
    Io(io::ErrorKind),
    /// The peer did not say hello, answer or read within its deadline.
    #[error("peer was too slow: {0}")]
    TooSlow(&'static str),
    /// The link's driver was dropped.
    #[error("link was dropped")]
    Dropped,
    /// The caller's own deadline passed.
    #[error("deadline passed while waiting for the peer to read")]
    Deadline,
}

impl LinkError {
    /// What to tell the peer.
    pub fn code(&self) -> Code {
        match self {
            Self::UnknownKind { .. }
            | Self::Length { .. }
            | Self::Flags { .. }
            | Self::StreamId { .. }
            | Self::Malformed(_)
            | Self::Setting { .. }
            | Self::State { .. } => Code::PROTOCOL,
            Self::Oversized { .. } | Self::HeadTooLarge { .. } | Self::TooManyHeaders { .. } => {
                Code::TOO_LARGE
            }
            Self::WindowExceeded { .. } | Self::BadCredit { .. } => Code::FLOW,
            Self::Flood { .. } => Code::FLOOD,
            Self::TooManyStreams { .. } | Self::Draining => Code::REFUSED,
            Self::BadHead(_) | Self::Misuse(_) | Self::Dropped => Code::INTERNAL,
            Self::Reset(code) | Self::Ended(code) | Self::GoneAway(code) => *code,
            Self::PeerGone | Self::Io(_) => Code::BROKEN,
            Self::TooSlow(_) | Self::Deadline => Code::TIMEOUT,
        }
    }

    /// Whether the destination certainly saw nothing of the stream, so that opening it
    /// elsewhere cannot repeat its effect.
    pub fn unprocessed(&self) -> bool {
        match self {
            Self::TooManyStreams { .. } | Self::Draining => true,
            Self::Reset(code) | Self::Ended(code) => {
                matches!(*code, Code::REFUSED | Code::UNAVAILABLE)
            }
            _ => false,
        }
    }
}
