//! Checkpoints: the state on disk, so that the log need not reach back to its beginning.
//!
//! `<root>/<index>-<term>/` holds a `MANIFEST` and the files it lists, each with size and SHA-256;
//! the manifest ends with a line of its own SHA-256. One is written as `*.tmp`, synced, read back
//! and only then renamed; two are kept. A corrupt one is set aside as `*.corrupt` and the older
//! one used, if the log reaches back that far.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::revision::Revision;
use mesh_core::state::MeshState;
use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError};
use super::types::{LogId, Membership, SnapshotMeta};
use crate::limits::raft::{CHECKPOINT_BYTES_MAX, CHECKPOINTS_KEPT, MANIFEST_BYTES_MAX};

/// Why a checkpoint could not be written, or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The disk refused.
    #[error("cannot {op} {path:?}")]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bytes are not what was written.
    #[error("checkpoint file {path:?} is corrupt: {what}")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another release's format.
    #[error("checkpoint {path:?} has format version {found}, expected {expected}")]
    Version {
        /// Which.
        path: PathBuf,
        /// As found.
        found: u32,
        /// What this release reads.
        expected: u32,
    },
    /// Whole, but not understood.
    #[error("checkpoint file {path:?} cannot be read by this release")]
    Content {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// The log was purged up to `purged`, and no sound checkpoint reaches that far.
    #[error(
        "the log starts after entry {purged} and no sound checkpoint in {root:?} reaches it \
        (newest sound: {newest:?}); keep a copy of the data directory, remove this server from \
        the cluster, empty its data directory and let it join under a new id; only if no majority \
        is left, restore a backup"
    )]
    NotCovered {
        /// Where checkpoints are.
        root: PathBuf,
        /// The last entry that the log dropped.
        purged: u64,
        /// The index of the newest sound checkpoint.
        newest: Option<u64>,
    },
}

/// A state with its place in the log.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) meta: SnapshotMeta,
    pub(crate) state: Arc<MeshState>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    last_log_id: Option<LogId>,
    membership: Membership,
    revision: Revision,
    /// [`super::state_hash`], as hex.
    state_hash: String,
    files: Vec<FileEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    name: String,
    bytes: u64,
    sha256: String,
}

/// Writes `checkpoint` below `root` and drops all but the newest two; returns once it is on disk
/// and was read back. Writing one that is there already does nothing. Blocks.
///
/// # Errors
/// [`CheckpointError`]; then what was there before still is.
pub(crate) fn write(root: &Path, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    let name = name(&checkpoint.meta);
    let (path, tmp) = (root.join(&name), root.join(format!("{name}.tmp")));
    fs::create_dir_all(root).map_err(|e| failed("create", root, e))?;
    if path.exists() {
        if verify(&path).is_ok() {
            return Ok(());
        }
        set_aside(&path)?;
    }
    remove(&tmp)?;
    fs::create_dir(&tmp).map_err(|e| failed("create", &tmp, e))?;
    let entry = write_state(&tmp, &checkpoint.state)?;
    let manifest = Manifest {
        format: FORMAT,
        last_log_id: checkpoint.meta.last_log_id,
        membership: checkpoint.meta.last_membership.clone(),
        revision: checkpoint.state.revision,
        state_hash: entry.sha256.clone(),
        files: vec![entry],
    };
    write_manifest(&tmp, &manifest)?;
    sync_dir(&tmp)?;
    verify(&tmp)?;
    fs::rename(&tmp, &path).map_err(|e| failed("rename", &tmp, e))?;
    sync_dir(root)?;
    if let Some(parent) = root.parent() {
        sync_dir(parent)?;
    }
    prune(root)
}

/// The newest sound checkpoint below `root` that the log still continues, if there is one;
/// `purged` is the last entry that the log dropped. Blocks.
///
/// # Errors
/// [`CheckpointError::NotCovered`] if entries between checkpoint and log are lost; `Io` if the
/// directory cannot be read.
pub(crate) fn newest(
    root: &Path, purged: Option<u64>,
) -> Result<Option<Checkpoint>, CheckpointError> {
    fs::create_dir_all(root).map_err(|e| failed("create", root, e))?;
    let not_covered =
        |purged, newest| Err(CheckpointError::NotCovered { root: root.into(), purged, newest });
    for (_, _, path) in list(root)? {
        match read(&path) {
            Ok(found) => {
                let index = found.meta.last_log_id.map(|id| id.index);
                return match purged {
                    Some(purged) if index < Some(purged) => not_covered(purged, index),
                    _ => Ok(Some(found)),
                };
            }
            Err(error) => {
                tracing::error!(%error, source = ?std::error::Error::source(&error),
                    path = %path.display(), "checkpoint is not sound, trying an older one");
                if matches!(error, CheckpointError::Corrupt { .. }) {
                    set_aside(&path)?;
                }
            }
        }
    }
    match purged {
        Some(purged) => not_covered(purged, None),
        None => Ok(None),
    }
}

