//! The sample's traffic: web and batch call orders at a steady rate; what they saw is counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::apps;
use crate::limits::dev::{LATENCIES_MAX, TRAFFIC_PENDING_MAX};

/// One stream of calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calls {
    /// Who calls.
    pub(super) from: &'static str,
    /// Whom.
    pub(super) to: &'static str,
    /// The explicit port.
    pub(super) port: SocketAddr,
    /// Calls per second.
    pub(super) rate: u32,
}

/// What callers saw, by caller and callee.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts(Arc<Mutex<BTreeMap<(&'static str, &'static str), Count>>>);

/// What one caller saw of one callee.
#[derive(Clone, Debug, Default)]
pub(super) struct Count {
    /// Answers with 200.
    pub(super) ok: u64,
    /// Answers with 403.
    pub(super) denied: u64,
    /// Everything else.
    pub(super) failed: u64,
    /// The last failure, for people.
    pub(super) last_failure: Option<String>,
    /// The latest latencies of answers with 200.
    pub(super) latencies: Vec<Duration>,
    /// Answers by the first word of their body: which instance it was.
    pub(super) by_instance: BTreeMap<String, u64>,
}

impl Counts {
    /// What was seen so far.
    pub(super) fn read(&self) -> BTreeMap<(&'static str, &'static str), Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, calls: &Calls, answer: Result<(StatusCode, String), String>, took: Duration) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((calls.from, calls.to)).or_default();
        match answer {
            Ok((StatusCode::OK, body)) => {
                count.ok += 1;
                if count.latencies.len() >= LATENCIES_MAX {
                    count.latencies.drain(..LATENCIES_MAX / 2);
                }
                count.latencies.push(took);
                let instance = body.split(' ').next().unwrap_or_default().to_owned();
                *count.by_instance.entry(instance).or_default() += 1;
            }
            Ok((StatusCode::FORBIDDEN, _)) => count.denied += 1,
            Ok((status, body)) => {
                count.failed += 1;
                count.last_failure = Some(format!("{status} {}", body.trim()));
            }
            Err(why) => {
                count.failed += 1;
                count.last_failure = Some(why);
            }
        }
    }
}

impl Count {
    /// The latency that `percent` of the latest answers stayed below.
    pub(super) fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.latencies.clone();
        sorted.sort();
        sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied()
    }
}

/// Makes `calls` until `stop`.
pub(super) async fn run(calls: Calls, counts: Counts, stop: CancellationToken) {
    let mut pending = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / calls.rate.max(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        while pending.try_join_next().is_some() {}
        if pending.len() >= TRAFFIC_PENDING_MAX {
            counts.add(&calls, Err("too many calls unanswered".to_owned()), Duration::ZERO);
            continue;
        }
        let counts = counts.clone();
        pending.spawn(async move {
            let began = Instant::now();
            let answer = apps::get(calls.port, "/v2/list", &[]).await;
            counts.add(&calls, answer, began.elapsed());
        });
    }
    pending.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_seen() {
        let latencies = (1..=100).map(Duration::from_millis).collect();
        let count = Count { latencies, ..Count::default() };
        assert_eq!(count.percentile(50), Some(Duration::from_millis(51)));
        assert_eq!(count.percentile(99), Some(Duration::from_millis(100)));
        assert_eq!(Count::default().percentile(50), None);
    }
}
