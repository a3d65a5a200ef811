//! Figures: spreads of times, and what processes and wires used.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

/// Median, 99th percentile and maximum of times, in milliseconds.
pub(super) fn spread(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let at = |permille: usize| {
        let rank = (times.len() * permille).div_ceil(1000).max(1) - 1;
        times.get(rank).map(|time| millis(*time))
    };
    json!({ "p50_ms": at(500), "p99_ms": at(990), "max_ms": at(1000), "count": times.len() })
}

/// Milliseconds with one decimal.
pub(super) fn millis(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1e3)
}

/// One decimal.
pub(super) fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// On any core, user and system.
    pub(super) cpu: Duration,
    /// Resident, in KiB.
    pub(super) rss_kib: u64,
}

impl Usage {
    /// Of the process `pid`; `None` if it is gone.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let on_core = |task: fs::DirEntry| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        };
        let nanos = tasks.filter_map(|task| on_core(task.ok()?)).sum();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let rss_kib = line.split_whitespace().next()?.parse().ok()?;
        Some(Self { cpu: Duration::from_nanos(nanos), rss_kib })
    }
}

/// Bytes that this thread's host has received and sent over `eth0`.
pub(super) fn wire_bytes() -> Option<(u64, u64)> {
    wire_of(&fs::read_to_string("/proc/thread-self/net/dev").ok()?)
}

fn wire_of(table: &str) -> Option<(u64, u64)> {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix("eth0:"))?;
    let columns: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    Some((*columns.first()?, *columns.get(8)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_take_the_nearest_rank() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let want = json!({ "p50_ms": 100.0, "p99_ms": 198.0, "max_ms": 200.0, "count": 200 });
        assert_eq!(spread(times), want);
        let one = spread(vec![Duration::from_micros(1_250)]);
        assert_eq!(one, json!({ "p50_ms": 1.3, "p99_ms": 1.3, "max_ms": 1.3, "count": 1 }));
        assert_eq!(spread(Vec::new())["max_ms"], Value::Null);
    }

    #[test]
    fn interfaces_are_read_by_column() {
        let table = "Inter-| Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  \
                     eth0: 500 4 0 0 0 0 0 0 900 7 0 0 0 0 0 0\n";
        assert_eq!(wire_of(table), Some((500, 900)));
        assert_eq!(wire_of("lo: 1 2"), None);
    }

    #[test]
    fn usage_is_read_of_a_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        let usage = Usage::of(own).unwrap();
        assert!(usage.rss_kib > 0 && usage.cpu > Duration::ZERO);
        assert_eq!(Usage::of(-1), None);
    }
}
