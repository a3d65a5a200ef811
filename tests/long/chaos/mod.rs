//! Faults by a seeded plan, under load and writes: what was acknowledged stays, calls fail only
//! where the fault explains it, and once all is mended the mesh is whole again by itself.

mod faults;
mod plan;
mod writers;

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use self::plan::{BACKS, Plan, SMALL_DISK, Step};
use self::writers::{Ledger, Writers, policy_ids};
use super::Outcome;
use super::args::Args;
use super::traffic::{Seen, Traffic};
use super::windows::Windows;
use super::world::{self, World};
use crate::{Needs, within};

/// What [`run`] needs besides [`world::NEEDS`].
pub const NEEDS: &[Needs] = &[Needs::Program("mount"), Needs::Program("nft")];

/// How long, and by which seed.
#[derive(Clone, Debug)]
pub struct Options {
    /// For how long new faults begin.
    pub length: Duration,
    /// Of the plan of faults.
    pub seed: u64,
    /// Longest time for one fault.
    pub longest: Duration,
    /// Requests per second, HTTP and TCP in equal parts.
    pub rate: u32,
}

impl Options {
    /// From the command's options.
    ///
    /// # Errors
    /// A value that cannot be read.
    pub fn from_args(args: &mut Args) -> Result<Self, String> {
        let minutes: u64 = args.number("minutes", 20)?;
        let rate = args.number("rate", 100)?;
        if rate == 0 {
            return Err("--rate is at least 1".to_owned());
        }
        let length = Duration::from_secs(minutes * 60);
        let longest = Duration::from_secs(60);
        Ok(Self { length, seed: args.number("seed", 1)?, longest, rate })
    }
}

/// Chaos under way.
struct Chaos {
    world: World,
    windows: Windows,
    steps: Vec<Value>,
    slowest: Duration,
    failures: Vec<String>,
}

/// Runs it.
///
/// # Panics
/// If the mesh cannot be set up.
pub fn run(options: &Options) -> Outcome {
    let mut net = world::net(&BACKS);
    net.set_env("MESHD_CHECKPOINT_EVERY", "100");
    let world = World::start(net, &BACKS, Some(SMALL_DISK));
    let traffic = Traffic::start(&world.front(), options.rate, world.began());
    let writers = Writers::start(&world);
    let mut chaos = Chaos {
        world,
        windows: Windows::default(),
        steps: Vec::new(),
        slowest: Duration::ZERO,
        failures: Vec::new(),
    };
    for step in Plan::new(options.seed, options.longest) {
        if chaos.world.elapsed() >= options.length {
            break;
        }
        chaos.go_through(step);
        let (good, failed) = traffic.counts();
        chaos.world.say(&format!("{good} requests, {failed} failed"));
    }
    let (policy, services) = writers.stop();
    chaos.finds_all(&policy, &services, "after the last fault");
    chaos.everybody_dies();
    chaos.finds_all(&policy, &services, "after all servers were killed");
    let seen = traffic.stop();
    chaos.judge(options, &seen, &[policy, services].concat())
}

impl Chaos {
    fn go_through(&mut self, step: Step) {
        let names: Vec<String> = step.faults.iter().map(ToString::to_string).collect();
        let names = names.join("; ");
        let lasts = step.lasts.as_secs_f64();
        self.world.say(&format!("{names}, for {lasts:.1} s"));
        let (from, alone) = (self.world.elapsed(), step.faults.len() == 1);
        let begin = |fault| faults::begin(&mut self.world, fault);
        let broken: Vec<_> = step.faults.into_iter().map(begin).collect();
        sleep(step.lasts);
        let mending = self.world.elapsed();
        for one in &broken {
            self.failures.extend(one.mend(&mut self.world));
        }
        let mended = self.world.elapsed();
        for one in &broken {
            one.explain(&mut self.windows, mending, mended, alone);
        }
        let converged = self.converges(&names);
        self.steps.push(json!({
            "at_s": from.as_secs_f64(),
            "faults": names,
            "lasted_s": (mending - from).as_secs_f64(),
            "clean_after_ms": converged.map(|time| time.as_millis() as u64),
        }));
        sleep(step.rest);
    }

