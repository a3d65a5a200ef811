//! `mesh status`: is the mesh well?

use mesh_core::api::{AgentStatus, ServerInfo, ServerStatus};
use mesh_core::catalog::{Instance, Node};
use mesh_core::policy::AccessMode;
use mesh_core::revision::Revision;
use mesh_core::stream::ExposedPort;
use mesh_core::time::UnixMillis;
use serde::Serialize;

use super::members::role;
use crate::error::count;
use crate::output::{bad, good, plain, table};
use crate::times::relative;

/// Everything `mesh status` goes by.
#[derive(Debug, Serialize)]
pub(crate) struct Health {
    /// Whether nothing is wrong.
    pub(crate) ok: bool,
    /// What is wrong, for people.
    pub(crate) problems: Vec<String>,
    /// What is worth knowing, and no fault.
    pub(crate) notes: Vec<String>,
    /// The server asked.
    pub(crate) status: ServerStatus,
    /// The control servers, each asked itself.
    pub(crate) servers: Vec<Asked>,
    /// The agents.
    pub(crate) agents: Vec<AgentStatus>,
}

/// A control server, and what it says of itself.
#[derive(Debug, Serialize)]
pub(crate) struct Asked {
    /// What the server asked first says of it.
    pub(crate) info: ServerInfo,
    /// Its own state, if it answered.
    pub(crate) status: Option<ServerStatus>,
    /// Why it did not answer.
    pub(crate) error: Option<String>,
}

impl Asked {
    /// What `info`'s server answered.
    pub(crate) fn new(info: ServerInfo, status: Result<ServerStatus, String>) -> Self {
        match status {
            Ok(status) => Self { info, status: Some(status), error: None },
            Err(why) => Self { info, status: None, error: Some(why) },
        }
    }
}

/// What the servers said.
#[derive(Debug)]
pub(crate) struct Said {
    /// The server asked.
    pub(crate) status: ServerStatus,
    /// The control servers, each asked itself.
    pub(crate) servers: Vec<Asked>,
    /// The agents.
    pub(crate) agents: Vec<AgentStatus>,
    /// The nodes.
    pub(crate) nodes: Vec<Node>,
    /// The instances of those nodes that have exposed ports.
    pub(crate) instances: Vec<Instance>,
}

/// Finds what is wrong. Pure: `now` tells which certificates have ended.
pub(crate) fn judge(said: Said, now: UnixMillis) -> Health {
    let Said { status, servers, agents, nodes, instances } = said;
    let mut problems = Vec::new();
    if status.leader.is_none() {
        let how = "a majority of them must run and reach each other";
        problems.push(format!("the servers have no leader, so nothing can change: {how}"));
    }
    problems.extend(server_problems(&servers));
    for agent in &agents {
        problems.extend(agent_problems(agent, now));
        problems.extend(agent.report.exposed.iter().map(|port| exposed(agent, port, &instances)));
        let warnings = agent.report.warnings.iter();
        problems.extend(warnings.map(|text| format!("{}: {}", agent.node, plain(text))));
    }
    for node in nodes.iter().filter(|node| !agents.iter().any(|agent| agent.node == node.name)) {
        problems.push(format!("{}: its agent has not connected to these servers", node.name));
    }
    let notes = notes(&status, &agents, now);
    Health { ok: problems.is_empty(), problems, notes, status, servers, agents }
}

fn server_problems(servers: &[Asked]) -> Vec<String> {
    let mut found = Vec::new();
    let voters = servers.iter().filter(|server| server.info.voter);
    let (all, alive) = (voters.clone().count(), voters.filter(|one| one.status.is_some()).count());
    if alive * 2 <= all {
        found.push(format!(
            "{alive} of {all} voting servers answer, expected a majority: nothing can change, \
             traffic goes on"
        ));
    }
    for server in servers {
        let (name, at) = (&server.info.name, plain(&server.info.api_address));
        found.extend(
            server.error.as_ref().map(|why| format!("{name}: no answer at {at}: {}", plain(why))),
        );
    }
    found.extend(differing(servers));
    found
}

