//! When requests may fail, and why.

use std::time::Duration;

use serde_json::{Value, json};

use super::traffic::Failed;

/// The windows of one run.
#[derive(Clone, Debug, Default)]
pub struct Windows(Vec<Window>);

#[derive(Clone, Debug)]
struct Window {
    from: Duration,
    to: Duration,
    why: String,
}

impl Windows {
    /// Requests may fail from `from` to `to`.
    pub fn add(&mut self, from: Duration, to: Duration, why: String) {
        self.0.push(Window { from, to, why });
    }

    /// How many failures lie in a window: under way at any time in it.
    pub fn explained(&self, failed: &[Failed]) -> usize {
        failed.iter().filter(|one| self.explains(one)).count()
    }

    /// What to say of failures that lie in no window: how many, and the first of them.
    pub fn unexplained(&self, failed: &[Failed]) -> Vec<String> {
        let rest: Vec<&Failed> = failed.iter().filter(|one| !self.explains(one)).collect();
        if rest.is_empty() {
            return Vec::new();
        }
        let count = format!("{} requests failed without a reason", rest.len());
        let shown = rest.iter().take(SHOWN).map(|one| {
            let (from, to) = (one.began.as_secs_f64(), one.ended.as_secs_f64());
            format!("failed from {from:.3} s to {to:.3} s: {}", one.what)
        });
        std::iter::once(count).chain(shown).collect()
    }

    /// The windows.
    pub fn figures(&self) -> Value {
        let all = self.0.iter().map(|window| {
            json!({
                "from_s": window.from.as_secs_f64(),
                "to_s": window.to.as_secs_f64(),
                "why": window.why,
            })
        });
        Value::Array(all.collect())
    }

    fn explains(&self, one: &Failed) -> bool {
        self.0.iter().any(|window| one.ended >= window.from && one.began <= window.to)
    }
}

const SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_needs_a_window() {
        let seconds = Duration::from_secs;
        let mut windows = Windows::default();
        windows.add(seconds(10), seconds(20), "restart".to_owned());
        let failed = |began, ended| Failed {
            began: seconds(began),
            ended: seconds(ended),
            what: String::new(),
        };
        for (began, ended, explained) in
            [(1, 9, 0), (1, 10, 1), (12, 13, 1), (20, 30, 1), (21, 22, 0), (1, 30, 1)]
        {
            let failed = [failed(began, ended)];
            assert_eq!(windows.explained(&failed), explained, "{began} to {ended}");
            assert_eq!(windows.unexplained(&failed).is_empty(), explained == 1);
        }
    }
}
