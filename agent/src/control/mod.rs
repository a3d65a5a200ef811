//! What servers say, and what they are told.
//!
//! [`stream`] is the one long exchange: config comes, acknowledgements, heartbeats and health go.
//! [`register`] tells the servers what the host declares. [`cache`] keeps the last good config.

pub mod backoff;
pub mod cache;
mod clients;
pub mod register;
pub mod session;
pub(crate) mod stream;
pub mod wants;

pub(crate) use clients::Clients;
