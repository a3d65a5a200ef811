//! What is done with the agents, in order, and what is asked of them at the end.

mod agree;
mod changes;
mod storms;

use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::api::ApplyRequest;
use mesh_core::name::ServiceName;
use mesh_core::revision::Revision;
use mesh_net::client::{Client, ClientBuilder, Trust};
use mesh_net::telemetry::Chain;
use mesh_net::token::Secret;
use serde_json::{Map, Value, json};

use super::agent::Agent;
use super::figures::{Usage, millis, round, spread, wire_bytes};
use super::fleet::{Fleet, all, plans, tokens};
use super::{FLEET, Options};
use crate::cluster::Mesh;

/// Longest wait for all agents to get one change.
const CHANGE_MAX: Duration = Duration::from_secs(60);

/// The servers, the agents, and what was found so far.
pub(super) struct Phases<'a> {
    mesh: &'a mut Mesh,
    options: &'a Options,
    end: Instant,
    admin: Client,
    fleet: Fleet,
    /// Policies applied so far.
    applied: usize,
    pub(super) figures: Map<String, Value>,
    pub(super) failures: Vec<String>,
}

/// An apply that was answered.
struct Applied {
    sent: Instant,
    answered: Instant,
    revision: Revision,
}

impl<'a> Phases<'a> {
    pub(super) fn new(mesh: &'a mut Mesh, options: &'a Options, end: Instant) -> Self {
        let token = mesh.admin_token();
        let ca = std::fs::read_to_string(token.with_file_name("ca.pem")).expect("ca.pem");
        let admin = ClientBuilder::new(apis(mesh))
            .trust(Trust::Pem(ca))
            .token(Secret::from_file(&token).expect("the admin token"))
            .call_timeout(Duration::from_secs(5))
            .build()
            .expect("a client");
        let (figures, failures) = (Map::new(), Vec::new());
        let fleet = Fleet::default();
        Self { mesh, options, end, admin, fleet, applied: 0, figures, failures }
    }

    /// # Errors
    /// What did not come to its end.
    pub(super) async fn run(&mut self) -> Result<(), String> {
        self.join().await?;
        self.idle().await;
        self.policy_changes().await?;
        self.endpoint_changes().await?;
        self.no_stream_ended();
        if self.options.servers > 1 {
            self.leader_dies().await?;
        }
        self.all_servers_die().await?;
        self.agents_agree().await
    }

    /// Every agent joins, registers, gets its certificates and all that it subscribes to.
    async fn join(&mut self) -> Result<(), String> {
        let plans = plans(self.options, self.mesh.net.host(FLEET).ip, &apis(self.mesh));
        self.apply_rules(0..self.options.services).await?;
        let began = Instant::now();
        let tokens = tokens(&self.admin, &plans).await?;
        let tokens_took = began.elapsed();
        let (before, bytes, began) = (self.usage(), wire_bytes(), Instant::now());
        let times = self.fleet.join(plans, tokens).await?;
        let joined = began.elapsed();
        let whole = |agent: &Agent| agent.is_whole().then_some(());
        all(&self.fleet.agents, self.by(CHANGE_MAX * 2), "got all they want", whole).await?;
        let synced = began.elapsed();
        let per_second = |took: Duration| round(self.options.agents as f64 / took.as_secs_f64());
        let servers = self.usage();
        let figure = json!({
            "tokens_per_s": per_second(tokens_took),
            "enrolled_per_s": per_second(joined),
            "enrol_call": spread(times),
            "all_enrolled_ms": millis(joined),
            "all_synced_ms": millis(synced),
            "servers_cpu_ms_per_agent": self.each(cpu_between(&before, &servers)),
            "bytes_per_agent": self.bytes_each(bytes),
            "streams": self.fleet.streams(),
            "servers_rss_kib_before": before.iter().map(|usage| usage.rss_kib).collect::<Vec<_>>(),
            "servers_rss_kib": servers.iter().map(|usage| usage.rss_kib).collect::<Vec<_>>(),
            "servers_rss_kib_per_agent": self.each(grown(&before, &servers)),
        });
        self.figures.insert("join".to_owned(), figure);
        Ok(())
    }

    /// Nothing happens but heartbeats.
    async fn idle(&mut self) {
        let (before, bytes, began) = (self.usage(), wire_bytes(), Instant::now());
        tokio::time::sleep(self.options.idle).await;
        let (after, seconds) = (self.usage(), began.elapsed().as_secs_f64());
        let cpu = cpu_between(&before, &after);
        let figure = json!({
            "seconds": round(seconds),
            "servers_cpu_us_per_agent_s": self.each(cpu * 1e3 / seconds),
            "servers_cores": (cpu / seconds).round() / 1e3,
            "bytes_per_agent_s": self.bytes_each(bytes).map(|bytes| round(bytes / seconds)),
            "servers_rss_kib": after.iter().map(|usage| usage.rss_kib).collect::<Vec<_>>(),
        });
        self.figures.insert("idle".to_owned(), figure);
    }

