//! When to try a check, and what its tries say. Pure.

use std::time::Duration;

use crate::limits::health::FIRST_WITHIN_MS;
use mesh_core::catalog::{CheckStatus, Health};
use mesh_core::hostfile::CheckFile;
use mesh_core::limits::CHECK_OUTPUT_BYTES_MAX;

/// What is known of one check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CheckState {
    /// No try has ended yet.
    #[default]
    Unknown,
    /// As it was before the agent restarted; the first try decides.
    Restored(CheckStatus),
    /// Decided by tries.
    Known {
        /// The outcome in force.
        status: CheckStatus,
        /// Tries in a row that said the opposite.
        against: u32,
    },
}

/// How one try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// Whether it passed.
    pub good: bool,
    /// What it said, for people.
    pub output: String,
}

impl CheckState {
    /// This state after one more try.
    ///
    /// The first try decides at once; from then on the outcome changes after `rise` good tries in
    /// a row, or `fall` bad ones.
    #[must_use]
    pub fn after(self, tried: &Try, rise: u32, fall: u32) -> Self {
        let decided = || Self::Known { status: status(tried), against: 0 };
        let (held, against) = match self {
            Self::Unknown | Self::Restored(_) => return decided(),
            Self::Known { status, against } => (status, against),
        };
        if held.passing == tried.good {
            return Self::Known { status: held, against: 0 };
        }
        let needed = if tried.good { rise } else { fall };
        match against.saturating_add(1) {
            enough if enough >= needed => decided(),
            against => Self::Known { status: held, against },
        }
    }

    /// The outcome to report; a check that never answered does not pass.
    pub fn status(&self) -> CheckStatus {
        match self {
            Self::Unknown => {
                CheckStatus { passing: false, output: "no check has run yet".to_owned() }
            }
            Self::Restored(status) | Self::Known { status, .. } => status.clone(),
        }
    }
}

/// The health of an instance: passing if all its checks pass, or it has none.
pub fn fold<'a>(checks: impl IntoIterator<Item = &'a CheckStatus>) -> Health {
    if checks.into_iter().all(|check| check.passing) { Health::Passing } else { Health::Critical }
}

/// How long to wait before try `number` (from 0) of a check.
///
/// The first comes within a second, so that a started host is soon known; the others an interval
/// apart, give or take a tenth. `jitter_permille` (0 to 1000) spreads the checks of a host.
///
/// # Panics
/// If `jitter_permille` is over 1000: the caller's bug.
pub(super) fn wait_before(check: &CheckFile, number: u64, jitter_permille: u32) -> Duration {
    assert!(jitter_permille <= 1000, "jitter is a fraction of one");
    let jitter = u64::from(jitter_permille);
    let ms = match number {
        0 => check.interval_ms.min(FIRST_WITHIN_MS) * jitter / 1000,
        _ => check.interval_ms * 9 / 10 + check.interval_ms * jitter / 5000,
    };
    Duration::from_millis(ms)
}

fn status(tried: &Try) -> CheckStatus {
    CheckStatus { passing: tried.good, output: clip(&tried.output) }
}

/// `text` on one line, cut to what a report may hold.
fn clip(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut out: String = text.trim().chars().map(plain).collect();
    let mut end = CHECK_OUTPUT_BYTES_MAX.min(out.len());
    while !out.is_char_boundary(end) {
        end -= 1;
    }
    out.truncate(end);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use mesh_core::hostfile::CheckKind;
    use proptest::prelude::*;

    use super::*;

    fn tried(good: bool) -> Try {
        Try { good, output: if good { "up" } else { "down" }.to_owned() }
    }

    /// The outcome after each letter of `tries`: `+` good, `-` bad.
    fn run(state: CheckState, tries: &str, rise: u32, fall: u32) -> String {
        let mut state = state;
        let mut out = String::new();
        for letter in tries.chars() {
            state = state.after(&tried(letter == '+'), rise, fall);
            out.push(if state.status().passing { '+' } else { '-' });
        }
        out
    }

    #[test]
    fn outcomes_change_by_rise_and_fall() {
        let restored =
            |passing| CheckState::Restored(CheckStatus { passing, output: String::new() });
        let cases = [
            ("first good decides", CheckState::Unknown, "+", 2, 3, "+"),
            ("first bad decides", CheckState::Unknown, "-", 2, 3, "-"),
            ("falls after three", CheckState::Unknown, "+---", 2, 3, "+++-"),
            ("a good try starts over", CheckState::Unknown, "+--+--", 2, 3, "++++++"),
            ("rises after two", CheckState::Unknown, "-++", 2, 3, "--+"),
            ("a bad try starts over", CheckState::Unknown, "-+-+-", 2, 3, "-----"),
            ("ones change at once", CheckState::Unknown, "+-+-", 1, 1, "+-+-"),
            ("restored good, first bad decides", restored(true), "-", 2, 3, "-"),
            ("restored bad, first good decides", restored(false), "+", 2, 3, "+"),
        ];
        for (name, state, tries, rise, fall, want) in cases {
            assert_eq!(run(state, tries, rise, fall), want, "case: {name}");
        }
        assert!(!CheckState::Unknown.status().passing);
        assert!(restored(true).status().passing);
    }

    #[test]
    fn instances_pass_by_all_their_checks() {
        let check = |passing| CheckStatus { passing, output: String::new() };
        assert_eq!(fold(&[]), Health::Passing);
        assert_eq!(fold(&[check(true), check(true)]), Health::Passing);
        assert_eq!(fold(&[check(true), check(false)]), Health::Critical);
    }

    #[test]
    fn outputs_are_cut_to_whole_characters() {
        let long = "é".repeat(CHECK_OUTPUT_BYTES_MAX);
        assert_eq!(clip(&long).len(), CHECK_OUTPUT_BYTES_MAX);
        assert_eq!(clip(&format!("a{long}")).len(), CHECK_OUTPUT_BYTES_MAX - 1);
        assert_eq!(clip(" a\nb\u{1b}[1m "), "a b [1m");
    }

    proptest! {
        /// An outcome changes only after as many equal tries as its side needs.
        #[test]
        fn changes_need_a_run(tries in "[+-]{1,60}", rise in 1..6u32, fall in 1..6u32) {
            let outcomes = run(CheckState::Unknown, &tries, rise, fall);
            let (tries, outcomes) = (tries.as_bytes(), outcomes.as_bytes());
            for at in 1..tries.len() {
                if outcomes[at] == outcomes[at - 1] {
                    continue;
                }
                let needed = if outcomes[at] == b'+' { rise } else { fall } as usize;
                prop_assert!(at + 1 >= needed);
                let equal = tries[at + 1 - needed..=at].iter().all(|t| *t == outcomes[at]);
                prop_assert!(equal, "changed at {} without {} in a row", at, needed);
            }
        }

        #[test]
        fn waits_stay_near_the_interval(ms in 100..3_600_000u64, n in 0..9u64, j in 0..=1000u32) {
            let kind = CheckKind::Tcp;
            let check = CheckFile { kind, interval_ms: ms, timeout_ms: 1, rise: 1, fall: 1 };
            let wait = wait_before(&check, n, j).as_millis() as u64;
            if n == 0 {
                prop_assert!(wait <= 1_000 && wait <= ms);
            } else {
                prop_assert!(wait >= ms * 9 / 10 && wait <= ms * 11 / 10);
            }
        }
    }
}
