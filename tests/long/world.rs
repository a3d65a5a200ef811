//! The mesh of the long forms: three servers, `web` on the host `front`, and on each further host
//! `orders` (nginx, twice) and `cache` (redis). `web` may call both.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::backends::{local, nginx, redis};
use crate::cluster::Mesh;
use crate::net::{Host, Net};
use crate::process::Process;
use crate::tmpfs::Tmpfs;
use crate::{Needs, eventually, http, within};

/// The control servers' hosts.
pub const SERVERS: [&str; 3] = ["ctl-1", "ctl-2", "ctl-3"];
/// The callers' host.
pub const FRONT: &str = "front";

/// What [`World::start`] needs.
pub const NEEDS: &[Needs] = &[
    Needs::Root,
    Needs::Program("ip"),
    Needs::Program("tc"),
    Needs::Program("nsenter"),
    Needs::Program("curl"),
    Needs::Program("nginx"),
    Needs::Program("redis-server"),
];

const CALLERS: &str = r#"
[instance.web-1]
service = "web"
port = 8080
upstreams = [
    { service = "orders", listen = "127.0.0.1:9001" },
    { service = "cache", listen = "127.0.0.1:9002" },
]
"#;

/// Where `web` reaches `orders`, and where `cache`.
pub const ORDERS: u16 = 9001;
/// See [`ORDERS`].
pub const CACHE: u16 = 9002;

const BACKENDS: &str = r#"
[instance.orders-1]
service = "orders"
port = 8081
meta = { version = "1" }
[[instance.orders-1.check]]
http = "/health"
interval = "500ms"
[instance.orders-2]
service = "orders"
port = 8082
meta = { version = "2" }
[[instance.orders-2.check]]
http = "/health"
interval = "500ms"
[instance.cache-1]
service = "cache"
port = 6379
[[instance.cache-1.check]]
tcp = true
interval = "500ms"
"#;

/// The policy that it starts with, in `mesh.toml`.
pub const POLICY: &str = r#"[service.orders]
protocol = "http"
timeout = "5s"

[[allow.orders]]
name = "callers"
from = ["web"]

[[allow.cache]]
name = "callers"
from = ["web"]
"#;

/// An application on a host.
#[derive(Debug)]
pub struct Backend {
    /// Where.
    pub host: String,
    /// `orders-1`, `orders-2` or `cache-1`.
    pub instance: &'static str,
    /// Its process, while it runs.
    pub process: Option<Process>,
}

/// The mesh with its applications.
#[derive(Debug)]
pub struct World {
    /// The applications.
    pub backends: Vec<Backend>,
    /// The mesh.
    pub mesh: Mesh,
    /// What the data of one server lies on, if it may fill up.
    pub disk: Option<Tmpfs>,
    began: Instant,
}

/// The hosts of a mesh with these hosts of applications.
pub fn net(backs: &[&str]) -> Net {
    Net::new(&[&SERVERS[..], &[FRONT], backs].concat())
}

impl World {
    /// Starts it on `net`, where `backs` are; the data of the server `small` has little room.
    ///
    /// # Panics
    /// If that fails.
    pub fn start(net: Net, backs: &[&str], small: Option<&str>) -> Self {
        let mut mesh = Mesh::new(net);
        let disk = small.map(|name| Tmpfs::mount(&mesh.folder(name).join("data"), "96m"));
        for name in SERVERS {
            mesh.add_server(name);
        }
        let mut world = Self { backends: Vec::new(), mesh, disk, began: Instant::now() };
        for back in backs {
            for instance in ["orders-1", "orders-2", "cache-1"] {
                let host = (*back).to_owned();
                world.backends.push(Backend { host, instance, process: None });
                world.start_backend(world.backends.len() - 1);
            }
            world.mesh.add_agent(back, "orders,cache,spare", BACKENDS);
        }
        world.mesh.add_agent(FRONT, "web", CALLERS);
        world.mesh.apply("mesh.toml", POLICY);
        world.mesh.wait_synced();
        let front = world.front();
        eventually("web reaches both services", Duration::from_secs(20), || {
            let orders = front.run(|| http::get(local(ORDERS), "orders", "/"));
            let cache = front.run(|| super::traffic::ping_once(local(CACHE)));
            (orders.is_ok_and(|answer| answer.status == 200) && cache.is_ok()).then_some(())
        });
        world.began = Instant::now();
        world
    }

    /// Since everything was up.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// When everything was up.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Prints a line of progress.
    pub fn say(&self, what: &str) {
        println!("[{:7.1} s] {what}", self.elapsed().as_secs_f64());
    }

    /// The callers' host.
    pub fn front(&self) -> Host {
        self.mesh.net.host(FRONT).clone()
    }

    /// The hosts with agents.
    pub fn agent_names(&self) -> Vec<String> {
        let mut names = vec![FRONT.to_owned()];
        for backend in &self.backends {
            if !names.contains(&backend.host) {
                names.push(backend.host.clone());
            }
        }
        names
    }

