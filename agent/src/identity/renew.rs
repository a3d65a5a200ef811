//! When a certificate is renewed. Pure.

use mesh_core::time::UnixMillis;

/// A life that ends before it begins (RFC 5280 §4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("certificate ends at {not_after}, before it begins at {not_before}")]
pub struct Inverted {
    /// Its begin.
    pub not_before: UnixMillis,
    /// Its end.
    pub not_after: UnixMillis,
}

/// The instant at which to renew a certificate valid from `not_before` to `not_after`.
///
/// `jitter_permille` (0 to 1000) spreads a fleet over the tenth of the life before its half: 0
/// renews at 4/10, 1000 at 5/10, so at least half of the life is left when the servers are gone.
///
/// # Errors
/// [`Inverted`] if `not_after` precedes `not_before`.
///
/// # Panics
/// If `jitter_permille` is over 1000: the caller's bug, never the peer's.
pub fn renew_at(
    not_before: UnixMillis, not_after: UnixMillis, jitter_permille: u32,
) -> Result<UnixMillis, Inverted> {
    assert!(jitter_permille <= 1000, "jitter is a fraction of one");
    if not_after < not_before {
        return Err(Inverted { not_before, not_after });
    }
    let tenth = not_after.since(not_before) / 10;
    let jitter = (u128::from(tenth) * u128::from(jitter_permille) / 1000) as u64;
    Ok(not_before.plus(tenth * 4 + jitter))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn renewal_leaves_half_of_the_life() {
        let (from, to) = (UnixMillis(100 * HOUR), UnixMillis(124 * HOUR));
        let at = |jitter| renew_at(from, to, jitter).unwrap().since(from);
        assert_eq!(at(0), 24 * HOUR * 4 / 10);
        assert_eq!(at(1000), 12 * HOUR);
        assert!(at(500) > at(499));
    }

    #[test]
    fn inverted_lives_are_refused() {
        let error = renew_at(UnixMillis(2), UnixMillis(1), 0);
        assert_eq!(error, Err(Inverted { not_before: UnixMillis(2), not_after: UnixMillis(1) }));
        assert_eq!(renew_at(UnixMillis(2), UnixMillis(2), 1000), Ok(UnixMillis(2)));
    }

    proptest! {
        #[test]
        fn renewal_is_between_four_and_five_tenths(from: u64, life: u64, jitter in 0..=1000u32) {
            let (from, to) = (UnixMillis(from), UnixMillis(from).plus(life));
            let (at, life) = (renew_at(from, to, jitter).unwrap(), to.since(from));
            prop_assert!(at.since(from) >= life / 10 * 4);
            prop_assert!(at.since(from) <= life / 2);
        }
    }
}
