//! Every bound, deadline and interval of the command line and of `mesh dev`, in one place, by room.
//!
//! What the wire and the state bear stands in `mesh_core::limits`.

pub(crate) mod agent {
    use std::time::Duration;

    /// The time for one exchange.
    pub(crate) const DEADLINE: Duration = Duration::from_secs(15);
    pub(crate) const ANSWER_BYTES_MAX: u64 = 16 << 20;
}

pub(crate) mod files {
    pub(crate) const DEPTH_MAX: usize = 16;
}

pub(crate) mod commands {
    use std::time::Duration;

    /// The time of one server to say how it is.
    pub(crate) const STATUS_ANSWER: Duration = Duration::from_secs(3);
    pub(crate) const STATUS_POLL: Duration = Duration::from_millis(250);
    pub(crate) const NAMES_SHOWN: usize = 8;
    pub(crate) const TTL_SECONDS_MAX: u64 = 31_536_000;
}

pub(crate) mod dev {
    use std::time::Duration;

    /// Bytes of an answer that a sample application reads.
    pub(crate) const APPS_BODY_MAX: usize = 64 << 10;
    /// Connections one sample application serves at a time.
    pub(crate) const APPS_CONNECTIONS_MAX: usize = 512;
    /// For one step.
    pub(crate) const CHECK_STEP: Duration = Duration::from_secs(20);
    /// How long traffic is watched after the leader is gone.
    pub(crate) const CHECK_WATCH: Duration = Duration::from_secs(3);
    /// How often the table is printed.
    pub(crate) const REFRESH: Duration = Duration::from_secs(1);
    /// For agents and applications to end.
    pub(crate) const STOP: Duration = Duration::from_secs(15);
    /// For a server to be taken in as a voter.
    pub(crate) const SERVERS_JOIN: Duration = Duration::from_secs(30);
    /// For a server to end after it was told to.
    pub(crate) const SERVERS_STOP: Duration = Duration::from_secs(10);
    /// Calls of one kind still unanswered at most; beyond it a call is skipped and counted.
    pub(crate) const TRAFFIC_PENDING_MAX: usize = 256;
    /// Latencies kept for the percentiles of the table.
    pub(crate) const LATENCIES_MAX: usize = 512;
}
