//! Handing the key-encryption key to a joining server.
//!
//! X25519 with a fresh key on our side, HKDF-SHA256 over both public keys, AES-256-GCM. It goes
//! inside mutual TLS; the wrapping keeps it out of logs and proxies' hands on the way.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, EphemeralPrivateKey, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand::SystemRandom;
use zeroize::Zeroizing;

use super::Kek;

/// Bytes of an X25519 public key.
const PUBLIC_LEN: usize = 32;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// Bytes of a wrapped key: ephemeral public key, nonce, ciphertext and tag.
const WRAPPED_LEN: usize = PUBLIC_LEN + NONCE_LEN + Kek::LEN + TAG_LEN;
/// What the derived key is for; a new form gets a new label.
const LABEL: &[u8] = b"mesh kek wrap 1";

/// A joining server's one-time key, to which the key-encryption key is wrapped. Lives in memory.
pub struct WrapKey {
    private: PrivateKey,
    public: [u8; PUBLIC_LEN],
}

/// Why a key-encryption key was not wrapped or unwrapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WrapError {
    /// What came is no hex of the expected length.
    #[error("{what} has {found} characters or others than 0-9 a-f, expected {expected} hex digits")]
    Form {
        /// `wrap key` or `wrapped key`.
        what: &'static str,
        /// Characters found.
        found: usize,
        /// Characters expected.
        expected: usize,
    },
    /// The peer's public key is no usable point.
    #[error("wrap key is not a usable X25519 public key")]
    PublicKey,
    /// It was wrapped to another key, or changed on the way.
    #[error("wrapped key does not open with this server's wrap key, expected one wrapped to it")]
    Mismatch,
    /// The system gives no randomness, or the library refuses.
    #[error("cannot make a key")]
    Crypto,
}

impl WrapKey {
    /// A new key pair.
    ///
    /// # Errors
    /// [`WrapError::Crypto`].
    pub fn generate() -> Result<Self, WrapError> {
        let private = PrivateKey::generate(&X25519).map_err(|_| WrapError::Crypto)?;
        let public = private.compute_public_key().map_err(|_| WrapError::Crypto)?;
        let public = public.as_ref().try_into().map_err(|_| WrapError::Crypto)?;
        Ok(Self { private, public })
    }

    /// The public half, as 64 hex digits.
    pub fn public_hex(&self) -> String {
        hex::encode(self.public)
    }

    /// Opens what [`Kek::wrap`] made for this key.
    ///
    /// # Errors
    /// [`WrapError`].
    pub fn unwrap(&self, wrapped_hex: &str) -> Result<Kek, WrapError> {
        let mut wrapped = decode::<WRAPPED_LEN>("wrapped key", wrapped_hex)?;
        let (ephemeral, rest) = wrapped.split_at_mut(PUBLIC_LEN);
        let (nonce, sealed) = rest.split_at_mut(NONCE_LEN);
        let peer = UnparsedPublicKey::new(&X25519, &*ephemeral);
        let key = agreement::agree(&self.private, peer, WrapError::PublicKey, |secret| {
            derive(secret, ephemeral, &self.public)
        })?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| WrapError::Crypto)?;
        let kek =
            key.open_in_place(nonce, Aad::from(LABEL), sealed).map_err(|_| WrapError::Mismatch)?;
        Kek::from_bytes(kek).ok_or(WrapError::Mismatch)
    }
}

impl Kek {
    /// Wraps this key to a joining server's [`WrapKey::public_hex`]; the answer is hex.
    ///
    /// # Errors
    /// [`WrapError`].
    pub fn wrap(&self, peer_public_hex: &str) -> Result<String, WrapError> {
        let peer = decode::<PUBLIC_LEN>("wrap key", peer_public_hex)?;
        let random = SystemRandom::new();
        let ours = EphemeralPrivateKey::generate(&X25519, &random);
        let ours = ours.map_err(|_| WrapError::Crypto)?;
        let ephemeral = ours.compute_public_key().map_err(|_| WrapError::Crypto)?;
        let to = UnparsedPublicKey::new(&X25519, &peer[..]);
        let key = agreement::agree_ephemeral(ours, to, WrapError::PublicKey, |secret| {
            derive(secret, ephemeral.as_ref(), &peer[..])
        })?;
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| WrapError::Crypto)?;
        let mut sealed = Zeroizing::new(Vec::with_capacity(Kek::LEN + TAG_LEN));
        sealed.extend_from_slice(self.bytes());
        let aad = Aad::from(LABEL);
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut *sealed)
            .map_err(|_| WrapError::Crypto)?;
        Ok(hex::encode([ephemeral.as_ref(), &nonce, &sealed].concat()))
    }
}

/// The key of one wrapping: bound to both public keys, so that neither can be exchanged.
fn derive(secret: &[u8], ephemeral: &[u8], peer: &[u8]) -> Result<LessSafeKey, WrapError> {
    let prk = Salt::new(HKDF_SHA256, &[]).extract(secret);
    let info = [LABEL, ephemeral, peer];
    let okm = prk.expand(&info, &AES_256_GCM).map_err(|_| WrapError::Crypto)?;
    Ok(LessSafeKey::new(UnboundKey::from(okm)))
}

fn decode<const LEN: usize>(
    what: &'static str, text: &str,
) -> Result<Zeroizing<[u8; LEN]>, WrapError> {
    let mut bytes = Zeroizing::new([0; LEN]);
    let form = |_| WrapError::Form { what, found: text.chars().count(), expected: 2 * LEN };
    hex::decode_to_slice(text, &mut *bytes).map_err(form)?;
    Ok(bytes)
}