    /// The place of an application in the list.
    ///
    /// # Panics
    /// If there is none.
    pub fn backend(&self, host: &str, instance: &str) -> usize {
        let found =
            self.backends.iter().position(|one| one.host == host && one.instance == instance);
        found.expect("an application of this mesh")
    }

    /// The leader, if the servers know one.
    pub fn leader(&self) -> Option<String> {
        let status = self.mesh.operator().json(&["status", "--timeout", "3s"]);
        status["status"]["leader"].as_str().map(str::to_owned)
    }

    /// Starts an application that does not run.
    pub fn start_backend(&mut self, at: usize) {
        let Backend { host, instance, .. } = &self.backends[at];
        let dir = self.mesh.folder(&format!("{host}-{instance}"));
        let place = self.mesh.net.host(host).clone();
        let process = match *instance {
            "orders-1" => nginx(&place, &dir, instance, 8081),
            "orders-2" => nginx(&place, &dir, instance, 8082),
            _ => redis(&place, &dir, 6379),
        };
        self.backends[at].process = Some(process);
    }

    /// Waits until the agent on `host` says that it is ready; whether it did.
    pub fn agent_is_ready(&self, host: &str, limit: Duration) -> bool {
        let place = self.mesh.net.host(host);
        let admin: SocketAddr = local(7302);
        let ready = || {
            let answer = place.run(|| http::get(admin, "localhost", "/ready"));
            answer.is_ok_and(|answer| answer.status == 200).then_some(())
        };
        within(limit, ready).is_some()
    }

    /// Waits until `mesh status` is clean, every agent is there and all servers have one state.
    ///
    /// # Errors
    /// What is not so at the end of `limit`.
    pub fn converges(&self, limit: Duration) -> Result<Duration, String> {
        let (began, operator) = (Instant::now(), self.mesh.operator());
        let agents = self.agent_names().len();
        let mut last = Value::Null;
        let clean = within(limit, || {
            last = operator.json(&["status", "--timeout", "3s"]);
            is_clean(&last, agents).then(|| began.elapsed())
        });
        clean.ok_or_else(|| {
            let of = |list: &str, field: &str| {
                let all = last[list].as_array().cloned().unwrap_or_default();
                all.iter().map(|one| one["status"][field].to_string()).collect::<Vec<_>>().join(" ")
            };
            format!(
                "not clean within {limit:?}: {}; {agents} agents expected; revisions {}",
                last["problems"],
                of("servers", "revision"),
            )
        })
    }

    /// Lines of all logs of the mesh's own that say ERROR or tell of a panic, with whose they are.
    pub fn wrong_lines(&self) -> Vec<String> {
        let names = self.mesh.server_names().into_iter().chain(self.agent_names());
        let lines = names.flat_map(|name| {
            let text = fs::read_to_string(self.mesh.folder(&name).join("log")).unwrap_or_default();
            let wrong = text.lines().filter(|line| is_wrong(line));
            wrong.map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
        });
        lines.collect()
    }

    /// How many lines of the log of `name` hold `text`.
    pub fn logged(&self, name: &str, text: &str) -> usize {
        let log = fs::read_to_string(self.mesh.folder(name).join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains(text)).count()
    }
}

fn is_clean(status: &Value, agents: usize) -> bool {
    let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let states = servers.iter().map(|one| {
        let own = &one["status"];
        Some((own["revision"].as_str()?, own["state_hash"].as_str()?))
    });
    let states: Option<Vec<_>> = states.collect();
    let same = states.is_some_and(|all| all.windows(2).all(|pair| pair[0] == pair[1]));
    let all = status["agents"].as_array().map_or(0, Vec::len) == agents;
    status["ok"] == true && servers.len() == SERVERS.len() && same && all
}

/// Whether a line tells of an error or a panic.
pub fn is_wrong(line: &str) -> bool {
    line.contains("panicked at") || line.split_whitespace().nth(1) == Some("ERROR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_from_words() {
        assert!(is_wrong("2026-01-01T00:00:00.000000Z ERROR meshd: a request failed"));
        assert!(is_wrong("thread 'main' panicked at agent/src/main.rs:1:1:"));
        assert!(!is_wrong("2026-01-01T00:00:00.000000Z  INFO meshd: no ERROR so far"));
    }

    #[test]
    fn one_state_and_all_agents_are_clean() {
        let server =
            |hash: &str| serde_json::json!({ "status": { "revision": "1.7", "state_hash": hash } });
        let status = |ok: bool, last: &str, agents: usize| {
            serde_json::json!({
                "ok": ok,
                "servers": [server("a"), server("a"), server(last)],
                "agents": vec![0; agents],
            })
        };
        assert!(is_clean(&status(true, "a", 2), 2));
        assert!(!is_clean(&status(false, "a", 2), 2));
        assert!(!is_clean(&status(true, "b", 2), 2));
        assert!(!is_clean(&status(true, "a", 1), 2));
        assert!(!is_clean(&Value::Null, 0));
    }
}
