//! The kernel's side doors: who owns a local TCP socket, where a redirected connection was
//! going, and passing descriptors between processes.
//!
//! This is the one crate where `unsafe` may stand, each block with a `SAFETY` comment and a test.
//! Today there is none: rustix wraps every call needed here, and the netlink messages are read and
//! written as plain bytes.

pub mod fd_pass;
pub mod original_dst;
pub mod sock_diag;
