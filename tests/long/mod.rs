//! The long forms of the tests: the machinery of the system tests, for minutes instead of seconds.
//!
//! Each form is a function of its options that gives a [`Outcome`]; the command `mesh-long` and
//! the short forms among the system tests call the same functions.

pub mod args;
pub mod chaos;
pub mod report;
pub mod sample;
pub mod scale;
pub mod soak;
pub mod traffic;
pub mod windows;
pub mod world;

pub use report::Outcome;
