//! A state as one stream of bytes: what `mesh snapshot save` writes, and what a leader sends to a
//! member that is too far behind for the log.
//!
//! ```text
//! "MESHSNAP" | version u16 | header length u32 | header | state length u64 | state | SHA-256
//! ```
//!
//! Integers are big-endian, header and state MessagePack; the SHA-256 covers all before it. Private
//! keys are in the state sealed only.

use mesh_core::identity::TrustDomain;
use mesh_core::limits::RESTORE_BYTES_MAX;
use mesh_core::revision::Revision;
use mesh_core::state::MeshState;
use mesh_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError};

/// Why bytes are not a backup that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// Another kind of file.
    #[error("this is not a mesh backup: it does not start with MESHSNAP")]
    Magic,
    /// Another release's format.
    #[error("backup has format version {found}, expected {expected}")]
    Version {
        /// As found.
        found: u16,
        /// What this release writes and reads.
        expected: u16,
    },
    /// Over the bound.
    #[error("backup has {found} bytes, expected at most {max}")]
    TooLarge {
        /// As found.
        found: u64,
        /// The bound.
        max: u64,
    },
    /// Cut short, or with something behind it.
    #[error("backup has {found} bytes, expected {expected}: it was cut or added to")]
    Length {
        /// As found.
        found: u64,
        /// By its own account; a lower bound if cut within the header.
        expected: u64,
    },
    /// Damaged.
    #[error("backup does not match its SHA-256: it is damaged")]
    Damaged,
    /// Whole, but not understood.
    #[error("backup's {part} cannot be read by this release")]
    Content {
        /// Header or state.
        part: &'static str,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// Whole and understood, but not as a server writes it.
    #[error("backup's header does not fit its state")]
    Inconsistent,
}

/// What a backup says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// When it was made, by the clock of the server that made it.
    pub made_at: UnixMillis,
    /// The release that made it.
    pub release: String,
    /// The mesh it is of; `None` before `mesh init`.
    pub trust_domain: Option<TrustDomain>,
    /// The state it holds.
    pub revision: Revision,
    /// [`super::state_hash`] of the state.
    pub state_hash: [u8; 32],
}

/// A backup at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// What it says about itself.
    pub header: Header,
    /// Bytes of the whole.
    pub bytes: u64,
    /// Control servers in it.
    pub servers: usize,
    /// Nodes in it.
    pub nodes: usize,
    /// Services with instances.
    pub services: usize,
    /// Policy version in force.
    pub policy_version: u64,
}

/// Writes `state` as a backup made at `made_at`.
///
/// # Errors
/// [`BackupError::TooLarge`] over [`RESTORE_BYTES_MAX`]; `Content` if serde refuses it.
pub fn encode_backup(state: &MeshState, made_at: UnixMillis) -> Result<Vec<u8>, BackupError> {
    let body = codec::encode(state).map_err(|source| content("state", source))?;
    let header = Header {
        made_at,
        release: env!("CARGO_PKG_VERSION").to_owned(),
        trust_domain: state.mesh.as_ref().map(|mesh| mesh.trust_domain.clone()),
        revision: state.revision,
        state_hash: codec::sha256(&[&body]),
    };
    let header = codec::encode(&header).map_err(|source| content("header", source))?;
    let header_len = u32::try_from(header.len()).map_err(|_| too_large(header.len()))?;
    let mut bytes = Vec::with_capacity(FRAME + header.len() + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&header_len.to_be_bytes());
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(&(body.len() as u64).to_be_bytes());
    bytes.extend_from_slice(&body);
    let hash = codec::sha256(&[&bytes]);
    bytes.extend_from_slice(&hash);
    if bytes.len() > RESTORE_BYTES_MAX {
        return Err(too_large(bytes.len()));
    }
    Ok(bytes)
}

/// Reads a backup: whole, undamaged and exactly what [`encode_backup`] writes for its state.
///
/// # Errors
/// [`BackupError`], by what is wrong first.
pub fn decode_backup(bytes: &[u8]) -> Result<MeshState, BackupError> {
    open(bytes).map(|(_, state)| state)
}

/// Reads a backup and says what is in it; checks it as [`decode_backup`] does.
///
/// # Errors
/// As [`decode_backup`].
pub fn inspect(bytes: &[u8]) -> Result<Inspection, BackupError> {
    let (header, state) = open(bytes)?;
    Ok(Inspection {
        header,
        bytes: bytes.len() as u64,
        servers: state.servers.len(),
        nodes: state.nodes.len(),
        services: state.services.len(),
        policy_version: state.policy.version,
    })
}

fn open(bytes: &[u8]) -> Result<(Header, MeshState), BackupError> {
    let (header, body) = split(bytes)?;
    let header: Header = codec::decode(header).map_err(|source| content("header", source))?;
    let state: MeshState = codec::decode(body).map_err(|source| content("state", source))?;
    let canonical = codec::encode(&state).map_err(|source| content("state", source))?;
    let trust_domain = state.mesh.as_ref().map(|mesh| &mesh.trust_domain);
    let fits = header.state_hash == codec::sha256(&[body])
        && canonical == body
        && header.revision == state.revision
        && header.trust_domain.as_ref() == trust_domain;
    if fits { Ok((header, state)) } else { Err(BackupError::Inconsistent) }
}

