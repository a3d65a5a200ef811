//! The mesh's CA: one root, one intermediate per role, and the keys of both, sealed.
//!
//! Reading order: [`kek`] is the one secret that never enters the state; [`seal`] encrypts the
//! CA's keys under it; [`authority`] makes a CA and opens it; [`issue`] signs leaves; [`csr`]
//! reads what askers send, and takes nothing of it but a public key that they hold.

pub mod authority;
pub mod csr;
pub mod issue;
pub mod kek;
mod key;
pub mod pem;
pub mod seal;
#[cfg(test)]
mod tests;

pub use authority::{CaError, create};
pub use csr::{CsrError, CsrKey};
pub use issue::{IssueError, Issuer, LEAF_LIFETIME, Leaf};
pub use kek::{Kek, KekError, WrapKey};
