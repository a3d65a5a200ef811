//! Every bound of a link, in one place.

use std::time::Duration;

use super::settings::Settings;

/// The bounds one side keeps and announces. The defaults suit agents of one datacenter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a stream may receive before its reader takes any.
    pub stream_window: u32,
    /// Bytes to which the window of a stream whose reader keeps up may grow.
    pub stream_window_max: u32,
    /// Bytes that may be under way to this side, all streams together.
    pub connection_window: u32,
    /// Bytes received and not yet read, all streams together, counting what may be under way.
    /// When they are spent the whole link stalls: the last resort that bounds memory.
    pub unread_max: u32,
    /// Payload bytes of a DATA frame. The default fills one TLS record with the frame's header.
    pub data_max: u32,
    /// Payload bytes of an OPEN, HEAD or TRAILERS frame.
    pub head_max: u32,
    /// Header fields of a head or of trailers.
    pub headers_max: u32,
    /// Streams open at once.
    pub streams_max: u32,
    /// Streams opened by the peer and not yet accepted here; more are refused.
    pub backlog_max: usize,
    /// Bytes a stream may hold here, given but not yet sent.
    pub send_queue: usize,
    /// Bytes gathered for one write to the transport, give or take one frame.
    pub write_batch: usize,
    /// Frames without progress taken in `quiet_period`.
    pub quiet_max: u32,
    /// See `quiet_max`.
    pub quiet_period: Duration,
    /// A stream cancelled by the peer within this of its opening counts as no progress.
    pub rapid_reset: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stream_window: Settings::FLOOR.stream_window,
            stream_window_max: 2 << 20,
            connection_window: 4 << 20,
            unread_max: 16 << 20,
            data_max: Settings::FLOOR.data_max,
            head_max: Settings::FLOOR.head_max,
            headers_max: Settings::FLOOR.headers_max,
            streams_max: 4096,
            backlog_max: 1024,
            send_queue: 64 << 10,
            write_batch: 64 << 10,
            quiet_max: 1000,
            quiet_period: Duration::from_secs(10),
            rapid_reset: Duration::from_millis(100),
        }
    }
}

impl Limits {
    /// What this side announces; values outside the format's range are taken to its edge.
    pub fn settings(&self) -> Settings {
        Settings {
            minor: Settings::MINOR,
            stream_window: self.stream_window,
            connection_window: self.connection_window,
            data_max: self.data_max,
            head_max: self.head_max,
            headers_max: self.headers_max,
            streams_max: self.streams_max,
        }
        .clamped()
    }
}

/// Informational heads (1xx) of one stream; one more is a violation. Part of the format.
pub(super) const INFORMED_MAX: u8 = 8;

/// What a queued chunk costs besides its bytes, so that tiny chunks are bounded too.
pub(super) const CHUNK_COST: usize = 64;

/// PINGs of this side without an answer.
pub(super) const PINGS_MAX: usize = 4;

/// No window ever exceeds this.
pub(super) const WINDOW_MAX: u32 = (1 << 31) - 1;

/// Entries of a SETTINGS frame.
pub(super) const ENTRIES_MAX: usize = 32;

/// Frames without progress that progress may explain in advance.
pub(super) const EARNED_MAX: u32 = 4096;

/// Bytes of one read.
pub(super) const READ_SIZE: usize = 64 << 10;

/// Bytes of one read of the socket below TLS.
pub(super) const AHEAD_SIZE: usize = 64 << 10;

/// Reads before others have a turn.
pub(super) const READS_PER_TURN: usize = 16;

/// Writes before others have a turn.
pub(super) const WRITES_PER_TURN: usize = 16;

/// How long a driver sleeps without a nearer deadline.
pub(super) const IDLE_LOOK: Duration = Duration::from_secs(3600);

/// A broken link is not closed politely for longer.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
