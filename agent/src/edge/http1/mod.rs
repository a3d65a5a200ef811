//! HTTP/1.1 (RFC 9112) with local callers and applications: a strict server and a strict client.
//!
//! [`head`], [`answer`], [`chunked`] and [`writer`] are pure; [`conn`] holds a transport with what
//! was read and not yet taken; [`serve`] runs one connection of a caller, [`Client`] keeps the
//! connections to applications. [`upgrade`] says which of them may leave HTTP, [`Raw`] is one that did.

mod answer;
mod chunked;
mod client;
mod conn;
mod head;
mod raw;
mod reply;
mod server;
mod upgrade;
mod writer;

pub use client::{Client, SendError, Sent, connect};
pub use raw::Raw;
pub use server::{Config, Outcome, Served, serve};
pub use upgrade::Upgrade;

#[cfg(test)]
mod tests;