/// Reads the checkpoint at `path` and checks all of it.
fn read(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let manifest = read_manifest(path)?;
    let [entry] = manifest.files.as_slice() else {
        return Err(corrupt(path, format!("{} files, expected 1", manifest.files.len())));
    };
    if entry.name != STATE {
        return Err(corrupt(path, format!("file {:?}, expected {STATE:?}", entry.name)));
    }
    let file = path.join(STATE);
    let bytes = read_checked(&file, entry)?;
    let state: MeshState = codec::decode(&bytes)
        .map_err(|source| CheckpointError::Content { path: file.clone(), source })?;
    if entry.sha256 != manifest.state_hash || state.revision != manifest.revision {
        return Err(corrupt(&file, "it is not the state of the manifest"));
    }
    let meta =
        SnapshotMeta { last_log_id: manifest.last_log_id, last_membership: manifest.membership };
    Ok(Checkpoint { meta, state: Arc::new(state) })
}

/// Checks sizes and hashes of the checkpoint at `path`.
fn verify(path: &Path) -> Result<(), CheckpointError> {
    let manifest = read_manifest(path)?;
    manifest.files.iter().try_for_each(|entry| {
        let name = Path::new(&entry.name);
        if name.components().count() != 1 || name.file_name().is_none() {
            return Err(corrupt(path, format!("file name {:?}", entry.name)));
        }
        read_checked(&path.join(name), entry).map(drop)
    })
}

fn write_state(dir: &Path, state: &MeshState) -> Result<FileEntry, CheckpointError> {
    let path = dir.join(STATE);
    let file = File::create_new(&path).map_err(|e| failed("create", &path, e))?;
    let context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut out = Hashing { out: BufWriter::with_capacity(CHUNK, file), context, bytes: 0 };
    rmp_serde::encode::write_named(&mut out, state).map_err(|error| match error {
        rmp_serde::encode::Error::InvalidValueWrite(error) => {
            failed("write", &path, io::Error::other(error))
        }
        source => {
            let source = CodecError::Write(source);
            CheckpointError::Content { path: path.clone(), source }
        }
    })?;
    let Hashing { out, context, bytes } = out;
    let file = out.into_inner().map_err(|e| failed("write", &path, e.into_error()))?;
    file.sync_all().map_err(|e| failed("sync", &path, e))?;
    let sha256 = hex::encode(codec::finish(context));
    Ok(FileEntry { name: STATE.to_owned(), bytes, sha256 })
}

fn write_manifest(dir: &Path, manifest: &Manifest) -> Result<(), CheckpointError> {
    let path = dir.join(MANIFEST);
    let mut text =
        serde_json::to_string(manifest).map_err(|e| failed("write", &path, io::Error::other(e)))?;
    text.push('\n');
    let hash = hex::encode(codec::sha256(&[text.as_bytes()]));
    text.push_str(&format!("sha256 {hash}\n"));
    let mut file = File::create_new(&path).map_err(|e| failed("create", &path, e))?;
    file.write_all(text.as_bytes()).map_err(|e| failed("write", &path, e))?;
    file.sync_all().map_err(|e| failed("sync", &path, e))
}

fn read_manifest(dir: &Path) -> Result<Manifest, CheckpointError> {
    let path = dir.join(MANIFEST);
    let bytes = read_bounded(&path, MANIFEST_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| corrupt(&path, "not text"))?;
    let body_len = text.find('\n').ok_or_else(|| corrupt(&path, "cut short"))? + 1;
    let (body, seal) = text.split_at(body_len);
    if seal != format!("sha256 {}\n", hex::encode(codec::sha256(&[body.as_bytes()]))) {
        return Err(corrupt(&path, "its SHA-256 does not match"));
    }
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let what = |e: serde_json::Error| corrupt(&path, e.to_string());
    let Format { format } = serde_json::from_str(body).map_err(what)?;
    if format != FORMAT {
        return Err(CheckpointError::Version { path, found: format, expected: FORMAT });
    }
    serde_json::from_str(body).map_err(what)
}

