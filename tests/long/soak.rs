//! Steady load for long, with everything that goes on in a mesh that is well: policy changes,
//! registrations, renewals of certificates, restarts of agents.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Outcome;
use super::args::Args;
use super::sample::{AGENT, SERVER, Series};
use super::traffic::{Seen, Traffic};
use super::windows::Windows;
use super::world::{self, FRONT, POLICY, World};
use crate::clock::Clock;
use crate::cluster::path;

const BACK: &str = "back";

/// How long, and how fast.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the load runs.
    pub length: Duration,
    /// Requests per second, HTTP and TCP in equal parts.
    pub rate: u32,
    /// How much faster than this machine's the mesh's wall clock goes: certificates live for 24
    /// hours and no setting shortens that.
    pub clock: u32,
    /// How often an agent restarts, all of it in the first half.
    pub restarts: usize,
}

impl Options {
    /// From the command's options.
    ///
    /// # Errors
    /// A value that cannot be read.
    pub fn from_args(args: &mut Args) -> Result<Self, String> {
        let minutes: u64 = args.number("minutes", 30)?;
        let (rate, clock) = (args.number("rate", 100)?, args.number("clock", 180)?);
        if rate == 0 || clock == 0 {
            return Err("--rate and --clock are at least 1".to_owned());
        }
        Ok(Self {
            length: Duration::from_secs(minutes * 60),
            rate,
            clock,
            restarts: RESTARTS.len(),
        })
    }

    /// Whether it is long enough for growth to mean anything.
    fn judges_growth(&self) -> bool {
        self.length >= Duration::from_secs(300)
    }
}

/// A soak under way.
struct Soak {
    world: World,
    clock: Option<Clock>,
    series: Vec<Series>,
    windows: Windows,
    failures: Vec<String>,
    applied: u32,
    slowest_apply: Duration,
}

/// Runs it.
///
/// # Panics
/// If the mesh cannot be set up.
pub fn run(options: &Options) -> Outcome {
    let mut net = world::net(&[BACK]);
    // So that logs are cut many times in the time that there is.
    net.set_env("MESHD_CHECKPOINT_EVERY", "100");
    let clock = (options.clock > 1).then(|| Clock::install(&mut net)).flatten();
    let mut soak = Soak::new(World::start(net, &[BACK], None), clock);
    if options.clock > 1 && soak.clock.is_none() {
        soak.failures.push("libfaketime is not installed, no certificate was renewed".to_owned());
    }
    let traffic = Traffic::start(&soak.world.front(), options.rate, soak.world.began());
    soak.go_on(options, &traffic);
    let seen = traffic.stop();
    soak.judge(options, &seen)
}

impl Soak {
    fn new(world: World, clock: Option<Clock>) -> Self {
        let of = |name: String, bounds| {
            let data = world.mesh.folder(&name).join("data");
            Series::new(&name, data, bounds)
        };
        let servers = world.mesh.server_names().into_iter().map(|name| of(name, SERVER));
        let agents = world.agent_names().into_iter().map(|name| of(name, AGENT));
        let series = servers.chain(agents).collect();
        Self {
            world,
            clock,
            series,
            windows: Windows::default(),
            failures: Vec::new(),
            applied: 0,
            slowest_apply: Duration::ZERO,
        }
    }

    /// One turn a second until the end. Agents restart in the first half only: growth is looked
    /// for in the second.
    fn go_on(&mut self, options: &Options, traffic: &Traffic) {
        let mut restarts = RESTARTS.into_iter().take(options.restarts);
        let mut restart = restarts.next();
        for turn in 0_u32.. {
            let began = Instant::now();
            let elapsed = self.world.elapsed();
            if elapsed >= options.length {
                return;
            }
            if let Some(clock) = &mut self.clock {
                let ahead = self.world.elapsed() * (options.clock - 1);
                clock.advance(ahead.saturating_sub(clock.ahead()));
            }
            self.change(turn);
            if turn % 5 == 0 {
                self.sample();
            }
            if let Some((_, host)) =
                restart.filter(|(at, _)| elapsed >= options.length.mul_f64(*at))
            {
                self.restart(host);
                restart = restarts.next();
            }
            if turn % 30 == 0 {
                let (good, failed) = traffic.counts();
                let ahead = self.clock.as_ref().map_or(Duration::ZERO, Clock::ahead);
                let hours = ahead.as_secs() / 3600;
                self.world.say(&format!(
                    "{good} requests, {failed} failed; {} changes of policy; clock {hours} h ahead",
                    self.applied
                ));
            }
            sleep(Duration::from_secs(1).saturating_sub(began.elapsed()));
        }
    }

    fn sample(&mut self) {
        let at = self.world.elapsed();
        for series in &mut self.series {
            let name = series.name.as_str();
            let process = if world::SERVERS.contains(&name) {
                &self.world.mesh.server(name).process
            } else {
                &self.world.mesh.agent(name).process
            };
            if let Some(process) = process {
                series.look(at, process.pid());
            }
        }
    }