/// Servers of one revision have one state; one that has another cannot be repaired, only replaced.
fn differing(servers: &[Asked]) -> Vec<String> {
    let known = servers.iter().filter_map(|one| Some((&one.info.name, one.status.as_ref()?)));
    let alike = |status: &ServerStatus| {
        let same = |other: &&ServerStatus| {
            other.revision == status.revision && other.state_hash == status.state_hash
        };
        known.clone().map(|(_, other)| other).filter(same).count()
    };
    let differs = |(_, status): &(_, &ServerStatus)| {
        let others = known.clone().map(|(_, other)| other);
        let others = others.filter(|other| other.revision == status.revision);
        others.clone().any(|other| {
            // of two alone nobody can tell which is right
            other.state_hash != status.state_hash && alike(other) >= alike(status)
        })
    };
    let text = |(name, status): (_, &ServerStatus)| {
        format!(
            "{name}: its state at revision {} is not the others': take it out with \
             `mesh server remove {name}`, join it anew by a token, and report it, for this must not be",
            status.revision
        )
    };
    known.clone().filter(differs).map(text).collect()
}

fn agent_problems(agent: &AgentStatus, now: UnixMillis) -> Vec<String> {
    let node = &agent.node;
    let mut found = Vec::new();
    if !agent.connected {
        let seen = relative(agent.seen, now);
        found.push(format!("{node}: no connection, last seen {seen}; it serves what it had then"));
    }
    if let Some(behind) = behind(agent) {
        found.push(format!(
            "{node}: {behind} (has {}, wants {})",
            agent.report.applied, agent.wanted
        ));
    }
    if let Some(error) = &agent.error {
        found.push(format!("{node}: it refused its last config: {}", plain(error)));
    }
    for (id, end) in agent.report.leaves.iter().filter(|(_, end)| **end <= now) {
        found.push(format!(
            "{node}: the certificate of {} expired {}",
            plain(id),
            relative(*end, now)
        ));
    }
    found
}

/// What an exposed port means and what to do; `instances` tell whose it is.
fn exposed(agent: &AgentStatus, port: &ExposedPort, instances: &[Instance]) -> String {
    let known = instances.iter().find(|i| i.node == agent.node && i.spec.id == port.instance);
    let service = known.map_or_else(String::new, |i| format!(" of service {}", i.spec.service));
    format!(
        "{}: {}{service} answers at {} without the agent, so no rule protects it there; let it \
         listen on 127.0.0.1",
        agent.node, port.instance, port.address
    )
}

fn notes(status: &ServerStatus, agents: &[AgentStatus], now: UnixMillis) -> Vec<String> {
    let mut notes = Vec::new();
    match status.access {
        AccessMode::Enforce => {}
        AccessMode::Audit => {
            notes.push(
                "access = \"audit\": calls that no rule allows pass and are logged".to_owned(),
            );
        }
    }
    for agent in agents {
        let soon = first_end(agent).filter(|end| *end > now && end.since(now) < SOON_MILLIS);
        notes.extend(soon.map(|end| {
            format!("{}: a certificate ends {}, expect a renewal", agent.node, relative(end, now))
        }));
    }
    notes
}

/// How far an agent is from what it should have; `None` if it has it.
fn behind(agent: &AgentStatus) -> Option<String> {
    let (has, wants) = (agent.report.applied, agent.wanted);
    if has >= wants {
        return None;
    }
    Some(match (has, wants) {
        (Revision::ZERO, _) => "has no config yet".to_owned(),
        (has, wants) if has.epoch == wants.epoch => {
            format!("behind by {}", wants.index - has.index)
        }
        (_, _) => "behind by a restore".to_owned(),
    })
}

