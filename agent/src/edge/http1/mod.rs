//! HTTP/1.1 (RFC 9112) with local callers: a strict server.
//!
//! [`head`], [`chunked`] and [`answer`] are pure; [`conn`] holds a transport with what was read
//! and not yet taken; [`serve`] runs one connection.

mod answer;
mod chunked;
mod conn;
mod head;
mod server;

pub use server::{Config, Served, serve};

#[cfg(test)]
mod tests;