fn read_checked(path: &Path, entry: &FileEntry) -> Result<Vec<u8>, CheckpointError> {
    let bytes = read_bounded(path, entry.bytes.min(CHECKPOINT_BYTES_MAX))?;
    if bytes.len() as u64 != entry.bytes {
        let text = format!("it has {} bytes, expected {}", bytes.len(), entry.bytes);
        return Err(corrupt(path, text));
    }
    if hex::encode(codec::sha256(&[&bytes])) != entry.sha256 {
        return Err(corrupt(path, "its SHA-256 does not match"));
    }
    Ok(bytes)
}

/// The file's bytes, at most one more than `max`.
fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, CheckpointError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(corrupt(path, "it is missing"));
        }
        Err(error) => return Err(failed("open", path, error)),
    };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(|e| failed("read", path, e))?;
    Ok(bytes)
}

/// Indices of the checkpoints below `root`, newest first. Changes nothing. Blocks.
///
/// # Errors
/// `Io` if the directory cannot be read.
pub(crate) fn indices(root: &Path) -> Result<Vec<u64>, CheckpointError> {
    Ok(scan(root)?.0.into_iter().map(|(index, _, _)| index).collect())
}

/// Checkpoints below `root` as (index, term, path), newest first; leftovers of a crash are removed.
fn list(root: &Path) -> Result<Vec<Found>, CheckpointError> {
    let (found, leftovers) = scan(root)?;
    leftovers.iter().try_for_each(|path| remove(path))?;
    Ok(found)
}

/// Index, term and path of a checkpoint.
type Found = (u64, u64, PathBuf);

/// Checkpoints below `root`, newest first, and what a crash left half written.
fn scan(root: &Path) -> Result<(Vec<Found>, Vec<PathBuf>), CheckpointError> {
    let (mut found, mut leftovers) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(root).map_err(|e| failed("read", root, e))? {
        let path = entry.map_err(|e| failed("read", root, e))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if name.ends_with(".tmp") {
            leftovers.push(path);
        } else if let Some((index, term)) = name.split_once('-')
            && let (Ok(index), Ok(term)) = (index.parse(), term.parse())
        {
            found.push((index, term, path));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok((found, leftovers))
}

fn prune(root: &Path) -> Result<(), CheckpointError> {
    list(root)?.iter().skip(CHECKPOINTS_KEPT).try_for_each(|(_, _, path)| remove(path))
}

/// Keeps a corrupt checkpoint for people to look at, under a name that is never read; one at most.
fn set_aside(path: &Path) -> Result<(), CheckpointError> {
    let root = path.parent().unwrap_or(path);
    let aside = root.join("last.corrupt");
    remove(&aside)?;
    fs::rename(path, &aside).map_err(|e| failed("rename", path, e))?;
    sync_dir(root)
}

fn remove(path: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

fn sync_dir(path: &Path) -> Result<(), CheckpointError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| failed("sync", path, e))
}

fn name(meta: &SnapshotMeta) -> String {
    let (index, term) = meta.last_log_id.map_or((0, 0), |id| (id.index, term(&id)));
    format!("{index}-{term}")
}

/// The term in which the entry was made.
pub(crate) fn term(id: &LogId) -> u64 {
    id.committed_leader_id().term
}

fn failed(op: &'static str, path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::Io { op, path: path.to_owned(), source }
}

fn corrupt(path: &Path, what: impl Into<String>) -> CheckpointError {
    CheckpointError::Corrupt { path: path.to_owned(), what: what.into() }
}

/// Counts and hashes what passes on its way to the file.
struct Hashing {
    out: BufWriter<File>,
    context: aws_lc_rs::digest::Context,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.context.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The directory of checkpoints, beside the log's.
pub(crate) const DIR: &str = "checkpoints";
const FORMAT: u32 = 1;
const MANIFEST: &str = "MANIFEST";
const STATE: &str = "state.msgpack";
const CHUNK: usize = 1 << 20;

#[cfg(test)]
mod tests;
