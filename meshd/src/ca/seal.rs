//! Sealing the CA's private keys under the key-encryption key.
//!
//! A sealed key is a version byte, a nonce and AES-256-GCM ciphertext. What the key is (trust
//! domain, root or role) is authenticated with it, so that no sealed key passes for another.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use mesh_core::identity::{CaRole, TrustDomain};
use mesh_core::trust::SealedKey;
use zeroize::Zeroizing;

use super::Kek;
use crate::limits::ca::KEY_LEN_MAX;

/// The form of sealed keys. A change of it or of the authenticated name is a new version.
const VERSION: u8 = 1;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// What a sealed key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyName {
    /// The namespace whose CA it belongs to.
    pub trust_domain: TrustDomain,
    /// The intermediate it belongs to; `None`: the root.
    pub role: Option<CaRole>,
}

/// `root key of TD` or `ROLE key of TD`; authenticated with the key, so it never changes.
impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = self.role.map_or("root", CaRole::as_str);
        write!(f, "{role} key of {}", self.trust_domain)
    }
}

/// Why a key was not sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Another key-encryption key, or a damaged or exchanged sealed key.
    #[error(
        "the {0} does not open with this key-encryption key, expected the one that `mesh init` made: copy it from another server or from where you keep it"
    )]
    Kek(KeyName),
    /// A newer release sealed it.
    #[error("the {name} is sealed in form {found}, expected {VERSION}: upgrade meshd")]
    Version {
        /// Which key.
        name: KeyName,
        /// The version byte.
        found: u8,
    },
    /// Too short or too long to be one.
    #[error("the sealed {name} has {found} bytes, expected {} to {KEY_LEN_MAX}", 1 + NONCE_LEN + TAG_LEN)]
    Length {
        /// Which key.
        name: KeyName,
        /// Bytes found.
        found: usize,
    },
    /// The system gives no randomness, or the library refuses.
    #[error("cannot seal the {0}")]
    Crypto(KeyName),
}

/// Seals `pkcs8`, the private key called `name`, under `kek`.
///
/// # Errors
/// [`SealError::Crypto`].
pub fn seal(kek: &Kek, name: &KeyName, pkcs8: &[u8]) -> Result<SealedKey, SealError> {
    let failed = |_| SealError::Crypto(name.clone());
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).map_err(failed)?;
    // Allocated whole, so that growing leaves no copy of the key behind.
    let mut body = Zeroizing::new(Vec::with_capacity(pkcs8.len() + TAG_LEN));
    body.extend_from_slice(pkcs8);
    cipher(kek, name)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad(name), &mut *body)
        .map_err(failed)?;
    Ok(SealedKey([&[VERSION][..], &nonce, &body].concat()))
}

/// Opens `sealed`, the private key called `name`; the answer is PKCS#8, wiped when dropped.
///
/// # Errors
/// [`SealError`].
pub fn open(
    kek: &Kek, name: &KeyName, sealed: &SealedKey,
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let found = sealed.0.len();
    let length = || SealError::Length { name: name.clone(), found };
    if found > KEY_LEN_MAX {
        return Err(length());
    }
    let (&version, rest) = sealed.0.split_first().ok_or_else(length)?;
    if version != VERSION {
        return Err(SealError::Version { name: name.clone(), found: version });
    }
    let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(length)?;
    let mut body = Zeroizing::new(body.to_vec());
    let plain = cipher(kek, name)?
        .open_in_place(Nonce::assume_unique_for_key(*nonce), aad(name), &mut body)
        .map_err(|_| SealError::Kek(name.clone()))?
        .len();
    body.truncate(plain);
    Ok(body)
}

fn cipher(kek: &Kek, name: &KeyName) -> Result<LessSafeKey, SealError> {
    let key = UnboundKey::new(&AES_256_GCM, kek.bytes());
    Ok(LessSafeKey::new(key.map_err(|_| SealError::Crypto(name.clone()))?))
}

fn aad(name: &KeyName) -> Aad<String> {
    Aad::from(format!("mesh sealed key {VERSION}: {name}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn name(trust_domain: &str, role: Option<CaRole>) -> KeyName {
        KeyName { trust_domain: trust_domain.parse().unwrap(), role }
    }

    #[test]
    fn a_sealed_key_opens_as_what_it_is_and_nothing_else() {
        let kek = Kek::generate().unwrap();
        let node = name("td", Some(CaRole::Node));
        let sealed = seal(&kek, &node, b"a private key").unwrap();
        assert_eq!(open(&kek, &node, &sealed).unwrap().as_slice(), b"a private key");
        let others = [
            name("td", Some(CaRole::Server)),
            name("td", Some(CaRole::Service)),
            name("td", None),
            name("td2", Some(CaRole::Node)),
        ];
        for other in others {
            assert_eq!(open(&kek, &other, &sealed), Err(SealError::Kek(other.clone())), "{other}");
        }
    }

    #[test]
    fn another_kek_says_what_to_do() {
        let root = name("td", None);
        let sealed = seal(&Kek::generate().unwrap(), &root, b"a private key").unwrap();
        let error = open(&Kek::generate().unwrap(), &root, &sealed).unwrap_err();
        assert_eq!(error, SealError::Kek(root));
        let text = error.to_string();
        assert!(text.contains("root key of td"), "{text}");
        assert!(text.contains("copy it from another server"), "{text}");
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let kek = Kek::generate().unwrap();
        let root = name("td", None);
        let sealed = seal(&kek, &root, b"a private key").unwrap();
        for at in 0..sealed.0.len() {
            let mut changed = sealed.clone();
            changed.0[at] ^= 1;
            assert!(open(&kek, &root, &changed).is_err(), "byte {at}");
            assert!(open(&kek, &root, &SealedKey(sealed.0[..at].to_vec())).is_err(), "cut {at}");
        }
        let newer = open(&kek, &root, &SealedKey(vec![2; 64])).unwrap_err();
        assert!(matches!(newer, SealError::Version { found: 2, .. }), "{newer}");
        let long = open(&kek, &root, &SealedKey(vec![VERSION; KEY_LEN_MAX + 1])).unwrap_err();
        assert!(matches!(long, SealError::Length { .. }), "{long}");
    }

    #[test]
    fn the_plain_key_is_nowhere_in_the_sealed_one() {
        let kek = Kek::generate().unwrap();
        let root = name("td", None);
        let (one, two) = (seal(&kek, &root, b"a private key"), seal(&kek, &root, b"a private key"));
        let one = one.unwrap();
        assert!(!one.0.windows(7).any(|part| part == b"private"));
        assert_ne!(one, two.unwrap(), "a fresh nonce each time");
    }
}
