//! What can be wrong with a stream or a connection, by the RFC's codes.

/// An error code (RFC 9113 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    No,
    Protocol,
    Internal,
    FlowControl,
    StreamClosed,
    FrameSize,
    Refused,
    Cancel,
    Compression,
    Calm,
    /// Of no meaning here.
    Other(u32),
}

impl Code {
    pub(super) fn of(number: u32) -> Self {
        match number {
            0x0 => Self::No,
            0x1 => Self::Protocol,
            0x2 => Self::Internal,
            0x3 => Self::FlowControl,
            0x5 => Self::StreamClosed,
            0x6 => Self::FrameSize,
            0x7 => Self::Refused,
            0x8 => Self::Cancel,
            0x9 => Self::Compression,
            0xb => Self::Calm,
            other => Self::Other(other),
        }
    }

    pub(super) fn number(self) -> u32 {
        match self {
            Self::No => 0x0,
            Self::Protocol => 0x1,
            Self::Internal => 0x2,
            Self::FlowControl => 0x3,
            Self::StreamClosed => 0x5,
            Self::FrameSize => 0x6,
            Self::Refused => 0x7,
            Self::Cancel => 0x8,
            Self::Compression => 0x9,
            Self::Calm => 0xb,
            Self::Other(other) => other,
        }
    }
}

/// What the other side did wrong, and what ends by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection.
    Connection { code: Code, why: &'static str },
    /// One stream.
    Stream { id: u32, code: Code, why: &'static str },
}

impl Fault {
    pub(super) const fn connection(code: Code, why: &'static str) -> Self {
        Self::Connection { code, why }
    }

    pub(super) const fn stream(id: u32, code: Code, why: &'static str) -> Self {
        Self::Stream { id, code, why }
    }
}