    /// Puts a new rule in force for each of these services, in one apply.
    async fn apply_rules(&mut self, services: std::ops::Range<usize>) -> Result<Applied, String> {
        self.applied += 1;
        let name = self.rule();
        let rule = |number| {
            let service = super::fleet::service(number, self.options);
            format!("[[allow.{service}]]\nname = \"{name}\"\nfrom = [\"*\"]\n")
        };
        let files = services.map(|number| (format!("{number}.toml"), rule(number))).collect();
        let request =
            ApplyRequest { expected: None, files, prune: false, dry_run: false, message: name };
        let sent = Instant::now();
        let answer = self.admin.apply_policy(&request).await;
        let answer = answer.map_err(|why| format!("not applied: {}", Chain(&why)))?;
        Ok(Applied { sent, answered: Instant::now(), revision: answer.revision })
    }

    /// The name of the rule applied last.
    fn rule(&self) -> String {
        format!("change-{}", self.applied)
    }

    /// Whether the rule applied last is in force at an agent that hosts `service`.
    fn has_rule(&self, agent: &Agent, service: &ServiceName) -> bool {
        let (now, rule) = (agent.live.load(), self.rule());
        let rules = now.access.get(service).map(|access| access.rules.as_slice());
        rules.unwrap_or_default().iter().any(|found| found.id.to_string().ends_with(&rule))
    }

    /// The deadline of a wait of at most `longest`.
    fn by(&self, longest: Duration) -> Instant {
        (Instant::now() + longest).min(self.end)
    }

    /// What each server's process has used.
    fn usage(&self) -> Vec<Usage> {
        let servers = self.mesh.server_names();
        let pid = |name: &String| self.mesh.server(name).process.as_ref().map(|own| own.pid());
        servers.iter().map(|name| pid(name).and_then(Usage::of).unwrap_or_default()).collect()
    }

    fn each(&self, total: f64) -> f64 {
        round(total / self.options.agents as f64)
    }

    /// Bytes on the agents' wire since `before`, both ways, for each agent.
    fn bytes_each(&self, before: Option<(u64, u64)>) -> Option<f64> {
        let ((in_before, out_before), (bytes_in, bytes_out)) = (before?, wire_bytes()?);
        Some(self.each((bytes_in - in_before + bytes_out - out_before) as f64))
    }

    /// Until servers were killed, no stream had a reason to end.
    fn no_stream_ended(&mut self) {
        let ends = |agent: &Arc<Agent>| agent.seen().ends.clone();
        let ends: Vec<String> = self.fleet.agents.iter().flat_map(ends).collect();
        if let Some(first) = ends.first() {
            let text = format!("{} streams ended with every server alive, by {first}", ends.len());
            self.failures.push(text);
        }
    }

    /// What no agent may ever see.
    pub(super) fn verdict(&mut self) {
        let faults = |agent: &Arc<Agent>| agent.seen().faults.clone();
        let faults: Vec<_> = self.fleet.agents.iter().flat_map(faults).collect();
        self.figures.insert("faults".to_owned(), json!(faults.len()));
        self.failures.extend(faults.into_iter().take(FAULTS_SHOWN));
        let sum = |count: fn(&Agent) -> usize| -> usize {
            self.fleet.agents.iter().map(|agent| count(agent)).sum()
        };
        let (gone, suspect) = (sum(|agent| agent.seen().gone), sum(|agent| agent.seen().suspect));
        self.figures.insert("told_gone".to_owned(), json!(gone));
        self.figures.insert("told_suspect".to_owned(), json!(suspect));
        if gone > 0 {
            self.failures.push(format!("agents that lived were told as gone {gone} times"));
        }
    }
}

/// The servers' APIs.
fn apis(mesh: &Mesh) -> Vec<String> {
    mesh.server_names().iter().map(|name| mesh.server(name).api()).collect()
}

/// Milliseconds of processor that all servers used between.
fn cpu_between(before: &[Usage], after: &[Usage]) -> f64 {
    let used = |(before, after): (&Usage, &Usage)| after.cpu.saturating_sub(before.cpu);
    before.iter().zip(after).map(used).sum::<Duration>().as_secs_f64() * 1e3
}

/// KiB by which all servers grew.
fn grown(before: &[Usage], after: &[Usage]) -> f64 {
    let total = |all: &[Usage]| all.iter().map(|usage| usage.rss_kib).sum::<u64>() as f64;
    total(after) - total(before)
}

const FAULTS_SHOWN: usize = 10;
