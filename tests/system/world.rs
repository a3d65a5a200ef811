//! The mesh that most tests run on: three servers, `web` and `batch` on one host, and on another
//! `orders` (nginx, twice) and `cache` (redis). `web` may call both, `batch` nothing.

use std::fs;
use std::time::Duration;

pub(crate) use mesh_tests::backends::local;
use mesh_tests::backends::{nginx_that_tells, redis};
use mesh_tests::cluster::Mesh;
use mesh_tests::net::{Host, Net};
use mesh_tests::process::Process;
use mesh_tests::{Needs, eventually, has};

/// Ports on the callers' host, by who calls whom.
pub(crate) const WEB_ORDERS: u16 = 9001;
pub(crate) const WEB_CACHE: u16 = 9002;
pub(crate) const BATCH_ORDERS: u16 = 9101;
pub(crate) const BATCH_CACHE: u16 = 9102;

/// What [`World::start`] needs.
pub(crate) const NEEDS: &[Needs] = &[
    Needs::Root,
    Needs::Program("ip"),
    Needs::Program("nsenter"),
    Needs::Program("curl"),
    Needs::Program("nginx"),
    Needs::Program("redis-server"),
    Needs::Program("redis-benchmark"),
];

const CALLERS: &str = r#"
[instance.web-1]
service = "web"
port = 8080
upstreams = [
    { service = "orders", listen = "127.0.0.1:9001" },
    { service = "cache", listen = "127.0.0.1:9002" },
]
[instance.batch-1]
service = "batch"
port = 8090
upstreams = [
    { service = "orders", listen = "127.0.0.1:9101" },
    { service = "cache", listen = "127.0.0.1:9102" },
]
"#;

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
[instance.cache-1]
service = "cache"
port = 6379
[[instance.cache-1.check]]
tcp = true
interval = "500ms"
"#;

pub(crate) const POLICY: &str = r#"[service.orders]
protocol = "http"

[[allow.orders]]
name = "callers"
from = ["web"]

[[allow.cache]]
name = "callers"
from = ["web"]
"#;

/// The mesh with its backends.
pub(crate) struct World {
    /// nginx as `orders-1` and as `orders-2`, then redis.
    pub(crate) backends: Vec<Process>,
    pub(crate) mesh: Mesh,
}

impl World {
    /// Starts it, or says why the test is skipped.
    pub(crate) fn start() -> Option<Self> {
        if !has(NEEDS) {
            return None;
        }
        let net = Net::new(&["ctl-1", "ctl-2", "ctl-3", "front", "back"]);
        let mut mesh = Mesh::start(net, &["ctl-1", "ctl-2", "ctl-3"]);
        let back = mesh.net.host("back").clone();
        let backends = vec![
            nginx(&mesh, &back, "orders-1", 8081),
            nginx(&mesh, &back, "orders-2", 8082),
            redis(&back, &mesh.folder("redis"), 6379),
        ];
        mesh.add_agent("back", "orders,cache", BACKENDS);
        mesh.add_agent("front", "web,batch", CALLERS);
        mesh.apply("mesh.toml", POLICY);
        mesh.wait_synced();
        let world = Self { backends, mesh };
        world.wait_certificates("front", &["web", "batch"]);
        world.wait_certificates("back", &["orders", "cache"]);
        let front = world.front();
        eventually("web reaches orders", Duration::from_secs(20), || {
            let answer = front.run(|| mesh_tests::http::get(local(WEB_ORDERS), "orders", "/"));
            answer.is_ok_and(|answer| answer.status == 200).then_some(())
        });
        Some(world)
    }

    /// Waits until the agent on `host` has a certificate for each of its services.
    fn wait_certificates(&self, host: &str, services: &[&str]) {
        eventually("every service has a certificate", Duration::from_secs(20), || {
            let status = self.mesh.agent(host).admin("/status");
            let status: serde_json::Value = serde_json::from_str(&status).ok()?;
            let leaves: Vec<&String> = status["leaves"].as_object()?.keys().collect();
            let has = |name: &&str| leaves.iter().any(|id| id.ends_with(&format!("/svc/{name}")));
            services.iter().all(has).then_some(())
        });
    }

    /// The callers' host.
    pub(crate) fn front(&self) -> Host {
        self.mesh.net.host("front").clone()
    }

    /// How often nginx was asked for a path that holds `path`, from the log of its own.
    pub(crate) fn asked_of(&self, name: &str, path: &str) -> usize {
        let log = fs::read_to_string(self.mesh.folder(name).join("access.log")).unwrap();
        log.lines().filter(|line| line.contains(path)).count()
    }

    /// The same for both.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.asked_of("orders-1", path) + self.asked_of("orders-2", path)
    }

    /// The backends' host.
    pub(crate) fn back(&self) -> Host {
        self.mesh.net.host("back").clone()
    }
}

/// The application `name` on `host`, which tells what it was asked and by whom.
pub(crate) fn nginx(mesh: &Mesh, host: &Host, name: &str, port: u16) -> Process {
    nginx_that_tells(host, &mesh.folder(name), name, port)
}
