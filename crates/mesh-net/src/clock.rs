//! The wall clock, read at the edge only: the pure part takes time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use mesh_core::time::UnixMillis;

/// Now. A clock set before 1970 reads as 0.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #[test]
    fn now_is_after_this_was_written() {
        assert!(super::now().0 > 1_760_000_000_000);
    }
}
