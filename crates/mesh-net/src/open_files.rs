//! How many files this process may have open, and what that leaves for connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one and gives what is in force then.
///
/// A shell's soft limit of 1,024 is meant for `select`, which nothing here uses.
pub fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    // no limit at all is more than any bound of ours
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many connections of `wanted` fit into `files` open files: four fifths of them, at two a
/// connection (the caller's side and the other), at least 16.
pub fn connections(wanted: usize, files: u64) -> usize {
    let room = usize::try_from(files / 5 * 4 / 2).unwrap_or(usize::MAX);
    wanted.min(room.max(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_stay_within_the_limit_of_open_files() {
        let cases = [
            (8_192, 20_000, 8_000),
            (8_192, 1_048_576, 8_192),
            (8_192, 1_024, 408),
            (8_192, 10, 16),
            (100, u64::MAX, 100),
        ];
        for (wanted, files, want) in cases {
            assert_eq!(connections(wanted, files), want, "{wanted} of {files}");
        }
    }

    #[test]
    fn the_soft_limit_is_the_hard_one_afterwards() {
        let now = raise();
        assert_eq!(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX), now);
    }
}
