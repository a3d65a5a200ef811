//! [`Budget`]: how much of what carries no message a connection may send.

use std::time::Instant;

use super::error::{Code, Fault};
use crate::edge::limits::{
    IDLE_FRAMES_A_FRAME, IDLE_FRAMES_A_SECOND, IDLE_FRAMES_MAX, RESETS_A_SECOND, RESETS_MAX,
};

/// Two buckets, filled by time: one also by frames that carry messages, one by answers.
#[derive(Debug)]
pub(super) struct Budget {
    frames: Bucket,
    resets: Bucket,
}

#[derive(Debug)]
struct Bucket {
    left: u32,
    most: u32,
    a_second: u32,
    /// Since when time has not filled it; `None` until it ran dry for the first time.
    since: Option<Instant>,
}

impl Default for Budget {
    fn default() -> Self {
        let bucket = |most, a_second| Bucket { left: most, most, a_second, since: None };
        Self {
            frames: bucket(IDLE_FRAMES_MAX, IDLE_FRAMES_A_SECOND),
            resets: bucket(RESETS_MAX, RESETS_A_SECOND),
        }
    }
}

impl Budget {
    /// A frame came or went that carries a message.
    pub(super) fn message(&mut self) {
        let left = self.frames.left.saturating_add(IDLE_FRAMES_A_FRAME);
        self.frames.left = left.min(self.frames.most);
    }

    /// A call was answered.
    pub(super) fn answer(&mut self) {
        self.resets.left = self.resets.most.min(self.resets.left + 1);
    }

    /// A frame came that carries none.
    ///
    /// # Errors
    /// Too many of them did.
    pub(super) fn frame(&mut self) -> Result<(), Fault> {
        let took = self.frames.take(Instant::now);
        took.ok_or(Fault::connection(Code::Calm, "too many frames without a message"))
    }

    /// A stream ended before its answer by what the other side did.
    ///
    /// # Errors
    /// Too many of them did.
    pub(super) fn reset(&mut self) -> Result<(), Fault> {
        let took = self.resets.take(Instant::now);
        took.ok_or(Fault::connection(Code::Calm, "too many streams end before they are answered"))
    }
}

impl Bucket {
    /// Takes one; the clock is asked only once it is dry.
    fn take(&mut self, now: impl Fn() -> Instant) -> Option<()> {
        if self.left == 0 {
            let now = now();
            let since = *self.since.get_or_insert(now);
            let earned = now.duration_since(since).as_millis() * u128::from(self.a_second) / 1000;
            let earned = u32::try_from(earned).unwrap_or(u32::MAX).min(self.most);
            if earned > 0 {
                self.left = earned;
                self.since = Some(now);
            }
        }
        self.left = self.left.checked_sub(1)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_budget_ends_and_comes_back() {
        let mut budget = Budget::default();
        for _ in 0..RESETS_MAX {
            budget.reset().unwrap();
        }
        assert!(budget.reset().is_err());
        for _ in 0..IDLE_FRAMES_MAX {
            budget.frame().unwrap();
        }
        assert!(budget.frame().is_err());
        budget.message();
        for _ in 0..IDLE_FRAMES_A_FRAME {
            budget.frame().unwrap();
        }
        assert!(budget.frame().is_err());
        assert!(budget.reset().is_err(), "messages pay for no resets");
        budget.answer();
        assert!(budget.reset().is_ok() && budget.reset().is_err());

        let mut bucket = Bucket { left: 0, most: 10, a_second: 5, since: None };
        let start = Instant::now();
        assert_eq!(bucket.take(|| start), None);
        assert_eq!(bucket.take(|| start + Duration::from_millis(100)), None);
        let later = start + Duration::from_millis(400);
        assert_eq!(
            [bucket.take(|| later), bucket.take(|| later), bucket.take(|| later)],
            [Some(()), Some(()), None]
        );
        let much_later = start + Duration::from_secs(3600);
        let taken = (0..20).filter(|_| bucket.take(|| much_later).is_some()).count();
        assert_eq!(taken, 10);
    }
}
