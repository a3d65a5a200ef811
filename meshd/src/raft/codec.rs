//! Bytes of messages and states, and their hashes.

use mesh_core::state::MeshState;

pub use mesh_net::pack::PackError as CodecError;
pub(crate) use mesh_net::pack::{from_slice as decode, to_vec as encode};

/// SHA-256 over several parts, as if they were one.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    finish(context)
}

/// The digest of what `context` saw.
pub(crate) fn finish(context: aws_lc_rs::digest::Context) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// SHA-256 of the state's canonical bytes: equal on two servers exactly if their states are.
///
/// Costs a pass over the whole state.
///
/// # Errors
/// [`CodecError`] if serde refuses the state.
pub fn state_hash(state: &MeshState) -> Result<[u8; 32], CodecError> {
    Ok(sha256(&[&encode(state)?]))
}
