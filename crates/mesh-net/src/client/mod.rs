//! The client of the servers' API: one typed method per route, for agents, the CLI and anyone's
//! own tools.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use mesh_net::client::{ClientBuilder, ReadOptions, Trust};
//! use mesh_net::token::Secret;
//!
//! let client = ClientBuilder::new(["ctl-1:7300", "ctl-2:7300"])
//!     .trust(Trust::Pem(std::fs::read_to_string("ca.pem")?))
//!     .token(Secret::from_file("/root/.mesh/token".as_ref())?)
//!     .build()?;
//! for node in client.nodes(ReadOptions::default()).await?.value {
//!     println!("{}", node.name);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Any server answers. The client keeps to one that does, and turns to the next when it cannot
//! connect. It repeats a request only if that is safe: reads; and writes that were surely not
//! sent, or that a server without a leader refused. A write that got no answer in time may or may
//! not be in force, and [`ClientError::Unknown`] says so.

mod builder;
mod call;
mod duplex;
mod error;
mod outcome;
mod routes;
mod shared;
mod watch;

pub use builder::{ClientBuilder, Trust};
pub use call::{Answer, Client, Consistency, ReadOptions, Wait};
pub use duplex::{StreamReceiver, StreamSender};
pub use error::{ClientError, ErrorKind};
pub use watch::Watch;

pub use crate::limits::client::{
    ADDRESSES_MAX, ANSWER_BYTES_MAX, CALL_TIMEOUT, CONNECT_TIMEOUT, SNAPSHOT_BYTES_MAX,
};

#[cfg(test)]
mod tests;
