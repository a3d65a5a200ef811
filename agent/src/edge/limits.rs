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

/// HTTP/2: bytes of a frame's payload, as agreed by saying nothing (RFC 9113 §6.5.2).
pub(super) const FRAME_MAX: usize = 16 << 10;

/// Bytes of the fields of one block, decoded, counted as RFC 9113 §6.5.2 does.
pub(super) const FIELDS_BYTES_MAX: usize = 16 << 10;

/// Bytes of one block of fields as it is sent: no honest one is larger than what it decodes to.
pub(super) const BLOCK_BYTES_MAX: usize = 32 << 10;

/// Frames that one block of fields may be cut into.
pub(super) const BLOCK_FRAMES_MAX: usize = 16;

/// Bytes of the table that fields are decoded with, as agreed by saying nothing.
pub(super) const TABLE_BYTES_MAX: usize = 4 << 10;

/// Streams that a client may have open at once.
pub(super) const STREAMS_MAX: usize = 100;

/// Bytes that may come on a stream before somebody takes them, as agreed by saying nothing.
pub(super) const STREAM_WINDOW: u32 = 65_535;

/// Bytes that may come on all streams of a connection before somebody takes them.
pub(super) const CONNECTION_WINDOW: u32 = 1 << 20;

/// Streams that ended and are remembered, for frames may still be on their way.
pub(super) const ENDED_MAX: usize = 128;

/// Bytes of frames gathered before they are written; control frames and heads may exceed it.
pub(super) const WINDOW_GATHERED_MAX: usize = 64 << 10;

/// Bytes that wait for a client that does not read: nothing more is read from it then.
pub(super) const OWED_MAX: usize = 256 << 10;

/// Bytes that one stream is let to gather at a time while others wait.
pub(super) const SHARE: usize = 32 << 10;

/// From a part of this size on, data is neither copied out of what was read nor into what is
/// written.
pub(super) const SLICED_LEAST: usize = 4 << 10;

/// Parts written at once.
pub(super) const SLICES_MAX: usize = 32;

/// Bytes of one read while no frame is cut: on the stack, so that a waiting connection holds none.
pub(super) const FRAMES_READ_SIZE: usize = 16 << 10;

/// Reads, and rounds of reading, answering and writing, before other tasks have their turn.
pub(super) const ROUNDS_MAX: usize = 8;

/// Frames beyond need (pings, settings, priorities, windows, empty data, unknown ones) that are
/// taken at once.
pub(super) const IDLE_FRAMES_MAX: u32 = 1_000;

/// How many of them become allowed again every second, and by every frame that carries a message.
pub(super) const IDLE_FRAMES_A_SECOND: u32 = 100;
pub(super) const IDLE_FRAMES_A_FRAME: u32 = 8;

/// Data from this size on may still come on a stream that this side ended; less counts as a frame
/// beyond need.
pub(super) const LATE_DATA_LEAST: u32 = 256;

/// Streams ended before their answer, by the client or by what it did wrong, that are taken at
/// once (CVE-2023-44487), and how many become allowed again every second; an answer allows one.
pub(super) const RESETS_MAX: u32 = 200;
pub(super) const RESETS_A_SECOND: u32 = 50;

/// How long the other side may let an answer wait for room in its windows.
pub(super) const WINDOW_STALL: Duration = Duration::from_secs(30);

/// How long a transport may take no byte of what waits.
pub(super) const WRITE_STALL: Duration = Duration::from_secs(30);

/// How long requests on their way are waited for once the connection is to end.
pub(super) const DRAIN: Duration = Duration::from_secs(1);

/// Connections of HTTP/2 to one application.
pub(super) const APP_CONNECTIONS_MAX: usize = 16;

/// Streams that are opened on one of them, whatever more the application takes.
pub(super) const APP_STREAMS_MAX: usize = 256;

/// How long a request waits for a stream to become free.
pub(super) const APP_STREAM_WAIT: Duration = Duration::from_secs(5);

/// After this an idle connection of HTTP/2 to an application is closed.
pub(super) const APP_REST: Duration = Duration::from_secs(60);

/// How long the rest of a head from an application may take.
pub(super) const APP_HEAD: Duration = Duration::from_secs(10);

/// How often a request is sent that the application surely has not looked at.
pub(super) const APP_TRIES_MAX: usize = 3;
