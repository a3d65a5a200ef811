//! Keeping the key-encryption key in a file or reading it from systemd's credentials.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Kek, KekError};

/// The name of the systemd credential.
const CREDENTIAL: &str = "kek";
/// Bytes of a file: 64 hex digits and a newline.
const FILE_LEN: usize = 2 * Kek::LEN + 1;

/// Who may read the key where it lies.
#[derive(Clone, Copy, Debug)]
enum Keeper {
    /// A file of ours: nobody but its owner.
    File,
    /// systemd's: it may grant the service's user by an ACL, which shows as group bits, in a
    /// directory that only that user can enter.
    Credential,
}

impl Kek {
    /// Reads the key from the file at `path`, which must lie outside `data`, belong to this
    /// process's user or root and be readable by its owner only.
    ///
    /// # Errors
    /// [`KekError`].
    pub fn load(path: &Path, data: &Path) -> Result<Self, KekError> {
        check_outside(path, data)?;
        read(path, Keeper::File)
    }

    /// Reads the key from the systemd credential `kek` in `directory`, the value of
    /// `CREDENTIALS_DIRECTORY` in the environment.
    ///
    /// # Errors
    /// [`KekError`].
    pub fn load_credential(directory: Option<&OsStr>) -> Result<Self, KekError> {
        let directory = directory.filter(|d| !d.is_empty()).ok_or(KekError::NoCredentials)?;
        read(&Path::new(directory).join(CREDENTIAL), Keeper::Credential)
    }

    /// Writes the key to a new file at `path`, outside `data`, readable by its owner only and
    /// durable when this returns. Never replaces a file: it may be the only key to another CA.
    ///
    /// # Errors
    /// [`KekError`].
    pub fn store(&self, path: &Path, data: &Path) -> Result<(), KekError> {
        check_outside(path, data)?;
        let failed = |action| move |source| KekError::Io { action, path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(path).map_err(failed("create"))?;
        let text = Zeroizing::new(hex::encode(self.bytes()) + "\n");
        file.write_all(text.as_bytes()).map_err(failed("create"))?;
        file.sync_all().map_err(failed("sync"))?;
        File::open(parent(path)).and_then(|dir| dir.sync_all()).map_err(failed("sync"))
    }
}

fn read(path: &Path, keeper: Keeper) -> Result<Kek, KekError> {
    let failed = |source| KekError::Io { action: "read", path: path.to_owned(), source };
    // Non-blocking, so that a pipe in its place cannot hang the start.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check_access(path, keeper, &Access::of(&metadata))?;
    // One byte more than fits shows a longer file; allocated whole, so that no copy is left.
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_LEN + 1));
    file.take(FILE_LEN as u64 + 1).read_to_end(&mut text).map_err(failed)?;
    parse(&text).ok_or_else(|| KekError::Form { path: path.to_owned(), found: text.len() })
}

fn parse(text: &[u8]) -> Option<Kek> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    let mut bytes = Zeroizing::new([0; Kek::LEN]);
    hex::decode_to_slice(digits, &mut *bytes).ok()?;
    Kek::from_bytes(&*bytes)
}

/// What decides who may read a file.
#[derive(Clone, Copy, Debug)]
struct Access {
    regular: bool,
    mode: u32,
    owner: u32,
    /// The user of this process.
    user: u32,
}

impl Access {
    fn of(metadata: &Metadata) -> Self {
        Self {
            regular: metadata.is_file(),
            mode: metadata.mode() & 0o777,
            owner: metadata.uid(),
            user: rustix::process::geteuid().as_raw(),
        }
    }
}

fn check_access(path: &Path, keeper: Keeper, access: &Access) -> Result<(), KekError> {
    let Access { regular, mode, owner, user } = *access;
    let refuse = |found, expected| Err(KekError::Access { path: path.to_owned(), found, expected });
    if !regular {
        return refuse("not a regular file".to_owned(), "a regular file");
    }
    if owner != user && owner != 0 {
        return refuse(format!("owned by uid {owner}"), "this process's user or root to own it");
    }
    match keeper {
        Keeper::File if mode & 0o177 != 0 => refuse(format!("mode {mode:04o}"), "0600 or 0400"),
        Keeper::Credential if mode & 0o337 != 0 => {
            refuse(format!("mode {mode:04o}"), "0400 or 0440, as systemd makes it")
        }
        Keeper::File | Keeper::Credential => Ok(()),
    }
}

fn check_outside(path: &Path, data: &Path) -> Result<(), KekError> {
    let failed = |source| KekError::Io { action: "read", path: path.to_owned(), source };
    // The data directory may not be there yet; then nothing can lie in it.
    let data = match fs::canonicalize(data) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::path::absolute(data).map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    let real = real_path(path).map_err(failed)?;
    match real.starts_with(&data) {
        true => Err(KekError::InDataDirectory { path: real, data }),
        false => Ok(()),
    }
}

/// Where `path` leads, be there a file yet or not.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or(error)?;
            Ok(fs::canonicalize(parent(path))?.join(name))
        }
        other => other,
    }
}

/// The directory `path` is in.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn only_the_owner_may_reach_the_key() {
        let ours = Access { regular: true, mode: 0o600, owner: 7, user: 7 };
        let cases = [
            ("0600", Keeper::File, ours, true),
            ("0400", Keeper::File, Access { mode: 0o400, ..ours }, true),
            ("root's", Keeper::File, Access { owner: 0, ..ours }, true),
            ("another's", Keeper::File, Access { owner: 8, ..ours }, false),
            ("group reads", Keeper::File, Access { mode: 0o640, ..ours }, false),
            ("group writes", Keeper::File, Access { mode: 0o620, ..ours }, false),
            ("world reads", Keeper::File, Access { mode: 0o604, ..ours }, false),
            ("executable", Keeper::File, Access { mode: 0o700, ..ours }, false),
            ("a directory", Keeper::File, Access { regular: false, ..ours }, false),
            ("credential", Keeper::Credential, Access { mode: 0o400, ..ours }, true),
            ("by ACL", Keeper::Credential, Access { mode: 0o440, owner: 0, ..ours }, true),
            ("world", Keeper::Credential, Access { mode: 0o444, owner: 0, ..ours }, false),
            ("another's", Keeper::Credential, Access { mode: 0o400, owner: 8, ..ours }, false),
        ];
        for (name, keeper, access, want) in cases {
            let got = check_access(Path::new("kek"), keeper, &access);
            assert_eq!(got.is_ok(), want, "{name}, {keeper:?}: {got:?}");
        }
    }

    #[test]
    fn a_key_is_64_hex_digits() {
        let digits = "0f".repeat(32);
        for good in [digits.clone(), format!("{digits}\n")] {
            assert_eq!(parse(good.as_bytes()).unwrap().bytes(), &[0x0f; 32]);
        }
        for bad in ["", "\n", &digits[..62], &"0g".repeat(32), &format!("{digits}\n\n")] {
            assert!(parse(bad.as_bytes()).is_none(), "{bad:?}");
        }
    }
}
