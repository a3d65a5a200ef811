//! What a process uses over time, and whether that grows.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

/// What one process used at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Since the form began, in seconds.
    pub at: f64,
    /// Resident memory, in KiB.
    pub rss: f64,
    /// Open file descriptors.
    pub fds: f64,
    /// Threads.
    pub threads: f64,
    /// Blocks of its data directory, in KiB.
    pub disk: f64,
}

/// A process that is watched.
#[derive(Debug)]
pub struct Series {
    /// Its host.
    pub name: String,
    data: PathBuf,
    bounds: Bounds,
    samples: Vec<Sample>,
}

/// Most growth over the second half of a form, by the line that fits it best.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bounds {
    /// Resident memory, in KiB; besides, a twentieth of the mean.
    pub rss: f64,
    /// Open file descriptors.
    pub fds: f64,
    /// Threads.
    pub threads: f64,
    /// Disk, in KiB.
    pub disk: f64,
}

/// A server: its log is cut by segments of 16 MiB.
pub const SERVER: Bounds = Bounds { rss: 4096.0, fds: 8.0, threads: 4.0, disk: 16384.0 };
/// An agent.
pub const AGENT: Bounds = Bounds { rss: 4096.0, fds: 8.0, threads: 4.0, disk: 256.0 };

impl Series {
    /// Nothing seen yet of the process whose files are in `data`.
    pub fn new(name: &str, data: PathBuf, bounds: Bounds) -> Self {
        Self { name: name.to_owned(), data, bounds, samples: Vec::new() }
    }

    /// Looks at the process `pid`. One that is gone adds nothing.
    pub fn look(&mut self, at: Duration, pid: i32) {
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return };
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        };
        let (Some(rss), Some(threads)) = (field("VmRSS:"), field("Threads:")) else { return };
        let fds = f64::from(u32::try_from(fds.count()).unwrap_or(u32::MAX));
        let disk = blocks(&self.data) as f64 / 2.0;
        self.samples.push(Sample { at: at.as_secs_f64(), rss, fds, threads, disk });
    }

    /// First, last, highest and the growth per hour of each measure.
    pub fn figures(&self) -> Value {
        let measures = MEASURES.map(|(name, of)| {
            let values: Vec<f64> = self.samples.iter().map(of).collect();
            let figures = json!({
                "first": values.first(),
                "last": values.last(),
                "highest": values.iter().copied().fold(0.0, f64::max),
                "grown_in_second_half": (self.growth(of) * 10.0).round() / 10.0,
            });
            (name.to_owned(), figures)
        });
        Value::Object(measures.into_iter().collect())
    }

    /// What grew more than its bound.
    pub fn grown(&self) -> Vec<String> {
        let mean = self.second_half().iter().map(|sample| sample.rss).sum::<f64>()
            / (self.second_half().len().max(1) as f64);
        let limits = [self.bounds.rss + mean / 20.0, self.bounds.fds, self.bounds.threads];
        let limits = limits.into_iter().chain([self.bounds.disk]);
        let judged = MEASURES.into_iter().zip(limits).filter_map(|((name, of), limit)| {
            let grown = self.growth(of);
            (grown > limit).then(|| {
                format!(
                    "{}: {name} grew by {grown:.1} in the second half, at most {limit:.1}",
                    self.name
                )
            })
        });
        judged.collect()
    }

    fn second_half(&self) -> &[Sample] {
        let end = self.samples.last().map_or(0.0, |sample| sample.at);
        let from = self.samples.partition_point(|sample| sample.at < end / 2.0);
        &self.samples[from..]
    }

    /// How much the line that fits the second half best rises over it.
    fn growth(&self, of: fn(&Sample) -> f64) -> f64 {
        let half = self.second_half();
        let span = half.last().map_or(0.0, |last| last.at - half[0].at);
        slope(half.iter().map(|sample| (sample.at, of(sample)))) * span
    }
}

/// The name of a measure, and how to take it from a sample.
type Measure = (&'static str, fn(&Sample) -> f64);

const MEASURES: [Measure; 4] = [
    ("rss_kib", |sample| sample.rss),
    ("fds", |sample| sample.fds),
    ("threads", |sample| sample.threads),
    ("disk_kib", |sample| sample.disk),
];

/// The slope of the line that fits `points` best, by least squares; 0 for fewer than two.
fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let count = points.clone().count() as f64;
    let (sum_x, sum_y) = points.clone().fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (mut above, mut below) = (0.0, 0.0);
    for (x, y) in points {
        above += (x - mean_x) * (y - mean_y);
        below += (x - mean_x) * (x - mean_x);
    }
    if below > 0.0 { above / below } else { 0.0 }
}

/// The 512-byte blocks of everything below `path`.
fn blocks(path: &Path) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    found.blocks() + below.map(|entry| blocks(&entry.path())).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(rss: impl Fn(f64) -> f64) -> Series {
        let mut series = Series::new("x", PathBuf::new(), AGENT);
        series.samples = (0..=200)
            .map(|step| {
                let at = f64::from(step) * 3.0;
                Sample { at, rss: rss(at), ..Sample::default() }
            })
            .collect();
        series
    }

    #[test]
    fn the_slope_is_that_of_a_line() {
        let line = (0..50).map(|x| (f64::from(x), 3.0 * f64::from(x) - 7.0));
        assert!((slope(line) - 3.0).abs() < 1e-9);
        assert!(slope([(1.0, 5.0)].into_iter()).abs() < 1e-9);
        assert!(slope(std::iter::empty()).abs() < 1e-9);
    }

    #[test]
    fn only_growth_in_the_second_half_counts() {
        let settled = series(|at| 30_000.0 + at.min(250.0) * 100.0);
        assert!(settled.grown().is_empty(), "{:?}", settled.grown());
        let saw = series(|at| 30_000.0 + (at % 60.0) * 50.0);
        assert!(saw.grown().is_empty(), "{:?}", saw.grown());
        let leaks = series(|at| 30_000.0 + at * 40.0);
        assert_eq!(leaks.grown().len(), 1, "{:?}", leaks.grown());
    }
}
