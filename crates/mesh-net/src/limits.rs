//! Every bound, deadline and interval of the shared edge, in one place, by room.
//!
//! What the wire and the state bear stands in `mesh_core::limits`.

pub(crate) mod notify {
    use std::time::Duration;

    /// For what is said once.
    pub(crate) const ONCE: Duration = Duration::from_secs(1);
    /// For what is said again soon.
    pub(crate) const AGAIN_SOON: Duration = Duration::ZERO;
}

pub(crate) mod pack {
    /// Deepest nesting that is read: a peer's bytes must not use up the stack.
    pub const DEPTH_MAX: usize = 64;
}

pub(crate) mod token {
    /// Most bytes of a token's text, or of a file that holds one.
    pub const TOKEN_BYTES_MAX: u64 = 4096;
}

pub(crate) mod client {
    use std::time::Duration;

    /// Pause before all servers are asked again for a leader: elections take about a second.
    pub(crate) const LEADER_PAUSE: Duration = Duration::from_millis(200);
    /// Least time that one of several servers gets to answer a read.
    pub(crate) const READ_SHARE_MIN: Duration = Duration::from_secs(1);
    /// How often a server is asked whether it is there, and how long it may take to say so. One that
    /// is cut off must be noticed well within a lease of 10 s: agents that stay with it for longer
    /// are taken for gone, and nobody calls their services.
    pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(2);
    /// Messages that may wait to be sent.
    pub(crate) const OUTGOING_MAX: usize = 64;
    /// How long connecting to one server may take, TLS included, unless set otherwise.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
    /// How long a call may take with all its repetitions, unless set otherwise.
    pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
    /// Most bytes of an answer.
    pub const ANSWER_BYTES_MAX: usize = 64 << 20;
    /// Most bytes of a saved snapshot.
    pub const SNAPSHOT_BYTES_MAX: usize = 256 << 20;
    /// Most addresses that are tried.
    pub const ADDRESSES_MAX: usize = 64;
    /// Least time between two polls that brought nothing new: a server that does not wait must not be
    /// asked in a hot loop.
    pub(crate) const POLL_PAUSE: Duration = Duration::from_millis(100);
    /// Longest pause after repeated errors.
    pub(crate) const ERROR_PAUSE_MAX: Duration = Duration::from_secs(10);
}

pub(crate) mod tls {
    /// Most certificates that a peer may present, the leaf included.
    pub const CHAIN_CERTS_MAX: usize = 6;
    /// Most bytes of one certificate.
    pub const CERT_BYTES_MAX: usize = 16 << 10;
    /// Most trust anchors in one bundle.
    pub const ROOTS_MAX: usize = 16;
}
