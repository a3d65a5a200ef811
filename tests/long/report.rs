//! The result of a long form: what was run where, what was measured, and the verdict.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mesh_net::clock;
use serde_json::{Value, json};

use crate::process::output;

/// What a long form found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What it was asked to do.
    pub parameters: Value,
    /// What it measured.
    pub figures: Value,
    /// Why the verdict is bad; empty if it is good.
    pub failures: Vec<String>,
}

/// When a form began.
#[derive(Clone, Debug)]
pub struct Began {
    at: Instant,
    date: String,
}

impl Began {
    /// Now.
    pub fn now() -> Self {
        Self { at: Instant::now(), date: clock::now().to_string() }
    }
}

/// Prints the verdict, and writes the result to `out`.
///
/// # Errors
/// If the file cannot be written.
pub fn write(out: &Path, name: &str, began: &Began, outcome: &Outcome) -> io::Result<()> {
    let good = outcome.failures.is_empty();
    let result = json!({
        "name": name,
        "date": began.date,
        "took_s": began.at.elapsed().as_secs(),
        "kernel": kernel(),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
        "commit": commit(),
        "parameters": outcome.parameters,
        "figures": outcome.figures,
        "verdict": { "good": good, "reasons": outcome.failures },
    });
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(out, format!("{result:#}\n"))?;
    println!("{name}: {}, see {}", if good { "good" } else { "BAD" }, out.display());
    for why in &outcome.failures {
        println!("  {why}");
    }
    Ok(())
}

/// The kernel's version, without what its builder added.
fn kernel() -> String {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    release.split('-').next().unwrap_or_default().to_owned()
}

/// The commit of the tree, marked if it was changed since; nothing outside git.
fn commit() -> Option<String> {
    let mut command = Command::new("git");
    command.args(["describe", "--always", "--dirty", "--abbrev=12"]);
    let ran = output(command, Duration::from_secs(20));
    (ran.code == Some(0)).then(|| ran.stdout.trim().to_owned())
}
