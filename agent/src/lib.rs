//! The agent of a host: registers its services, holds their identities, and is their proxy.
//!
//! Reading order: [`config`] and [`args`] say what it goes by; [`run()`] puts it together; [`host`]
//! is what the host declares and [`health`] how that fares; [`identity`] who it is; [`control`]
//! what servers say; [`live`] what is in force; [`proxy`] is the data path, with [`traffic`] to
//! choose by, [`callers`] to tell local processes apart, [`edge`] to speak HTTP with them and
//! [`link`] to carry calls to other agents.
#![forbid(unsafe_code)]

pub mod config;
mod limits;

pub mod args;

mod run;

pub mod error;

mod generation;

pub mod host;

pub mod health;

pub mod identity;

pub mod control;

pub mod live;

pub mod proxy;

pub mod edge;

pub mod traffic;

pub mod callers;

pub mod link;

pub mod status;

pub mod metrics;

pub mod admin;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

pub use error::RunError;
pub use run::{Deps, run};

/// The wall clock, as a value: tests and simulations bring their own.
pub type Clock = std::sync::Arc<dyn Fn() -> mesh_core::time::UnixMillis + Send + Sync>;