/// The header's and the state's bytes, once lengths and hash are right.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), BackupError> {
    let found = bytes.len() as u64;
    if bytes.len() > RESTORE_BYTES_MAX {
        return Err(too_large(bytes.len()));
    }
    let cut = |expected: u64| BackupError::Length { found, expected };
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| {
        if MAGIC.starts_with(bytes) { cut(FRAME as u64) } else { BackupError::Magic }
    })?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(|| cut(FRAME as u64))?;
    let version = u16::from_be_bytes(*version);
    if version != VERSION {
        return Err(BackupError::Version { found: version, expected: VERSION });
    }
    let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(|| cut(FRAME as u64))?;
    let header_len = u64::from(u32::from_be_bytes(*len));
    let so_far = FRAME as u64 + header_len;
    let (header, rest) = split_at(rest, header_len).ok_or_else(|| cut(so_far))?;
    let (len, rest) = rest.split_first_chunk::<8>().ok_or_else(|| cut(so_far))?;
    let body_len = u64::from_be_bytes(*len);
    let expected = so_far.saturating_add(body_len);
    let (body, hash) = split_at(rest, body_len).ok_or_else(|| cut(expected))?;
    if expected != found {
        return Err(cut(expected));
    }
    let whole = &bytes[..bytes.len() - hash.len()];
    if codec::sha256(&[whole]) != hash {
        return Err(BackupError::Damaged);
    }
    Ok((header, body))
}

fn split_at(bytes: &[u8], at: u64) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(usize::try_from(at).ok()?)
}

fn content(part: &'static str, source: CodecError) -> BackupError {
    BackupError::Content { part, source }
}

fn too_large(found: usize) -> BackupError {
    BackupError::TooLarge { found: found as u64, max: RESTORE_BYTES_MAX as u64 }
}

const MAGIC: &[u8; 8] = b"MESHSNAP";
const VERSION: u16 = 1;
/// Bytes of everything but header and state.
const FRAME: usize = MAGIC.len() + 2 + 4 + 8 + 32;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    fn state() -> MeshState {
        MeshState { revision: Revision::new(1, 42), clock: UnixMillis(7), ..MeshState::default() }
    }

    /// What [`encode_backup`] writes, but with any parts.
    fn frame(version: u16, header: &[u8], body: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(version.to_be_bytes());
        bytes.extend(u32::try_from(header.len()).unwrap().to_be_bytes());
        bytes.extend(header);
        bytes.extend((body.len() as u64).to_be_bytes());
        bytes.extend(body);
        let hash = codec::sha256(&[&bytes]);
        bytes.extend(hash);
        bytes
    }

    #[test]
    fn backups_come_back_as_they_were() {
        let bytes = encode_backup(&state(), UnixMillis(9)).unwrap();
        assert_eq!(decode_backup(&bytes).unwrap(), state());
        let seen = inspect(&bytes).unwrap();
        assert_eq!(seen.header.revision, Revision::new(1, 42));
        assert_eq!(seen.header.state_hash, super::super::state_hash(&state()).unwrap());
        assert_eq!(seen.bytes, bytes.len() as u64);
    }

    #[test]
    fn no_part_of_a_backup_is_a_backup() {
        let bytes = encode_backup(&state(), UnixMillis(9)).unwrap();
        for len in 0..bytes.len() {
            let error = decode_backup(&bytes[..len]).unwrap_err();
            assert!(matches!(error, BackupError::Length { .. }), "{len} bytes: {error:?}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(matches!(decode_backup(&longer), Err(BackupError::Length { .. })));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let bytes = encode_backup(&state(), UnixMillis(9)).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(decode_backup(&bad).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn backups_are_read_strictly() {
        let header = |hash: [u8; 32], index| {
            codec::encode(&Header {
                made_at: UnixMillis(0),
                release: "x".to_owned(),
                trust_domain: None,
                revision: Revision::new(1, index),
                state_hash: hash,
            })
            .unwrap()
        };
        let body = codec::encode(&state()).unwrap();
        let hash = codec::sha256(&[&body]);
        let padded = [&body[..], &[0xc0]].concat();
        let cases = [
            ("sound", frame(1, &header(hash, 42), &body), None),
            ("another revision", frame(1, &header(hash, 41), &body), Some("does not fit")),
            ("another state", frame(1, &header([0; 32], 42), &body), Some("does not fit")),
            ("a later version", frame(2, &header(hash, 42), &body), Some("version 2")),
            ("no state", frame(1, &header(hash, 42), &[]), Some("state cannot")),
            ("no header", frame(1, &[], &body), Some("header cannot")),
            ("padding", frame(1, &header(hash, 42), &padded), Some("state cannot")),
            ("other bytes", b"PK\x03\x04 something else".to_vec(), Some("not a mesh backup")),
        ];
        for (name, bytes, want) in cases {
            match (decode_backup(&bytes), want) {
                (Ok(found), None) => assert_eq!(found, state(), "{name}"),
                (Err(error), Some(part)) => {
                    assert!(error.to_string().contains(part), "{name}: {error}");
                }
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
    }
}
