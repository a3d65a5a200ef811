//! Many agents against one cluster: real servers, and agents of one process that speak the real
//! protocol with certificates of their own.
//!
//! What is asked of it: that every agent gets every change, that none goes backwards, and that all
//! come back after their servers died. How fast, and at what cost, is measured and never judged.
//! The agents share this machine with the servers, so that the times hold both; the servers' own
//! cost is read from their processes.

mod agent;
mod figures;
mod fleet;
mod phases;

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::Outcome;
use super::args::Args;
use crate::cluster::Mesh;
use crate::net::Net;
use crate::process::binary;
use crate::{Needs, has};
use phases::Phases;

/// How many, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// Agents, each with one instance.
    pub agents: usize,
    /// Services, which the agents host in turn.
    pub services: usize,
    /// Control servers: 1 to 5.
    pub servers: usize,
    /// Changes of each kind.
    pub rounds: usize,
    /// How long nothing but heartbeats is measured.
    pub idle: Duration,
    /// How long all servers stay away after they were killed together.
    pub away: Duration,
    /// Longest time for all of it.
    pub limit: Duration,
}

/// What [`run`] needs.
pub const NEEDS: &[Needs] =
    &[Needs::Root, Needs::Program("ip"), Needs::Program("nsenter"), Needs::Program("curl")];

/// Services that each agent's instance calls.
const UPSTREAMS: usize = 3;
const SERVERS: [&str; 5] = ["ctl-1", "ctl-2", "ctl-3", "ctl-4", "ctl-5"];
const FLEET: &str = "fleet";

impl Options {
    /// From the command's options.
    ///
    /// # Errors
    /// A value that cannot be read, or is out of its bounds.
    pub fn from_args(args: &mut Args) -> Result<Self, String> {
        let agents = within("agents", args.number("agents", 100)?, 1, 10_000)?;
        let services = within("services", args.number("services", 20)?, 1, 1_000)?;
        let servers = within("servers", args.number("servers", 3)?, 1, SERVERS.len())?;
        let rounds = within("rounds", args.number("rounds", 20)?, 1, 1_000)?;
        let minutes = within("minutes", args.number("minutes", 10)?, 1, 600)?;
        let limit = Duration::from_secs(60) * u32::try_from(minutes).unwrap_or(u32::MAX);
        let idle = (limit / 20).clamp(Duration::from_secs(2), Duration::from_secs(30));
        let away = Duration::from_secs(args.number("away", 0)?);
        Ok(Self { agents, services: services.min(agents), servers, rounds, idle, away, limit })
    }
}

fn within(name: &str, found: usize, least: usize, most: usize) -> Result<usize, String> {
    let fits = (least..=most).contains(&found);
    fits.then_some(found).ok_or(format!("--{name} is {found}, expected {least} to {most}"))
}

/// Runs it.
///
/// # Panics
/// If the mesh cannot be set up.
pub fn run(options: &Options) -> Outcome {
    let parameters = json!({
        "agents": options.agents, "services": options.services, "servers": options.servers,
        "upstreams": UPSTREAMS.min(options.services - 1), "rounds": options.rounds,
        "minutes": options.limit.as_secs_f64() / 60.0, "servers_build": servers_build(),
        "away_s": options.away.as_secs(),
    });
    if !has(NEEDS) {
        let failures = vec!["not measured: it needs root, ip, nsenter and curl".to_owned()];
        return Outcome { parameters, failures, ..Outcome::default() };
    }
    let began = Instant::now();
    let servers = &SERVERS[..options.servers];
    let net = Net::new(&[servers, &[FLEET]].concat());
    let mut mesh = Mesh::start(net, servers);
    let (figures, mut failures) = measure(&mut mesh, options, began + options.limit);
    let took = began.elapsed();
    if took > options.limit {
        failures.push(format!("took {took:.0?}, expected {:.0?} at most", options.limit));
    }
    Outcome { parameters, figures: Value::Object(figures), failures }
}

/// Which build the servers are of: the folder that their binary lies in.
fn servers_build() -> Option<String> {
    Some(binary("meshd").parent()?.file_name()?.to_string_lossy().into_owned())
}

/// Runs the phases on the agents' host, one after another; stops at the first whose end is not
/// reached, for nothing holds after it.
fn measure(mesh: &mut Mesh, options: &Options, end: Instant) -> (Map<String, Value>, Vec<String>) {
    let host = mesh.net.host(FLEET).clone();
    host.run(|| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        // Threads made here are on the agents' host, as this one is.
        let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut phases = Phases::new(mesh, options, end);
            if let Err(why) = phases.run().await {
                phases.failures.push(why);
            }
            phases.verdict();
            (std::mem::take(&mut phases.figures), std::mem::take(&mut phases.failures))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_keep_their_bounds() {
        let parse = |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned());
            Options::from_args(&mut Args::parse(words).unwrap())
        };
        let few = parse(&["--agents", "7", "--services", "50"]).unwrap();
        assert_eq!((few.agents, few.services), (7, 7), "no service without a host");
        for bad in [["--agents", "0"], ["--servers", "6"], ["--minutes", "0"], ["--rounds", "x"]] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }
}
