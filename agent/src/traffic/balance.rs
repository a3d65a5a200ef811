//! P2C with peak EWMA: of two random endpoints, the one with the lower expected wait.
//!
//! Sources: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (1996); the
//! peak-sensitive moving average as used by Finagle and Linkerd. A failure counts as a slow
//! answer, so that an endpoint that fails fast does not attract traffic.

/// Time for an old observation to lose all but 1/e of its weight, in nanoseconds.
pub const DECAY_NS: u64 = 10_000_000_000;
/// The latency assumed of an endpoint never used, in nanoseconds: low, so that it is tried.
pub const INITIAL_NS: u64 = 1_000_000;
/// The latency a failure counts as, in nanoseconds.
pub const FAILURE_NS: u64 = 2_000_000_000;

/// What is known of one endpoint's latency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ewma {
    /// The moving average, in nanoseconds.
    pub average_ns: f64,
    /// When it was last updated, in nanoseconds of a monotonic clock.
    pub at_ns: u64,
}

impl Ewma {
    /// Of an endpoint never used.
    pub fn new(now_ns: u64) -> Self {
        Self { average_ns: INITIAL_NS as f64, at_ns: now_ns }
    }

    /// After one more observation: a peak counts at once, what is lower moves the average slowly.
    #[must_use]
    pub fn observe(self, latency_ns: u64, now_ns: u64) -> Self {
        let latency = latency_ns as f64;
        let average_ns = if latency > self.average_ns {
            latency
        } else {
            let weight = decay(now_ns.saturating_sub(self.at_ns));
            self.average_ns * weight + latency * (1.0 - weight)
        };
        Self { average_ns, at_ns: now_ns.max(self.at_ns) }
    }

    /// The average as of `now_ns`: what is not observed again fades towards the initial value.
    pub fn decayed(self, now_ns: u64) -> f64 {
        let weight = decay(now_ns.saturating_sub(self.at_ns));
        self.average_ns * weight + (INITIAL_NS as f64) * (1.0 - weight)
    }

    /// The expected wait of one more call beside `outstanding` others.
    pub fn cost(self, outstanding: u32, now_ns: u64) -> f64 {
        self.decayed(now_ns) * f64::from(outstanding.saturating_add(1))
    }
}

fn decay(elapsed_ns: u64) -> f64 {
    (-(elapsed_ns as f64) / DECAY_NS as f64).exp()
}

/// Two different indices below `len` from `draw`, any number; the same one twice if `len` is 1.
/// `None` if there is nothing to choose from.
pub fn two(len: usize, draw: u64) -> Option<(usize, usize)> {
    match len {
        0 => None,
        1 => Some((0, 0)),
        _ => {
            let len = len as u64;
            let first = draw % len;
            let second = (first + 1 + (draw / len) % (len - 1)) % len;
            Some((first as usize, second as usize))
        }
    }
}

/// The cheaper of two random candidates. `cost` is asked for those two only.
pub fn pick(len: usize, draw: u64, cost: impl Fn(usize) -> f64) -> Option<usize> {
    let (a, b) = two(len, draw)?;
    Some(if a != b && cost(b) < cost(a) { b } else { a })
}

/// The next number of the SplitMix64 sequence of `state` (Steele, Lea, Flood 2014).
pub fn split_mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn peaks_count_at_once_and_fade() {
        let calm = Ewma::new(0).observe(2_000_000, SECOND);
        let peak = calm.observe(50_000_000, 2 * SECOND);
        assert_eq!(peak.average_ns, 50_000_000.0);
        let later = peak.observe(2_000_000, 3 * SECOND);
        assert!(later.average_ns < peak.average_ns && later.average_ns > 40_000_000.0);
        assert!(peak.decayed(200 * SECOND) < 1_000_001.0);
    }

    #[test]
    fn a_failing_endpoint_costs_more_than_a_busy_one() {
        let failing = Ewma::new(0).observe(FAILURE_NS, SECOND);
        let busy = Ewma::new(0).observe(5_000_000, SECOND);
        assert!(failing.cost(0, 2 * SECOND) > busy.cost(64, 2 * SECOND));
    }

    #[test]
    fn over_many_draws_the_fast_one_gets_more() {
        let (fast, slow) = (1.0, 10.0);
        let picked_fast = (0..10_000u64)
            .filter(|n| pick(3, split_mix(*n), |i| if i == 0 { fast } else { slow }) == Some(0))
            .count();
        assert!((6_000..7_400).contains(&picked_fast), "{picked_fast}");
    }

    proptest! {
        #[test]
        fn two_are_different_and_in_range(len in 2usize..200, draw: u64) {
            let (a, b) = two(len, draw).unwrap();
            prop_assert!(a < len && b < len && a != b);
        }

        #[test]
        fn averages_stay_finite_and_positive(observations in prop::collection::vec((0u64..10_000_000_000, 0u64..100_000_000_000), 0..50)) {
            let mut ewma = Ewma::new(0);
            for (latency, now) in observations {
                ewma = ewma.observe(latency, now);
                prop_assert!(ewma.average_ns.is_finite() && ewma.average_ns >= 0.0);
            }
        }
    }

    #[test]
    fn nothing_and_one_are_edges() {
        assert_eq!(two(0, 7), None);
        assert_eq!(two(1, 7), Some((0, 0)));
        assert_eq!(pick(1, 7, |_| 1.0), Some(0));
    }
}
