//! Every bound of the edge, in one place.

use std::time::Duration;

/// Bytes of a request's head.
pub(super) const HEAD_BYTES_MAX: usize = 64 << 10;

/// Header fields of one head, and of one block of trailers.
pub(super) const HEADERS_MAX: usize = 100;

/// Bytes of a block of trailers.
pub(super) const TRAILERS_BYTES_MAX: usize = 8 << 10;

/// Bytes of one chunk's size line, with its extension.
pub(super) const CHUNK_LINE_MAX: usize = 256;

/// Bytes that the size lines of one body may take beyond what the data warrants: extensions and
/// chunks of one byte are a way to make a proxy work for nothing.
pub(super) const CHUNK_LINES_MAX: usize = 64 << 10;

/// Bytes of further requests taken while one is answered.
pub(super) const PIPELINED_MAX: usize = 16 << 10;

/// Bytes of one read of a body.
pub(super) const READ_SIZE: usize = 32 << 10;

/// Room that is left for one read of a body at least.
pub(super) const READ_LEAST: usize = 8 << 10;

/// Bytes of one read of a head: on the stack, so that a resting connection holds no buffer.
pub(super) const HEAD_READ_SIZE: usize = 4 << 10;

/// Bytes of an answer gathered before they are written.
pub(super) const GATHERED_MAX: usize = 16 << 10;

/// From a chunk of this size on, data is written where it lies rather than copied.
pub(super) const COPIED_MAX: usize = 8 << 10;

/// Preliminary answers (1xx) before the answer.
pub(super) const INFORMED_MAX: usize = 8;

/// For a connection to an application: it is on this host.
pub(super) const APP_CONNECT: Duration = Duration::from_secs(1);

/// After this an idle connection is not used again: most servers close theirs later than that.
pub(super) const APP_IDLE: Duration = Duration::from_secs(4);

/// Idle connections kept for one application: as many as it answered at once shortly before, or the
/// next burst would pay for connecting anew.
pub(super) const APP_IDLE_MAX: usize = 512;

/// A connection closed before its request was read lingers so long, lest the answer be lost.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// Bytes thrown away while it lingers.
pub(super) const LINGER_BYTES_MAX: usize = 1 << 20;
