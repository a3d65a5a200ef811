//! From the user names of a config to the uids the kernel knows.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

pub use crate::limits::callers::GETENT_TIMEOUT;
use crate::limits::callers::{GETENT_LEN_MAX, PASSWD_LEN_MAX, USERS_NAME_LEN_MAX};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

/// Why a user name has no uid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// No name that a user could have.
    #[error("user {0:?} is no user name, expected letters, digits and '_', '-', '.'")]
    Name(String),
    /// Neither `/etc/passwd` nor `getent` knows it.
    #[error("user {0:?} does not exist on this host")]
    Missing(String),
    /// The list of users could not be read.
    #[error("cannot read {path}", path = path.display())]
    Passwd {
        /// The list.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The name services could not be asked.
    #[error("cannot ask getent for user {name:?}")]
    Getent {
        /// The name asked for.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The name services failed: not the same as an unknown name.
    #[error("getent failed for user {name:?}: {status}")]
    Failed {
        /// The name asked for.
        name: String,
        /// How it ended.
        status: ExitStatus,
    },
}

/// The uid of the user `name`; a number is taken as it is.
///
/// Looks in `/etc/passwd`, then asks the name services through `getent`, at most for
/// [`GETENT_TIMEOUT`]. A user that systemd makes for a unit (`DynamicUser=`) has a uid only while
/// that unit runs, and another one later: recognise such a service by its unit.
///
/// Cancel safe: a `getent` under way is killed.
///
/// # Errors
/// [`UserError`] if there is no such user, or nobody could say.
pub async fn uid_of(name: &str) -> Result<u32, UserError> {
    uid_in(Path::new("/etc/passwd"), name).await
}

async fn uid_in(passwd: &Path, name: &str) -> Result<u32, UserError> {
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) {
        let uid = name.parse().ok().filter(|&uid| uid != NO_UID);
        return uid.ok_or_else(|| UserError::Name(name.to_owned()));
    }
    check(name)?;
    let unreadable = |source| UserError::Passwd { path: passwd.to_owned(), source };
    let file = File::open(passwd).await.map_err(unreadable)?;
    let table = read_at_most(file, PASSWD_LEN_MAX).await.map_err(unreadable)?;
    match find(&table, name) {
        Some(uid) => Ok(uid),
        None => ask_getent(name).await,
    }
}

fn check(name: &str) -> Result<(), UserError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    // No leading hyphen: the name is an argument of a command.
    let good = (1..=USERS_NAME_LEN_MAX).contains(&name.len())
        && !name.starts_with('-')
        && name.trim_end_matches('$').chars().all(allowed);
    if good { Ok(()) } else { Err(UserError::Name(name.to_owned())) }
}

async fn ask_getent(name: &str) -> Result<u32, UserError> {
    let failed = |source| UserError::Getent { name: name.to_owned(), source };
    let mut child = Command::new("getent")
        .args(["passwd", name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let stdout = child.stdout.take();
    let run = async {
        let table = match stdout {
            Some(stdout) => read_at_most(stdout, GETENT_LEN_MAX).await?,
            None => String::new(),
        };
        Ok((table, child.wait().await?))
    };
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let ended = timeout(GETENT_TIMEOUT, run).await.map_err(late).and_then(|ended| ended);
    let (table, status) = ended.map_err(failed)?;
    match status.code() {
        // The line must be the one asked for: name services may fold or alias names.
        Some(0) => find(&table, name).ok_or_else(|| UserError::Missing(name.to_owned())),
        Some(GETENT_NOT_FOUND) => Err(UserError::Missing(name.to_owned())),
        _ => Err(UserError::Failed { name: name.to_owned(), status }),
    }
}

async fn read_at_most(from: impl AsyncRead + Unpin, bytes: u64) -> io::Result<String> {
    let mut table = Vec::new();
    from.take(bytes).read_to_end(&mut table).await?;
    // A comment field in another encoding must not hide every user.
    Ok(String::from_utf8_lossy(&table).into_owned())
}

/// The uid of `name` in the lines of `table` (passwd(5)).
fn find(table: &str, name: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        let uid = fields.nth(1).filter(|_| found)?;
        uid.parse().ok().filter(|&uid| uid != NO_UID)
    })
}

/// `(uid_t)-1`, which is no user.
const NO_UID: u32 = u32::MAX;
/// getent(1): a key was not found.
const GETENT_NOT_FOUND: i32 = 2;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn a_line_gives_its_uid_only_to_its_name() {
        let table = "root:x:0:0:root:/root:/bin/sh\n\
                     webby:x:1001:1001::/:/bin/false\n\
                     web:x:1002:1002:a\u{fffd}b:/:/bin/false\n\
                     +nis\n\
                     # web2:x:7:7::/:\n\
                     bad:x:many:1::/:\n\
                     none:x:4294967295:1::/:\n\
                     web:x:9:9::/:\n";
        let cases = [
            ("root", Some(0)),
            ("web", Some(1002)),
            ("webby", Some(1001)),
            ("we", None),
            ("web2", None),
            ("x", None),
            ("bad", None),
            ("none", None),
            ("", None),
        ];
        for (name, want) in cases {
            assert_eq!(find(table, name), want, "{name:?}");
        }
    }

    #[tokio::test]
    async fn names_are_looked_up_and_numbers_taken() {
        assert_eq!(uid_of("root").await.unwrap(), 0);
        assert_eq!(uid_of("1000").await.unwrap(), 1000);
        for name in ["", "-h", "a:b", "a b", "4294967295", "99999999999", "--", &"a".repeat(256)] {
            assert!(matches!(uid_of(name).await, Err(UserError::Name(_))), "{name:?}");
        }
    }

    #[tokio::test]
    async fn the_name_services_are_asked_last() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let answers =
            (uid_in(empty.path(), "root").await, uid_in(empty.path(), "no-such-user-here").await);
        if let (Err(UserError::Getent { source, .. }), _) = &answers {
            println!("skipped: no getent here: {source}");
            return;
        }
        assert_eq!(answers.0.unwrap(), 0);
        assert!(matches!(answers.1, Err(UserError::Missing(_))));
    }
}
