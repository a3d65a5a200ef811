//! Answers as text for people. Pure: an answer in, text out; now is an argument.

mod members;
mod policy;
mod services;
mod status;
mod tokens;
mod why;

#[cfg(test)]
mod samples;

pub(crate) use members::{members, node, nodes, servers};
pub(crate) use policy::{applied, objects};
pub(crate) use services::{host_services, service, services};
pub(crate) use status::{Asked, Said, judge, status};
pub(crate) use tokens::{purpose, tokens};
pub(crate) use why::why;
