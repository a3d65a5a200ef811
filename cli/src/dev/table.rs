//! The live table: rates, latency and denials of the last second, by who calls whom.

use std::collections::BTreeMap;
use std::time::Duration;

use super::traffic::Count;

type Seen = BTreeMap<(&'static str, &'static str), Count>;

/// The table for what was seen between `before` and `now`, `elapsed` apart.
pub(super) fn render(before: &Seen, now: &Seen, elapsed: Duration) -> String {
    let mut text = format!(
        "{:<8} {:<9} {:>7} {:>9} {:>9} {:>8} {:>7}  {}\n",
        "from", "to", "ok/s", "p50", "p99", "denied/s", "failed", "answered by"
    );
    let seconds = elapsed.as_secs_f64().max(0.001);
    for (pair, count) in now {
        let zero = Count::default();
        let last = before.get(pair).unwrap_or(&zero);
        let rate = |now: u64, last: u64| now.saturating_sub(last) as f64 / seconds;
        text.push_str(&format!(
            "{:<8} {:<9} {:>7.1} {:>9} {:>9} {:>8.1} {:>7}  {}\n",
            pair.0,
            pair.1,
            rate(count.ok, last.ok),
            milliseconds(count.percentile(50)),
            milliseconds(count.percentile(99)),
            rate(count.denied, last.denied),
            count.failed,
            shares(count),
        ));
    }
    text
}

fn milliseconds(latency: Option<Duration>) -> String {
    latency.map_or_else(|| "-".to_owned(), |l| format!("{:.2} ms", l.as_secs_f64() * 1000.0))
}

/// Which instances answered, in percent.
fn shares(count: &Count) -> String {
    let total: u64 = count.by_instance.values().sum();
    let share = |(name, n): (&String, &u64)| format!("{name} {}%", n * 100 / total.max(1));
    count.by_instance.iter().map(share).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_rates_of_the_last_interval() {
        let count = |ok, denied| Count { ok, denied, ..Count::default() };
        let before = Seen::from([(("web", "orders"), count(100, 0))]);
        let now = Seen::from([(("web", "orders"), count(150, 10))]);
        let text = render(&before, &now, Duration::from_secs(2));
        let row = text.lines().nth(1).unwrap();
        let words: Vec<_> = row.split_whitespace().collect();
        assert_eq!(words, ["web", "orders", "25.0", "-", "-", "5.0", "0"]);
    }
}
