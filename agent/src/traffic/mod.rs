//! Decisions about traffic. Pure: clock and randomness are arguments.

pub mod balance;
