//! HTTP/2 (RFC 9113) with local callers and applications: a strict server and a strict client.
//!
//! [`frame`], [`hpack`], [`head`] and [`budget`] are pure; [`conn`] holds all that is known of a
//! connection, [`pump`] moves its bytes; [`serve`] runs one connection of a caller in one task,
//! however many requests are on it.

mod body;
mod budget;
mod client;
mod clock;
mod conn;
mod error;
mod frame;
mod head;
mod hpack;
mod output;
mod pump;
mod server;
mod stream;

pub use client::Client;
pub use server::serve;

pub use super::http1::{Config, Served};

#[cfg(test)]
mod tests;
