//! `mesh/1`: the framed, multiplexed link between two agents. docs/link.md specifies it.
//!
//! A link runs over one TLS connection, which speaks for one source identity and one destination
//! service, so no frame carries identity. [`Connection`] is the protocol, free of I/O; [`client`]
//! and [`server`] put it on a transport, with a [`Driver`] that the caller spawns and awaits.

mod ahead;
mod body;
mod connection;
mod driver;
mod error;
mod frame;
mod handle;
mod head;
mod limits;
mod settings;
mod stream;
mod tcp;

pub use ahead::ReadAhead;
pub use body::{BodySink, LinkBody, SendBodyError};
pub use connection::{Chunk, Connection, Role};
pub use driver::{Config, Driver, client, server};
pub use error::{Code, LinkError};
pub use frame::{Decoder, Frame, HEADER};
pub use handle::{Incoming, LinkClient, LinkServer, Responder, ResponseFuture};
pub use head::{Open, RequestHead, ResponseHead, Target, TcpOpen};
pub use limits::Limits;
pub use settings::Settings;
pub use tcp::LinkStream;

/// The ALPN protocol of this link; another major version is another name.
pub const ALPN: &[u8] = b"mesh/1";

#[cfg(test)]
mod tests;