fn first_end(agent: &AgentStatus) -> Option<UnixMillis> {
    agent.report.leaves.values().min().copied()
}

/// `health` as text.
pub(crate) fn status(health: &Health, now: UnixMillis) -> String {
    let mut parts = vec![head(&health.status), servers(&health.servers)];
    if health.agents.is_empty() {
        parts.push("no agents yet: `mesh token create --node NAME --service SERVICE`".to_owned());
    } else {
        parts.push(agents(&health.agents, now));
    }
    let mut last: Vec<String> = health.notes.iter().map(|note| format!("- {note}")).collect();
    last.extend(health.problems.iter().map(|problem| format!("{} {problem}", bad("×"))));
    last.push(match health.problems.len() {
        0 => format!("{} nothing is wrong", good("✓")),
        many => count(many, "problem"),
    });
    parts.push(last.join("\n"));
    parts.join("\n\n")
}

fn servers(all: &[Asked]) -> String {
    let rows = all.iter().map(|server| {
        let own = server.status.as_ref();
        vec![
            server.info.name.to_string(),
            if own.is_some() { "live" } else { "no answer" }.to_owned(),
            role(&server.info).to_owned(),
            own.map_or_else(|| "-".to_owned(), |own| own.revision.to_string()),
            server.info.api_address.clone(),
            own.map_or_else(|| "-".to_owned(), |own| own.version.clone()),
        ]
    });
    table(&["SERVER", "STATE", "ROLE", "REVISION", "API", "VERSION"], rows)
}

fn head(status: &ServerStatus) -> String {
    let leader = status.leader.as_ref().map_or("none", |name| name.as_str());
    format!(
        "mesh      {} ({})\npolicy    v{}, access {}, revision {}\nleader    {leader}, term {} (asked {})\ncatalog   {}, {}, {}",
        status.trust_domain,
        status.datacenter,
        status.policy_version,
        status.access.as_str(),
        status.revision,
        status.term,
        status.server,
        number(status.nodes, "node"),
        number(status.services, "service"),
        number(status.instances, "instance"),
    )
}

fn number(number: u64, thing: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), thing)
}

fn agents(all: &[AgentStatus], now: UnixMillis) -> String {
    let rows = all.iter().map(|agent| {
        let exposed: Vec<String> =
            agent.report.exposed.iter().map(|port| port.address.to_string()).collect();
        vec![
            agent.node.to_string(),
            if agent.connected { "live" } else { "stale" }.to_owned(),
            behind(agent).unwrap_or_else(|| "synced".to_owned()),
            certificate(agent, now),
            relative(agent.seen, now),
            if exposed.is_empty() { "-".to_owned() } else { exposed.join(",") },
            agent.version.clone(),
        ]
    });
    let headers = ["AGENT", "STATE", "CONFIG", "CERTIFICATE", "SEEN", "EXPOSED", "VERSION"];
    table(&headers, rows)
}

fn certificate(agent: &AgentStatus, now: UnixMillis) -> String {
    match first_end(agent) {
        None => "none".to_owned(),
        Some(end) if end <= now => format!("expired {}", relative(end, now)),
        Some(end) => format!("ends {}", relative(end, now)),
    }
}

