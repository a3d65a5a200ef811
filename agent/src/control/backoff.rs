//! Waiting before trying again: full jitter, so that a fleet does not come back at once.

use std::time::Duration;

use mesh_core::limits::RECONNECT_MS_MAX;

use crate::limits::control::BACKOFF_LEAST_MS;

/// The wait before attempt `attempt` (from 1) to reconnect.
///
/// Full jitter: between the least and a bound that doubles from 1 s with each attempt up to
/// [`RECONNECT_MS_MAX`]: longer, and servers that come back would take a living host for gone.
/// `jitter_permille` (0 to 1000) says where between.
///
/// # Panics
/// If `jitter_permille` is over 1000: the caller's bug.
pub fn wait_before(attempt: u32, jitter_permille: u32) -> Duration {
    assert!(jitter_permille <= 1000, "jitter is a fraction of one");
    let doubled = BACKOFF_LEAST_MS.saturating_mul(1 << attempt.min(16));
    let bound = doubled.clamp(BACKOFF_LEAST_MS, RECONNECT_MS_MAX);
    Duration::from_millis(
        BACKOFF_LEAST_MS + (bound - BACKOFF_LEAST_MS) * u64::from(jitter_permille) / 1000,
    )
}

/// A random number from 0 to 1000.
pub fn random_permille() -> u32 {
    let mut bytes = [0; 4];
    // Without entropy the middle is as good as any: jitter is a courtesy, not a secret.
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u32::from_le_bytes(bytes) % 1001,
        Err(_) => 500,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_up_to_their_bound() {
        let cases = [
            (1, 0, 500),
            (1, 1000, 1_000),
            (2, 1000, 2_000),
            (3, 1000, 4_000),
            (4, 1000, 5_000),
            (u32::MAX, 1000, 5_000),
        ];
        for (attempt, jitter, want) in cases {
            assert_eq!(wait_before(attempt, jitter), Duration::from_millis(want), "{attempt}");
        }
    }

    proptest! {
        #[test]
        fn waits_are_within_half_and_five_seconds(attempt: u32, jitter in 0..=1000u32) {
            let wait = wait_before(attempt, jitter);
            prop_assert!(wait >= Duration::from_millis(500) && wait <= Duration::from_secs(5));
        }
    }

    #[test]
    fn random_numbers_are_in_range() {
        assert!((0..1000).all(|_| random_permille() <= 1000));
    }
}
