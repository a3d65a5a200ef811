//! System tests: real processes, real sockets, backends that were not written here.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod bring_up;
mod cables;
mod callers;
mod capture;
mod change;
mod clients;
mod disk;
mod durability;
mod exposed;
mod faults;
mod handshakes;
mod input;
mod keys;
mod long;
mod readme;
mod scale;
mod security;
mod servers;
mod texts;
mod websocket;
mod world;
mod wrong_text;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One of these tests at a time: they measure, and they load the machine.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
