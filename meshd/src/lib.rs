//! The control server of a mesh: catalog, policy and certificates, kept by Raft.
//!
//! Reading order: [`run`](mod@run) assembles a server; [`init`] and [`join`] set one up. `api` answers
//! requests, `watch` feeds the agents' streams, `lease` tells the living from the dead,
//! `membership` takes servers in; all read the state of [`raft`] and write through it. [`ca`]
//! signs, [`tokens`] lets in.
#![forbid(unsafe_code)]

pub mod args;
mod limits;

pub mod config;

pub mod run;

pub mod init;

pub mod join;

pub mod error;

mod disk;

mod server;

mod api;

mod watch;

mod lease;

mod membership;

mod levels;

mod metrics;

pub mod ca;

pub mod tokens;

pub mod raft;

pub use config::Config;
pub use error::RunError;
pub use run::{Deps, Running, run, start};
