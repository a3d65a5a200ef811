//! SHA-256, and comparison that takes the same time whatever differs.

use aws_lc_rs::{constant_time, digest};
use mesh_core::catalog::KeyHash;

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// SHA-256 of `bytes` as the mesh names keys and secrets by it.
pub fn key_hash(bytes: &[u8]) -> KeyHash {
    KeyHash(sha256(bytes))
}

/// Whether `a` equals `b`, in time that depends on their lengths only: for secrets.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_gives_its_published_value() {
        // FIPS 180-4, the one-block example.
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(key_hash(b"abc").to_string(), want);
    }

    #[test]
    fn equality_looks_at_every_byte() {
        assert!(equal(b"", b""));
        assert!(equal(b"ab", b"ab"));
        assert!(!equal(b"ab", b"ac"));
        assert!(!equal(b"ab", b"abc"));
    }
}
