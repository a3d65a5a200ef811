//! The API as clients meet it: a server of its own over TLS on loopback.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod certificates;
mod cluster;
mod flow;
mod forward;
mod hostile;
mod permission;
mod quorum;
mod schemas;
mod world;
