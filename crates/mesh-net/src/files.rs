//! Files that survive a power cut: written whole or not at all, and checked when read.
//!
//! Everything here blocks; async callers move it to a blocking thread.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::hash;

/// Begins every checked file; its last byte is the format's version.
const MAGIC: [u8; 8] = *b"meshchk\x01";
const HASH_BYTES: usize = 32;

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Larger than its kind may be.
    #[error("{} has more bytes than {max}", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Bytes allowed.
        max: u64,
    },
    /// Not written by [`write_checked`], or damaged since.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

impl FileError {
    /// Whether there is no such file.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Replaces `path` by `bytes`, readable by its owner only (0600).
///
/// Written beside it, synced, renamed, and the directory synced: after a crash the file is the old
/// one or the new one, and after `Ok` it is the new one.
///
/// # Errors
/// [`FileError::Io`]; the old file stays.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_parts(path, &[bytes])
}

/// The same with a checksum, for [`read_checked`].
///
/// # Errors
/// As [`write_atomic`].
pub fn write_checked(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_parts(path, &[&MAGIC, &hash::sha256(bytes), bytes])
}

/// Reads what [`write_checked`] wrote, if it has at most `max` bytes.
///
/// # Errors
/// [`FileError::Damaged`] if a bit differs, [`FileError::TooLarge`], [`FileError::Io`].
pub fn read_checked(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    let overhead = (MAGIC.len() + HASH_BYTES) as u64;
    let mut bytes = read_bounded(path, max.saturating_add(overhead))?;
    let damaged = |what| FileError::Damaged { path: path.to_owned(), what };
    let rest = bytes.strip_prefix(&MAGIC).ok_or_else(|| damaged("it does not begin as one"))?;
    let (sum, body) =
        rest.split_first_chunk::<HASH_BYTES>().ok_or_else(|| damaged("it is cut off"))?;
    if hash::sha256(body) != *sum {
        return Err(damaged("its checksum differs"));
    }
    bytes.drain(..MAGIC.len() + HASH_BYTES);
    Ok(bytes)
}

/// Reads a whole file of at most `max` bytes.
///
/// # Errors
/// [`FileError::TooLarge`], [`FileError::Io`].
pub fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Io { action: "read", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(FileError::TooLarge { path: path.to_owned(), max });
    }
    Ok(bytes)
}

fn write_parts(path: &Path, parts: &[&[u8]]) -> Result<(), FileError> {
    let failed = |source| FileError::Io { action: "write", path: path.to_owned(), source };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let beside = beside(path, parent);
    let written = write_new(&beside, parts).and_then(|()| fs::rename(&beside, path));
    if let Err(source) = written {
        // The error that counts is the first one.
        let _ = fs::remove_file(&beside);
        return Err(failed(source));
    }
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)
}

fn write_new(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()
}

/// A name in the same directory that no other write of any process uses now.
fn beside(path: &Path, parent: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (pid, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    parent.join(format!(".{name}.{pid}-{next}.tmp"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_come_back_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert!(read_checked(&path, 10).unwrap_err().is_not_found());
        for bytes in [&b"one"[..], b"", b"three"] {
            write_checked(&path, bytes).unwrap();
            assert_eq!(read_checked(&path, 10).unwrap(), bytes);
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file is left");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        write_checked(&path, b"precious").unwrap();
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            let damaged = matches!(read_checked(&path, 100), Err(FileError::Damaged { .. }));
            assert!(damaged, "bit {bit} passed");
        }
        for cut in 0..good.len() {
            fs::write(&path, &good[..cut]).unwrap();
            assert!(read_checked(&path, 100).is_err(), "{cut} bytes passed");
        }
    }

    #[test]
    fn bounds_hold_and_a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        write_checked(&path, b"12345").unwrap();
        assert!(read_checked(&path, 5).is_ok());
        assert!(matches!(read_checked(&path, 4), Err(FileError::TooLarge { max: 44, .. })));
        let missing = dir.path().join("none").join("state");
        assert!(matches!(write_atomic(&missing, b""), Err(FileError::Io { .. })));
        let directory = dir.path().join("dir");
        fs::create_dir(&directory).unwrap();
        assert!(write_atomic(&directory, b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "a temporary file is left");
    }
}
