//! Which process of the agent this is, counted over its life.

use std::path::Path;

use mesh_net::files;
use mesh_net::telemetry::Chain;

use crate::error::RunError;

/// The number of this process: above those of all before, so that servers can tell an old process
/// from the new one while both run. On disk when it returns.
///
/// # Errors
/// [`RunError::DataDir`] if it cannot be kept.
pub(crate) fn next(data_dir: &Path) -> Result<u64, RunError> {
    let path = data_dir.join("generation");
    let last = match files::read_checked(&path, 8) {
        Ok(bytes) => bytes.try_into().map(u64::from_be_bytes).unwrap_or_default(),
        Err(why) if why.is_not_found() => 0,
        Err(why) => {
            tracing::warn!("process count begins anew: {}", Chain(&why));
            0
        }
    };
    // If the count was lost, the clock is above what it can have been.
    let least = if last == 0 { mesh_net::clock::now().0 } else { 0 };
    let next = last.saturating_add(1).max(least);
    files::write_checked(&path, &next.to_be_bytes()).map_err(|why| RunError::DataDir {
        path: data_dir.to_owned(),
        source: std::io::Error::other(why),
    })?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn the_count_rises_also_when_it_was_lost() {
        let dir = tempfile::tempdir().unwrap();
        let first = next(dir.path()).unwrap();
        assert_eq!(next(dir.path()).unwrap(), first + 1);
        std::fs::write(dir.path().join("generation"), "damaged").unwrap();
        assert!(next(dir.path()).unwrap() >= first);
    }
}
