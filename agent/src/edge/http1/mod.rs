//! HTTP/1.1 (RFC 9112) with local callers and applications: a strict server and a strict client.
//!
//! [`head`], [`answer`], [`chunked`] and [`writer`] are pure; [`conn`] holds a transport with what
//! was read and not yet taken; [`serve`] runs one connection of a caller, [`Client`] keeps the
//! connections to applications.

mod answer;
mod chunked;
mod client;
mod conn;
mod head;
mod reply;
mod server;
mod trailers;
mod writer;

pub use client::{Client, SendError, connect};
pub use server::{Config, Served, serve};

#[cfg(test)]
mod tests;
