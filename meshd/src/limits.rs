//! Every bound, deadline and interval of a server, in one place, by room.
//!
//! What the wire and the state bear stands in `mesh_core::limits`.

pub(crate) mod disk {
    /// Most bytes of any file here.
    pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;
}

pub(crate) mod init {
    use std::time::Duration;

    /// A cluster of one elects itself within an election timeout.
    pub(crate) const COMMIT_MAX: Duration = Duration::from_secs(20);
}

pub(crate) mod membership {
    use std::time::Duration;

    pub(crate) const EVERY: Duration = Duration::from_secs(1);
    pub(crate) const DIAL_MAX: Duration = Duration::from_secs(1);
}

pub(crate) mod run {
    use std::time::Duration;

    pub(crate) const HAND_OVER_MAX: Duration = Duration::from_secs(5);
    /// The API drains for less than this.
    pub(crate) const STOP_MAX: Duration = Duration::from_secs(5);
    pub(crate) const STREAMS_MAX: Duration = Duration::from_secs(2);
}

pub(crate) mod server {
    use std::time::Duration;

    /// How often this server looks at its certificate's age.
    pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(30);
}

pub(crate) mod api {
    use std::time::Duration;

    pub(crate) const BACKUP_FRESH_MAX: Duration = Duration::from_secs(5);
    /// How far ahead of the servers an agent's epoch may be, after a restore from an old disk.
    pub(crate) const EPOCHS_AHEAD_MAX: u64 = 1_000_000;
    /// How far ahead of this server's clock a backup's may be: no two are the same.
    pub(crate) const CLOCK_AHEAD_MS_MAX: u64 = 24 * 3_600_000;
    pub(crate) const GUESSES_MAX: usize = 10;
    pub(crate) const GUESSES_TOTAL_MAX: usize = 100;
    pub(crate) const ISSUES_MAX: usize = 60;
    pub(crate) const STRANGERS_MAX: usize = 256;
    pub(crate) const ENROL_FRESH_MAX: Duration = Duration::from_secs(5);
    pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
    pub(crate) const HEADER_MAX: Duration = Duration::from_secs(10);
    pub(crate) const PING_EVERY: Duration = Duration::from_secs(20);
    pub(crate) const PONG_MAX: Duration = Duration::from_secs(5);
    pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
    /// How long requests under way may take to end.
    pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(4);
    pub(crate) const REASON_BYTES_MAX: usize = 256;
    /// 21 bytes, for a zero in front is common, as pairs with colons between.
    pub(crate) const SERIAL_CHARS_MAX: usize = 62;
    pub(crate) const MESSAGE_BYTES_MAX: usize = 1024;
    pub(crate) const POLICY_FRESH_MAX: Duration = Duration::from_secs(5);
    /// Long enough for an election; the answer is to come within five seconds.
    pub(crate) const CONSISTENT_MAX: Duration = Duration::from_secs(4);
    pub(crate) const WAIT_DEFAULT: Duration = Duration::from_secs(60);
    pub(crate) const JOIN_BYTES_MAX: usize = 64 << 10;
    pub(crate) const BODY_WAIT: Duration = Duration::from_secs(30);
    pub(crate) const RESTORE_WAIT: Duration = Duration::from_secs(120);
    pub(crate) const NOTE_BYTES_MAX: usize = 256;
    pub(crate) const TTL_SECONDS_MAX: u64 = 31_536_000;
    pub(crate) const DIFF_WARNINGS_MAX: usize = 50;
}

pub(crate) mod ca {
    use std::time::Duration;

    /// Bytes of a request in PEM.
    pub const CSR_BYTES_MAX: usize = 16 << 10;
    /// The life of a leaf unless asked otherwise.
    pub const LEAF_LIFETIME: Duration = Duration::from_secs(86_400);
    /// Bytes of a PKCS#8 key that is worth looking at.
    pub(crate) const KEY_LEN_MAX: usize = 16 << 10;
}

pub(crate) mod lease {
    use std::time::Duration;

    /// Leaves kept of a report: one for the node and one for each service it hosts.
    pub(crate) const LEAVES_MAX: usize = 1025;
    /// Longer than any identity of a leaf.
    pub(crate) const LEAF_BYTES_MAX: usize = 512;
    pub(crate) const EXPOSED_MAX: usize = 256;
    pub(crate) const WARNINGS_MAX: usize = 32;
    pub(crate) const TEXT_CHARS_MAX: usize = 512;
    /// Open streams of one node on one server: an old and a new process, and some that are half gone.
    pub(crate) const STREAMS_PER_NODE_MAX: usize = 8;
    /// The first tick: what others heard before this process began has a tick too.
    pub(crate) const BEGIN_MS: u64 = 3_600_000;
    /// Agents in one answer, or less where reports are large.
    pub(crate) const CALL_AGENTS: usize = 500;
    /// Below the 4 MiB of a call. One report alone is below it, too: what it may hold is bounded.
    pub(crate) const CALL_BYTES_MAX: usize = 3 << 20;
    pub(crate) const CALL_MAX: Duration = Duration::from_secs(5);
    /// Fewer nodes than these are judged one by one.
    pub(crate) const GUARD_NODES_MIN: usize = 10;
    /// Percent of nodes that do not fail at once by themselves.
    pub(crate) const GUARD_PERCENT: usize = 30;
    /// How long a node may be suspect: ten minutes.
    pub(crate) const SUSPECT_MS: u64 = 600_000;
    /// How coarse last-seen times are.
    pub(crate) const SEEN_MS: u64 = 10_000;
    /// Longer than any lease.
    pub(crate) const GONE_KEPT_MS: u64 = 300_000;
    pub(crate) const TURN_EVERY: Duration = Duration::from_secs(1);
    /// Agents in one call: well below its bound.
    pub(crate) const SEEN_BATCH: usize = 500;
    pub(crate) const SEEN_CALL_MAX: Duration = Duration::from_secs(2);
    pub(crate) const PROPOSE_MAX: Duration = Duration::from_secs(3);
    /// Longer than a leader's turn takes at most.
    pub(crate) const PAUSE_MAX_MS: u64 = 6_000;
}

