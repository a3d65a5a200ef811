//! [`Budgets`]: attempts that callers have: guesses at join tokens, and certificates per minute.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use mesh_core::name::NodeName;
use tokio::sync::Semaphore;

use super::error::{Failure, Kind};
use crate::limits::api::{GUESSES_MAX, GUESSES_TOTAL_MAX, ISSUES_MAX, STRANGERS_MAX};

/// All budgets of a server. State kind: *ephemeral*.
#[derive(Debug)]
pub(crate) struct Budgets {
    begin: Instant,
    guesses: Mutex<Windows<IpAddr>>,
    issues: Mutex<Windows<NodeName>>,
    /// Blocking queries of callers nobody knows: they must not use up everybody's.
    pub(super) strangers: Semaphore,
}

impl Budgets {
    pub(crate) fn new() -> Self {
        Self {
            begin: Instant::now(),
            guesses: Mutex::new(Windows::new(GUESSES_MAX, GUESSES_TOTAL_MAX)),
            issues: Mutex::new(Windows::new(ISSUES_MAX, usize::MAX)),
            strangers: Semaphore::new(STRANGERS_MAX),
        }
    }

    /// Counts an attempt from `address` with a secret that is not known to be right: before it is
    /// tried, or many at once would all pass. [`Budgets::give_back`] undoes it.
    ///
    /// # Errors
    /// 429 after ten failed attempts of one address, or a hundred of all, within a minute.
    pub(super) fn take_guess(&self, address: IpAddr) -> Result<(), Failure> {
        let (now, mut guesses) = (self.minute(), lock(&self.guesses));
        guesses.roll(now);
        let address = canonical(address);
        if !guesses.has_room(&address, 0) || guesses.total >= guesses.total_max {
            return Err(too_many_attempts());
        }
        guesses.count(address);
        Ok(())
    }

    /// An attempt from `address` was none of guessing.
    pub(super) fn give_back(&self, address: IpAddr) {
        let (now, mut guesses) = (self.minute(), lock(&self.guesses));
        guesses.roll(now);
        guesses.uncount(&canonical(address));
    }

    /// Whether a caller from `address` who shows a secret that is right may try it: what others
    /// guess does not keep him out.
    ///
    /// # Errors
    /// 429 after ten failed attempts of this address within a minute.
    pub(super) fn may_try(&self, address: IpAddr) -> Result<(), Failure> {
        let (now, mut guesses) = (self.minute(), lock(&self.guesses));
        guesses.roll(now);
        match guesses.has_room(&canonical(address), 0) {
            true => Ok(()),
            false => Err(too_many_attempts()),
        }
    }

    /// Counts a certificate for `node`, which hosts `hosted` instances.
    ///
    /// # Errors
    /// 429 beyond sixty a minute, and one for each instance: a host that starts needs them all.
    pub(super) fn take_issue(&self, node: &NodeName, hosted: usize) -> Result<(), Failure> {
        let (now, mut issues) = (self.minute(), lock(&self.issues));
        issues.roll(now);
        if !issues.has_room(node, hosted) {
            let max = ISSUES_MAX + hosted;
            let text = format!("node {node} asked for over {max} certificates in a minute");
            return Err(Failure::new(Kind::TooMany, "too_many_certificates", text));
        }
        issues.count(node.clone());
        Ok(())
    }

    fn minute(&self) -> u64 {
        self.begin.elapsed().as_secs() / 60
    }
}

/// Counts per key within one minute. Holds as many keys as there were counted attempts.
#[derive(Debug)]
struct Windows<K> {
    minute: u64,
    counts: HashMap<K, usize>,
    total: usize,
    each_max: usize,
    total_max: usize,
}

impl<K: Eq + Hash> Windows<K> {
    fn new(each_max: usize, total_max: usize) -> Self {
        Self { minute: 0, counts: HashMap::new(), total: 0, each_max, total_max }
    }

    fn roll(&mut self, minute: u64) {
        if self.minute != minute {
            (self.minute, self.total) = (minute, 0);
            self.counts.clear();
        }
    }

    /// Whether `key` may have one more, with `extra` above what each may have.
    fn has_room(&self, key: &K, extra: usize) -> bool {
        self.counts.get(key).copied().unwrap_or(0) < self.each_max + extra
    }

    fn count(&mut self, key: K) {
        *self.counts.entry(key).or_default() += 1;
        self.total += 1;
    }

    fn uncount(&mut self, key: &K) {
        if let Some(count) = self.counts.get_mut(key).filter(|count| **count > 0) {
            *count -= 1;
            self.total = self.total.saturating_sub(1);
        }
    }
}

fn too_many_attempts() -> Failure {
    let text = "too many failed attempts with join tokens: wait a minute";
    Failure::new(Kind::TooMany, "too_many_attempts", text)
}

/// The network of an address: one host has a whole /64 of IPv6.
fn canonical(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn an_address_and_all_together_have_a_budget_per_minute() {
        let budgets = Budgets::new();
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        // counted when they begin: guesses at once are no more than guesses in a row
        for attempt in 0..12 {
            assert_eq!(budgets.take_guess(address(0)).is_ok(), attempt < 10, "{attempt}");
        }
        budgets.give_back(address(0));
        assert!(budgets.take_guess(address(0)).is_ok());
        for other in 1..10 {
            (0..10).for_each(|_| budgets.take_guess(address(other)).unwrap());
        }
        assert!(budgets.take_guess(address(99)).is_err(), "over the hundred of all");
        // whoever holds a good token is not kept out by what others guess
        assert!(budgets.may_try(address(99)).is_ok());
        assert!(budgets.may_try(address(1)).is_err());
        lock(&budgets.guesses).roll(7);
        assert!(lock(&budgets.guesses).has_room(&address(0), 0));
    }

    #[test]
    fn a_host_of_many_services_gets_a_certificate_for_each() {
        let (budgets, node) = (Budgets::new(), "web-7".parse().unwrap());
        for count in 0..200 {
            assert_eq!(budgets.take_issue(&node, 100).is_ok(), count < 160, "{count}");
        }
    }

    #[test]
    fn one_host_is_one_address() {
        let pairs = [
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ];
        for (a, b, same) in pairs {
            let (a, b): (IpAddr, IpAddr) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(canonical(a) == canonical(b), same, "{a} {b}");
        }
    }
}
