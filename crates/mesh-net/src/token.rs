//! Tokens as people carry them: `mesh1.<kind>.<id>.<secret>.<ca>`, the last two as 64 hex digits.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use mesh_core::catalog::KeyHash;
use mesh_core::name::{InvalidName, TokenId};
use zeroize::{Zeroize, Zeroizing};

use crate::files::{self, FileError};
use crate::hash;
pub use crate::limits::token::TOKEN_BYTES_MAX;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Enrols a node: `j`.
    JoinNode,
    /// Adds a server: `s`.
    JoinServer,
    /// Uses the API: `a`.
    Api,
}

impl TokenKind {
    fn letter(self) -> &'static str {
        match self {
            Self::JoinNode => "j",
            Self::JoinServer => "s",
            Self::Api => "a",
        }
    }
}

/// A token: its public id, its secret, and the CA to trust when using it. The secret is wiped
/// when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// What it is good for.
    pub kind: TokenKind,
    /// Names it in public.
    pub id: TokenId,
    /// Proves possession.
    pub secret: [u8; 32],
    /// SHA-256 of the root certificate (DER) that vouches for the servers.
    pub ca: [u8; 32],
}

/// Why a text is no token. Never repeats the text: it may be a secret all the same.
#[derive(Debug, thiserror::Error)]
pub enum InvalidToken {
    /// Not five parts.
    #[error("token has {0} parts separated by '.', expected 5")]
    Parts(usize),
    /// Another version, or something else.
    #[error("token does not begin with \"mesh1.\"")]
    Version,
    /// No such kind.
    #[error("token kind is none of j (node), s (server) and a (API)")]
    Kind,
    /// Not a name.
    #[error("token id is invalid")]
    Id(#[source] InvalidName),
    /// Not 64 hex digits.
    #[error("token {0} is not 64 lower-case hex digits")]
    Hex(&'static str),
}

impl JoinToken {
    /// The whole token in text, to hand to its bearer. The only way to see the secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(hex::encode(self.secret));
        let (kind, ca) = (self.kind.letter(), hex::encode(self.ca));
        Zeroizing::new(format!("mesh1.{kind}.{}.{}.{ca}", self.id, secret.as_str()))
    }

    /// The secret as hex, as enrolment sends it.
    pub fn secret_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.secret))
    }

    /// SHA-256 of the secret: what servers keep of it.
    pub fn secret_hash(&self) -> KeyHash {
        hash::key_hash(&self.secret)
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let parts: Vec<&str> = text.split('.').take(6).collect();
        let [version, kind, id, secret, ca] = parts[..] else {
            return Err(InvalidToken::Parts(parts.len()));
        };
        if version != "mesh1" {
            return Err(InvalidToken::Version);
        }
        let kind = [TokenKind::JoinNode, TokenKind::JoinServer, TokenKind::Api]
            .into_iter()
            .find(|known| known.letter() == kind)
            .ok_or(InvalidToken::Kind)?;
        let id = id.parse().map_err(InvalidToken::Id)?;
        let digits = |what, text: &str| {
            text.parse().map(|hash: KeyHash| hash.0).map_err(|_| InvalidToken::Hex(what))
        };
        Ok(Self { kind, id, secret: digits("secret", secret)?, ca: digits("CA hash", ca)? })
    }
}

impl Drop for JoinToken {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, ca) = (self.kind.letter(), hex::encode(self.ca));
        write!(f, "mesh1.{kind}.{}.[secret].{ca}", self.id)
    }
}

/// A text that is never printed, and wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps `text` without white space around it.
    pub fn new(mut text: String) -> Self {
        let secret = Self(Zeroizing::new(text.trim().to_owned()));
        text.zeroize();
        secret
    }

    /// Reads a file of at most [`TOKEN_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`FileError`] if it cannot be read, is larger, or is no text.
    pub fn from_file(path: &Path) -> Result<Self, FileError> {
        let bytes = files::read_bounded(path, TOKEN_BYTES_MAX)?;
        let damaged = || FileError::Damaged { path: path.to_owned(), what: "it is no text" };
        String::from_utf8(bytes).map(Self::new).map_err(|_| damaged())
    }

    /// The text. Hand it to whom it is for, and to nobody else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    fn token() -> JoinToken {
        let id = "t-7".parse().unwrap();
        JoinToken { kind: TokenKind::JoinNode, id, secret: [0xab; 32], ca: [0x01; 32] }
    }

    #[test]
    fn tokens_parse_what_they_print_and_nothing_else() {
        for kind in [TokenKind::JoinNode, TokenKind::JoinServer, TokenKind::Api] {
            let mut token = token();
            token.kind = kind;
            let again: JoinToken = token.to_text().parse().unwrap();
            assert_eq!(again, token);
        }
        let good = token().to_text();
        assert!(good.starts_with("mesh1.j.t-7.abab"), "{}", good.as_str());
        let bad = [
            "",
            "mesh1",
            &good[..good.len() - 1],
            &format!("{}.x", good.as_str()),
            &format!(" {}", good.as_str()),
            &good.replace("mesh1", "mesh2"),
            &good.replace(".j.", ".x."),
            &good.replace("t-7", "T7"),
            &good.replace("ab", "AB"),
            &good.replace("ab", "é"),
        ];
        for text in bad {
            assert!(text.parse::<JoinToken>().is_err(), "accepted {text:?}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let shown = format!("{:?} {:?}", token(), Secret::new(" hush\n".to_owned()));
        assert!(!shown.contains("abab") && !shown.contains("hush"), "{shown}");
        assert_eq!(Secret::new(" hush\n".to_owned()).reveal(), "hush");
        let error = "mesh1.j.t.secret.ca".parse::<JoinToken>().unwrap_err().to_string();
        assert!(!error.contains("t.secret"), "{error}");
    }
}
