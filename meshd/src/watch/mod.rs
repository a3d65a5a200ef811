//! The agents' streams: each agent gets the resources it subscribes to and may know.
//!
//! [`plan`] says what a stream must be sent, purely; [`cache`] holds each resource as bytes, made
//! once for all streams; [`stream`] is the task of one agent.

mod cache;
mod plan;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use cache::Cache;
pub(crate) use stream::{Caller, open};
