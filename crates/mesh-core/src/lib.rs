//! The pure part of the mesh: no async, no I/O, no clock, no randomness, no hash maps.
//!
//! Reading order: [`name`] and [`identity`] say who; [`revision`], [`time`] and [`hash`] are small
//! values; [`catalog`] and [`policy`] are what users declare; [`command`] is the alphabet of the
//! Raft log and [`state`] its fold; [`compile`] derives [`resource`]s from the state; [`path`],
//! [`access`] and [`route`] answer one request; [`stream`] and [`api`] are the wire types.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// so that one file of helpers serves unit and integration tests
#[cfg(test)]
extern crate self as mesh_core;
#[cfg(test)]
mod testing;

pub mod name;

pub mod identity;

pub mod revision;

pub mod time;

pub mod hash;

pub mod limits;

pub mod catalog;

mod tomltext;

pub mod policy;

pub mod hostfile;

pub mod trust;

pub mod command;

pub mod state;

pub mod resource;

pub mod path;

pub mod access;

pub mod route;

pub mod compile;

pub mod snapshot;

pub mod why;

pub mod stream;

pub mod api;