pub(crate) mod raft {
    use std::time::Duration;

    use mesh_core::limits::RESTORE_BYTES_MAX;

    pub(crate) const CHECKPOINTS_KEPT: usize = 2;
    /// How often the log's bytes are looked at.
    pub(crate) const COMPACT_EVERY: Duration = Duration::from_secs(1);
    pub(crate) const MANIFEST_BYTES_MAX: u64 = 1 << 20;
    pub(crate) const CHECKPOINT_BYTES_MAX: u64 = RESTORE_BYTES_MAX as u64;
    pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(50);
    /// Entries for one replication message stop at this many bytes; one entry always goes.
    pub(crate) const REPLICATE_BYTES: usize = 1 << 20;
    /// A newcomer has this long to catch up.
    pub(crate) const MEMBERS_CHANGE_MAX: Duration = Duration::from_secs(90);
    pub(crate) const MEMBERS_WRITE_MAX: Duration = Duration::from_secs(10);
    pub(crate) const PROPOSE_MAX: Duration = Duration::from_secs(10);
    pub(crate) const TRANSFER_MAX: Duration = Duration::from_secs(20);
    pub(crate) const MEMBERS_MAX: Duration = Duration::from_secs(100);
    pub(crate) const STOP_MAX: Duration = Duration::from_secs(5);
    /// Changes of membership that may wait.
    pub(crate) const CHANGES_MAX: usize = 16;
    pub(crate) const PEERS_CONNECT_MAX: Duration = Duration::from_secs(3);
    pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(1);
    pub(crate) const KEEP_ALIVE_MAX: Duration = Duration::from_secs(2);
    /// Bytes under way before the receiver says it took them.
    pub(crate) const WINDOW: u32 = 4 << 20;
    /// Bytes kept of a peer's refusal.
    pub(crate) const PEERS_TEXT_MAX: usize = 1024;
    /// A cluster has five members at most; the rest is room for reconnects.
    pub(crate) const SERVER_CONNECTIONS_MAX: usize = 64;
    pub(crate) const SERVER_STREAMS_MAX: u32 = 256;
    pub(crate) const HEADER_BYTES_MAX: u32 = 8 << 10;
    pub(crate) const SERVER_HANDSHAKE_MAX: Duration = Duration::from_secs(5);
    pub(crate) const SERVER_ACCEPT_PAUSE: Duration = Duration::from_millis(100);
    pub(crate) const SERVICE_BODY_MAX: Duration = Duration::from_secs(60);
    /// Bytes of a command in the log. The log takes no record over 16 MiB.
    pub(crate) const COMMAND_BYTES_MAX: usize = 15 << 20;
    /// Bytes of one append: one command of the largest size, or many that stop at 1 MiB.
    pub(crate) const APPEND_BYTES_MAX: usize = 18 << 20;
    /// Bytes of a snapshot with its meta.
    pub(crate) const SNAPSHOT_BYTES_MAX: usize = RESTORE_BYTES_MAX + META_BYTES_MAX;
    /// Bytes of a vote, a transfer, and of every answer but a call's.
    pub(crate) const META_BYTES_MAX: usize = 1 << 20;
    /// Bytes of a generic call, and of its answer.
    pub(crate) const CALL_BYTES_MAX: usize = 4 << 20;
    /// The longest time a server works on somebody's forwarded request.
    pub(crate) const FORWARD_MAX: Duration = Duration::from_secs(120);
    /// Most bytes of one record's type and body. Raft entries stay far below.
    pub(crate) const RECORD_MAX: usize = 16 << 20;
}

pub(crate) mod watch {
    use std::time::Duration;

    pub(crate) const CACHE_FRAMES_MAX: usize = 16_384;
    pub(crate) const CACHE_BYTES_MAX: usize = 64 << 20;
    /// Bytes of one chunk; with [`CHUNKS_MAX`], 256 KiB wait for an agent at most.
    pub(crate) const CHUNK_BYTES: usize = 64 << 10;
    pub(crate) const CHUNKS_MAX: usize = 4;
    pub(crate) const HELLO_MAX: Duration = Duration::from_secs(10);
    pub(crate) const STUCK_MAX: Duration = Duration::from_secs(60);
    pub(crate) const GOODBYE_MAX: Duration = Duration::from_secs(1);
    /// How often an agent is told of revisions that change nothing for it.
    pub(crate) const EMPTY_EVERY: Duration = Duration::from_secs(1);
    pub(crate) const HEALTH_EVERY: Duration = Duration::from_millis(250);
}
