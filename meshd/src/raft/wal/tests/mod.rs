//! The log as a whole: against a model, through power cuts, with a failing disk, on real files.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod faults;

mod files;

mod model;

mod power;

use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;

use super::{Done, Mark, Options, WalError};

/// Small segments, so that a few records roll them.
fn small() -> Options {
    Options { segment_bytes: 2_000, commit_delay: Duration::ZERO, ..Options::default() }
}

fn body(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

fn mark(index: u64) -> Mark {
    Mark { index, body: body(format!("id {index}")) }
}

/// A `done` and where its answer arrives.
fn answer() -> (Done, mpsc::Receiver<Result<(), WalError>>) {
    let (tx, rx) = mpsc::channel();
    (Box::new(move |outcome| tx.send(outcome).unwrap()), rx)
}

fn ignore() -> Done {
    Box::new(drop)
}

const DEADLINE: Duration = Duration::from_secs(20);