    fn everybody_dies(&mut self) {
        self.world.say("kill every server at once");
        for name in self.world.mesh.server_names() {
            self.world.mesh.server_mut(&name).kill();
        }
        for name in self.world.mesh.server_names() {
            self.world.mesh.server_mut(&name).start();
        }
        self.converges("the end of every server");
    }

    /// Waits until all is clean, with nobody dead who was not killed.
    fn converges(&mut self, after: &str) -> Option<Duration> {
        let converged = self.world.converges(WHOLE_AGAIN);
        let at = self.world.elapsed().as_secs_f64();
        for name in faults::dead(&mut self.world) {
            self.failures.push(format!("{name} ended by itself before {at:.1} s, {after}"));
        }
        match converged {
            Ok(time) => {
                self.slowest = self.slowest.max(time);
                Some(time)
            }
            Err(why) => {
                self.world.say(&why);
                self.failures.push(format!("at {at:.1} s, after {after}: {why}"));
                None
            }
        }
    }

    /// Holds what clients were told against what the servers have.
    fn finds_all(&mut self, policy: &[Ledger], services: &[Ledger], when: &str) {
        let operator = self.world.mesh.operator();
        let mut differs = |ledgers: &[Ledger], found: &dyn Fn() -> Option<BTreeSet<String>>| {
            let mut last = vec!["nobody answers".to_owned()];
            within(WHOLE_AGAIN, || {
                let found = found()?;
                last = ledgers.iter().flat_map(|ledger| ledger.differs(&found)).collect();
                last.is_empty().then_some(())
            });
            self.failures.extend(last.iter().take(20).map(|why| format!("{when}: {why}")));
        };
        differs(policy, &|| policy_ids(&operator.json(&["get", "--consistent"])));
        differs(services, &|| {
            let spare = operator.json(&["get", "service", "spare", "--consistent"]);
            let all = spare["instances"].as_array()?;
            all.iter().map(|one| Some(one["spec"]["id"].as_str()?.to_owned())).collect()
        });
        self.world.say(&format!("what was acknowledged was looked for {when}"));
    }

    fn judge(mut self, options: &Options, seen: &Seen, ledgers: &[Ledger]) -> Outcome {
        self.failures.extend(self.windows.unexplained(&seen.failed));
        let panics = self.world.wrong_lines();
        let panics = panics.iter().filter(|line| line.contains("panicked at"));
        self.failures.extend(panics.map(|line| format!("logged: {line}")));
        self.failures.extend(ledgers.iter().flat_map(|ledger| ledger.wrong.clone()));
        let sum = |of: fn(&Ledger) -> u64| ledgers.iter().map(of).sum::<u64>();
        let acknowledged = sum(|ledger| ledger.acknowledged);
        if acknowledged == 0 || seen.took.is_empty() {
            self.failures.push("nothing was written, or nothing answered".to_owned());
        }
        let slowest_write = ledgers.iter().map(|ledger| ledger.slowest).max().unwrap_or_default();
        let grace = |time: Duration| time.as_secs();
        Outcome {
            parameters: json!({
                "minutes": options.length.as_secs_f64() / 60.0,
                "seed": options.seed,
                "rate": options.rate,
                "longest_fault_s": options.longest.as_secs(),
                "whole_again_within_s": WHOLE_AGAIN.as_secs(),
                "grace_s": {
                    "application_gone": grace(faults::BY_CHECK),
                    "host_gone": grace(faults::BY_LEASE),
                    "after_mending": grace(faults::AFTER),
                },
            }),
            figures: json!({
                "steps": self.steps,
                "slowest_clean_ms": self.slowest.as_millis() as u64,
                "requests": seen.figures(),
                "failed_where_explained": self.windows.explained(&seen.failed),
                "windows": self.windows.figures(),
                "writes": {
                    "acknowledged": acknowledged,
                    "unknown": sum(|ledger| ledger.unknown),
                    "slowest_ms": slowest_write.as_millis() as u64,
                    "consistent_reads": sum(|ledger| ledger.reads),
                },
            }),
            failures: self.failures,
        }
    }
}

/// After the last thing is mended, everything is as it should be within this time.
const WHOLE_AGAIN: Duration = Duration::from_secs(60);
