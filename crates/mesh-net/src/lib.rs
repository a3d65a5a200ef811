//! The shared edge of the mesh: TLS with SPIFFE identities, the API client, and what every
//! daemon needs around its main loop.
//!
//! Reading order: [`tls`] says who may talk to whom; [`client`] calls the servers' API;
//! [`pack`] and [`stream`] put messages into bytes; the rest is small.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod limits;
pub mod tls;

pub mod csr;

pub mod client;

pub mod token;

pub mod pack;

pub mod stream;

pub mod telemetry;

pub mod notify;

pub mod tasks;

pub mod files;

pub mod open_files;

pub mod settings;

pub mod hash;

pub mod clock;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use tls::provider;
