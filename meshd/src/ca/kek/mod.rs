//! The key-encryption key: what the CA's sealed keys open with.
//!
//! It lies outside the data directory, so that neither a disk image of it nor a backup of the
//! state can sign. Every server holds the same one; `mesh init` makes it, a joining server gets
//! it [wrapped](wrap).

mod file;
mod wrap;

use std::io;
use std::path::PathBuf;

use aws_lc_rs::rand;
use zeroize::Zeroizing;

pub use wrap::{WrapError, WrapKey};

/// The key-encryption key: 32 random bytes, wiped when dropped.
///
/// Neither shown nor serialised:
/// ```compile_fail,E0277
/// fn show(kek: &meshd::ca::Kek) -> String { format!("{kek:?}") }
/// ```
/// ```compile_fail,E0277
/// fn write(kek: &meshd::ca::Kek) -> Option<String> { serde_json::to_string(kek).ok() }
/// ```
pub struct Kek(Zeroizing<[u8; Self::LEN]>);

/// Why there is no key-encryption key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KekError {
    /// It could not be read or written.
    #[error("cannot {action} the key-encryption key {}", path.display())]
    Io {
        /// `read`, `create` or `sync`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner could read it, or someone else owns it.
    #[error("key-encryption key {}: {found}, expected {expected}", path.display())]
    Access {
        /// Where.
        path: PathBuf,
        /// What stands there.
        found: String,
        /// What is safe.
        expected: &'static str,
    },
    /// It lies where backups and disk images of the data go.
    #[error(
        "key-encryption key {} lies inside the data directory {}, expected it elsewhere, such as in /etc/mesh",
        path.display(), data.display()
    )]
    InDataDirectory {
        /// Where it lies.
        path: PathBuf,
        /// The data directory.
        data: PathBuf,
    },
    /// It is not a key.
    #[error(
        "key-encryption key {} has {found} bytes or others than 0-9 a-f, expected 64 hex digits and a newline",
        path.display()
    )]
    Form {
        /// Where.
        path: PathBuf,
        /// Bytes found, at most one more than are looked at.
        found: usize,
    },
    /// The environment names no directory of credentials.
    #[error(
        "CREDENTIALS_DIRECTORY is not set, expected LoadCredential=kek:PATH or LoadCredentialEncrypted=kek:PATH in the unit"
    )]
    NoCredentials,
    /// The system gives no randomness.
    #[error("cannot get random bytes from the system")]
    Random,
}

impl Kek {
    /// Bytes of the key.
    pub const LEN: usize = 32;

    /// A new random key, known to nobody else until it is kept somewhere.
    ///
    /// # Errors
    /// [`KekError::Random`].
    pub fn generate() -> Result<Self, KekError> {
        let mut bytes = Zeroizing::new([0; Self::LEN]);
        rand::fill(&mut *bytes).map_err(|_| KekError::Random)?;
        Ok(Self(bytes))
    }

    /// The key of these bytes; `None` unless there are [`Kek::LEN`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; Self::LEN]);
        (bytes.len() == Self::LEN).then(|| key.copy_from_slice(bytes))?;
        Some(Self(key))
    }

    /// The key itself: for ciphers only.
    pub(crate) fn bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

#[cfg(test)]
mod tests;