/// A certificate that ends so soon is worth a word: leaves are renewed at half their life.
const SOON_MILLIS: u64 = 2 * 3_600_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::super::samples::{self, NOW};
    use super::*;

    fn golden(health: &Health) -> String {
        status(health, NOW)
            .replace("\u{1b}[31m", "")
            .replace("\u{1b}[32m", "")
            .replace("\u{1b}[0m", "")
    }

    #[test]
    fn a_sick_mesh_says_what_is_wrong_and_where() {
        let health = judge(samples::said(), NOW);
        let want = "\
mesh      0123456789ab.mesh.internal (dc1)
policy    v4, access enforce, revision 1.42
leader    ctl-1, term 3 (asked ctl-2)
catalog   2 nodes, 3 services, 1 instance

SERVER  STATE  ROLE    REVISION  API            VERSION
ctl-1   live   leader  1.42      10.0.0.1:7300  0.1.0
ctl-2   live   voter   1.42      10.0.0.2:7300  0.1.0

AGENT  STATE  CONFIG       CERTIFICATE     SEEN    EXPOSED        VERSION
db-1   stale  behind by 4  expired 2h ago  3m ago  10.0.0.3:5432  0.1.0
web-7  live   synced       ends in 11h     4s ago  -              0.1.0

× db-1: no connection, last seen 3m ago; it serves what it had then
× db-1: behind by 4 (has 1.38, wants 1.42)
× db-1: the certificate of spiffe://0123456789ab.mesh.internal/ns/default/dc/dc1/svc/db expired 2h ago
× db-1: db-1 of service db answers at 10.0.0.3:5432 without the agent, so no rule protects it there; let it listen on 127.0.0.1
4 problems";
        assert_eq!(golden(&health), want);
        assert!(!health.ok);
    }

    #[test]
    fn a_server_with_another_state_is_named() {
        let at = |name: &str, revision: u64, hash: &str| {
            let mut asked = samples::asked().remove(0);
            asked.info.name = name.parse().unwrap();
            let status = ServerStatus {
                revision: Revision::new(1, revision),
                state_hash: hash.to_owned(),
                ..samples::status()
            };
            Asked { status: Some(status), ..asked }
        };
        type Case<'a> = (&'a str, &'a [(&'a str, u64, &'a str)], &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            ("all alike", &[("a", 7, "x"), ("b", 7, "x"), ("c", 7, "x")], &[]),
            ("one behind", &[("a", 7, "x"), ("b", 6, "y"), ("c", 7, "x")], &[]),
            ("one differs", &[("a", 7, "x"), ("b", 7, "y"), ("c", 7, "x")], &["b"]),
            ("nobody can tell", &[("a", 7, "x"), ("b", 7, "y")], &["a", "b"]),
            ("one", &[("a", 7, "x")], &[]),
        ];
        for (name, servers, expected) in cases {
            let servers: Vec<_> = servers.iter().map(|(n, r, h)| at(n, *r, h)).collect();
            let found = differing(&servers);
            let named: Vec<_> = found.iter().filter_map(|text| text.split(':').next()).collect();
            assert_eq!(named, *expected, "{name}");
        }
    }

    #[test]
    fn a_well_mesh_is_ok() {
        let mut said = samples::said();
        said.agents.retain(|agent| agent.connected);
        said.nodes.remove(0);
        let health = judge(said, NOW);
        assert!(health.ok, "{:?}", health.problems);
        assert!(golden(&health).ends_with("\n\n✓ nothing is wrong"));
    }

    #[test]
    fn silence_is_a_problem() {
        let mut said = Said { agents: vec![], ..samples::said() };
        said.status.leader = None;
        let health = judge(said, NOW);
        let found: Vec<&str> =
            health.problems.iter().filter_map(|text| text.split(':').next()).collect();
        assert_eq!(found, ["the servers have no leader, so nothing can change", "db-1", "web-7"]);
        let mut servers = samples::asked();
        let first = servers.remove(0).info;
        servers.insert(0, Asked::new(first, Err("refused".to_owned())));
        let said = Said { servers, agents: vec![], nodes: vec![], ..samples::said() };
        let health = judge(said, NOW);
        let want = [
            "1 of 2 voting servers answer, expected a majority: nothing can change, traffic goes on",
            "ctl-1: no answer at 10.0.0.1:7300: refused",
        ];
        assert_eq!(health.problems, want);
        assert!(golden(&health).contains("ctl-1   no answer  leader  -"));
        let mut restored = samples::agents().remove(1);
        restored.wanted = Revision::new(2, 1);
        assert_eq!(behind(&restored).as_deref(), Some("behind by a restore"));
    }
}
