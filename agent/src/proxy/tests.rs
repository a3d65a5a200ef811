//! Two agents in one process over real sockets and real mTLS, with snapshots made by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod cves;
mod hostile_peers;
mod hosts;
mod http2_calls;
mod http_calls;
mod lasting_calls;
mod one_snapshot;
mod paths;
mod plain_clients;
mod recorder;
mod resting;
mod smuggling;
mod tcp_calls;
mod upgrades;
mod uploads;
mod workers;
mod world;