    /// A policy of the same meaning and other content, and every twelfth time an instance that comes
    /// or goes.
    fn change(&mut self, number: u32) {
        let file = self.world.mesh.folder("policy").join("mesh.toml");
        fs::write(&file, policy(number)).expect("policy file");
        let began = Instant::now();
        let ran = self.world.mesh.operator().cli(&["apply", path(&file), "--timeout", "10s"]);
        self.slowest_apply = self.slowest_apply.max(began.elapsed());
        match ran.code {
            Some(0) => self.applied += 1,
            _ => self.failures.push(format!("an apply failed: {ran:?}")),
        }
        let verb: &[&str] = match number % 24 {
            0 => &["service", "add", "spare", "--name", "spare-1", "--port", "8081"],
            12 => &["service", "remove", "spare-1"],
            _ => return,
        };
        let ran = self.world.mesh.agent(BACK).local_cli(None, verb);
        if ran.code != Some(0) {
            self.failures.push(format!("{verb:?} failed: {ran:?}"));
        }
    }

    /// Stops an agent as its service manager would, and starts it again. Calls may fail
    /// meanwhile: open sockets are not handed over.
    fn restart(&mut self, host: &str) {
        self.world.say(&format!("the agent on {host} restarts"));
        let from = self.world.elapsed();
        let agent = self.world.mesh.agent_mut(host);
        if let Some(process) = &mut agent.process {
            let code = process.stop(Duration::from_secs(20));
            if code != Some(0) {
                self.failures.push(format!("the agent on {host} stopped with {code:?}"));
            }
        }
        agent.start();
        if !self.world.agent_is_ready(host, Duration::from_secs(20)) {
            self.failures.push(format!("the agent on {host} is not ready after its restart"));
        }
        let to = self.world.elapsed() + Duration::from_secs(3);
        self.windows.add(from, to, format!("restart of the agent on {host}"));
    }

    fn judge(mut self, options: &Options, seen: &Seen) -> Outcome {
        self.world.say("the load ends");
        if let Err(why) = self.world.converges(Duration::from_secs(60)) {
            self.failures.push(why);
        }
        self.failures.extend(self.windows.unexplained(&seen.failed));
        let wrong = self.world.wrong_lines();
        self.failures.extend(wrong.iter().take(20).map(|line| format!("logged: {line}")));
        if options.judges_growth() {
            self.failures.extend(self.series.iter().flat_map(Series::grown));
        }
        let renewals = self.renewals(options);
        let series = self.series.iter().map(|series| (series.name.clone(), series.figures()));
        let series = Value::Object(series.collect());
        Outcome {
            parameters: json!({
                "minutes": options.length.as_secs_f64() / 60.0,
                "rate": options.rate,
                "clock": options.clock,
                "growth_judged": options.judges_growth(),
                "bounds": { "server": SERVER, "agent": AGENT },
            }),
            figures: json!({
                "requests": seen.figures(),
                "failed_in_declared_restarts": self.windows.explained(&seen.failed),
                "restarts": self.windows.figures(),
                "policy_changes": self.applied,
                "slowest_apply_ms": self.slowest_apply.as_millis() as u64,
                "clock_ahead_h": self.clock.as_ref().map(|clock| clock.ahead().as_secs() / 3600),
                "certificates_put_in_force": renewals,
                "error_lines": wrong.len(),
                "processes": series,
            }),
            failures: self.failures,
        }
    }

    /// How many certificates each process put in force. Every half of a certificate's life each
    /// needs at least one.
    fn renewals(&mut self, options: &Options) -> Value {
        let ahead = self.clock.as_ref().map_or(Duration::ZERO, Clock::ahead);
        let rounds = usize::try_from(ahead.as_secs() / HALF_LIFE_S).unwrap_or(usize::MAX);
        let mut figures = serde_json::Map::new();
        for series in &self.series {
            let said = "certificate is in force";
            let server = "renewed this server's certificate";
            let found =
                self.world.logged(&series.name, said) + self.world.logged(&series.name, server);
            // A tenth of a life passes while a process looks; the last round may not be done.
            if options.clock > 1 && found + 1 < rounds {
                self.failures.push(format!(
                    "{} put {found} certificates in force, at least {rounds} expected",
                    series.name
                ));
            }
            figures.insert(series.name.clone(), found.into());
        }
        Value::Object(figures)
    }
}

/// At which part of the whole which agent restarts.
const RESTARTS: [(f64, &str); 4] = [(0.15, FRONT), (0.25, BACK), (0.35, FRONT), (0.45, BACK)];
/// Half of a certificate's life, when it is renewed at the latest, with an hour for the look.
const HALF_LIFE_S: u64 = 14 * 3600;

fn policy(number: u32) -> String {
    let (first, second) = (1 + number % 7, 1 + number % 5);
    format!(
        "{POLICY}[service.orders.subset.v1]\nmeta = {{ version = \"1\" }}\n\
         [service.orders.subset.v2]\nmeta = {{ version = \"2\" }}\n\
         [[service.orders.route]]\nmatch = {{ path_prefix = \"/\" }}\n\
         to = [{{ subset = \"v1\", weight = {first} }}, {{ subset = \"v2\", weight = {second} }}]\n\
         [[allow.orders]]\nname = \"soak-{}\"\nfrom = [\"batch\"]\n\
         http = [{{ methods = [\"GET\"], path_prefix = \"/soak/{number}\" }}]\n{}",
        number % 50,
        "# A comment takes room in the log and in checkpoints, as a large policy does.\n"
            .repeat(850),
    )
}

#[cfg(test)]
mod tests {
    use super::policy;

    #[test]
    fn every_policy_is_read() {
        for number in 0..60 {
            let text = policy(number);
            let read = mesh_core::policy::text::parse("mesh.toml", &text);
            assert!(read.is_ok(), "{text}\n{:?}", read.err());
        }
    }
}
