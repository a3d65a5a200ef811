//! Every bound, deadline and interval of an agent, in one place, by room.
//!
//! What the wire and the state bear stands in `mesh_core::limits`, a link's bounds in `link/limits.rs`.

pub(crate) mod admin {
    use std::time::Duration;

    pub(crate) const CONNECTIONS_MAX: usize = 64;
    pub(crate) const CONNECTION: Duration = Duration::from_secs(300);
    pub(crate) const HEAD: Duration = Duration::from_secs(10);
    pub(crate) const HEAD_BYTES_MAX: usize = 32 << 10;
    pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
}

pub(crate) mod live {
    /// How many services may be asked for by first use.
    pub(crate) const WANTED_MAX: usize = 1024;
}

pub(crate) mod run {
    use std::time::Duration;

    pub(crate) const COMMANDS_MAX: usize = 16;
    pub(crate) const STATUS_EVERY: Duration = Duration::from_secs(1);
    pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(5);
    pub(crate) const READY_WITHIN: Duration = Duration::from_secs(60);
    pub(crate) const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);
}

pub(crate) mod callers {
    use std::time::Duration;

    pub(crate) const UNIT_DIRECTORIES_MAX: usize = 4_096;
    pub(crate) const CGROUPS_KNOWN_MAX: usize = 16_384;
    pub(crate) const ELSEWHERE_MAX: usize = 4_096;
    pub(crate) const WALK_COST_MIN: u32 = 16;
    pub(crate) const MOUNTINFO_LEN_MAX: u64 = 4 << 20;
    pub(crate) const KERNEL_SOCKETS_MAX: usize = 64;
    pub(crate) const UNIT_PATH_LEN_MAX: usize = 4095;
    pub(crate) const UNIT_NAME_LEN_MAX: usize = 255;
    /// The longest wait for `getent`, which may ask a directory server.
    pub const GETENT_TIMEOUT: Duration = Duration::from_secs(5);
    pub(crate) const USERS_NAME_LEN_MAX: usize = 255;
    pub(crate) const PASSWD_LEN_MAX: u64 = 16 << 20;
    pub(crate) const GETENT_LEN_MAX: u64 = 64 << 10;
}

pub(crate) mod control {
    use std::time::Duration;

    use mesh_core::limits::SUBSCRIPTIONS_MAX;

    pub(crate) const BACKOFF_LEAST_MS: u64 = 500;
    pub(crate) const CACHE_BYTES_MAX: u64 = 256 << 20;
    pub(crate) const WRITE_PAUSE: Duration = Duration::from_secs(1);
    /// Time between comparisons when nothing changes.
    pub(crate) const REGISTER_RECHECK: Duration = Duration::from_secs(300);
    pub(crate) const RETRY_REFUSED: Duration = Duration::from_secs(290);
    /// Three for each service, and the bundle.
    pub(crate) const RESOURCES_MAX: u32 = 3 * SUBSCRIPTIONS_MAX as u32 + 1;
    pub(crate) const STREAM_OPEN: Duration = Duration::from_secs(15);
    pub(crate) const STREAM_GREETING: Duration = Duration::from_secs(10);
    pub(crate) const STREAM_SEND: Duration = Duration::from_secs(10);
    pub(crate) const HEARTBEAT_LEAST: Duration = Duration::from_millis(100);
    pub(crate) const HEARTBEAT_MOST: Duration = Duration::from_secs(60);
    /// 128 instances of 16 checks of 256 bytes are half a megabyte.
    pub(crate) const INSTANCES_PER_MESSAGE: usize = 128;
    pub(crate) const REPORT_WARNINGS_MAX: usize = 20;
    pub(crate) const WARNING_CHARS_MAX: usize = 300;
}

pub(crate) mod health {
    use std::time::Duration;

    /// Outcomes waiting to be taken.
    pub(crate) const OUTCOMES_MAX: usize = 256;
    /// Tries under way at once.
    pub(crate) const TRIES_MAX: usize = 64;
    pub(crate) const SAVE_EVERY: Duration = Duration::from_secs(2);
    pub(crate) const FIRST_WITHIN_MS: u64 = 1_000;
    pub(crate) const FILE_BYTES_MAX: u64 = 32 << 20;
    pub(crate) const OUTPUT_BYTES_MAX: usize = 4096;
    pub(crate) const EXEC_REAP: Duration = Duration::from_secs(1);
    pub(crate) const BODY_BYTES_MAX: usize = 64 << 10;
    pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;
}

pub(crate) mod host {
    use std::time::Duration;

    /// Applications see each look as a connection that says nothing, so there are few.
    pub(crate) const EXPOSED_EVERY: Duration = Duration::from_secs(60);
    pub(crate) const EVERY_EXPOSED: Duration = Duration::from_secs(5);
    /// The address is this host's own: it answers or refuses at once.
    pub(crate) const EXPOSED_TRY: Duration = Duration::from_millis(250);
    pub(crate) const FILES_MAX: usize = 1024;
    pub(crate) const PROBLEMS_MAX: usize = 100;
    pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(60);
    pub(crate) const RESCAN: Duration = Duration::from_secs(30);
    pub(crate) const DEBOUNCE: Duration = Duration::from_millis(100);
    pub(crate) const SOCKET_CONNECTIONS_MAX: usize = 32;
    pub(crate) const LINE_BYTES_MAX: u64 = 4 << 20;
    pub(crate) const SOCKET_IDLE: Duration = Duration::from_secs(60);
    pub(crate) const SOCKET_ANSWER: Duration = Duration::from_secs(10);
    pub(crate) const SOCKET_ACCEPT_PAUSE: Duration = Duration::from_millis(100);
}

pub(crate) mod identity {
    use std::time::Duration;

    pub(crate) const UNUSED_GRACE_MS: u64 = 10 * 60 * 1000;
    pub(crate) const WAIT_LEAST: Duration = Duration::from_millis(50);
    pub(crate) const WAIT_MOST: Duration = Duration::from_secs(30);
    pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;
}

pub(crate) mod proxy {
    use std::time::Duration;

    /// How often idle connections to applications are looked through.
    pub(crate) const APP_PRUNE_EVERY: Duration = Duration::from_secs(4);
    /// Connections the kernel holds for us while we are busy.
    pub(crate) const BACKLOG: u32 = 1024;
    /// After this a port that could not be bound is tried again.
    pub(crate) const REBIND_PAUSE: Duration = Duration::from_secs(5);
    /// After accept failed for want of descriptors or memory.
    pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
    /// How long what was sent to another agent may stay unacknowledged.
    pub(crate) const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);
    /// Links kept at most, by all workers together; beyond it idle ones are closed.
    pub(crate) const LINKS_MAX: usize = 4_096;
    /// Of which this part at once, lest all be made anew.
    pub(crate) const LINKS_EVICTED: usize = 16;
    /// Counters that a worker has at hand; beyond it they are looked up anew.
    pub(crate) const KNOWN_CALLS_MAX: usize = 4_096;
    /// Threads that carry calls.
    pub(crate) const WORKERS_MAX: usize = 64;
    /// Endpoints tried for one call, when the ones before surely saw nothing of it.
    pub(crate) const EXCHANGE_TRIES: usize = 3;
    /// Times that the way is found anew because a route leads to a service not known yet.
    pub(crate) const FIRST_USES: usize = 3;
    /// Endpoints tried for one connection, when the ones before surely saw nothing of it.
    pub(crate) const STREAM_TRIES: usize = 3;
}
