//! WebSockets of a client and a server that were not written here, between hosts and within one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mesh_tests::cluster::{Mesh, path};
use mesh_tests::net::{Host, Net};
use mesh_tests::process::{Process, Ran, output};
use mesh_tests::{Needs, eventually, has, python, within};

use crate::turn;

/// The port to orders on each host of a caller, and that of batch, which may not call.
const ORDERS: u16 = 9001;
const BATCH_ORDERS: u16 = 9101;
/// The listener that routes by Host.
const BY_HOST: u16 = 7380;
/// What the backend listens on.
const APP: u16 = 8081;
/// What is installed from PyPI.
const LIBRARY: &str = "websockets==15.0.1";

const FRONT: &str = r#"
[instance.web-1]
service = "web"
port = 8080
upstreams = [{ service = "orders", listen = "127.0.0.1:9001" }]
[instance.batch-1]
service = "batch"
port = 8090
upstreams = [{ service = "orders", listen = "127.0.0.1:9101" }]
[instance.job-1]
service = "job"
port = 8101
user = "root"
"#;

const BACK: &str = r#"
[instance.orders-1]
service = "orders"
port = 8081
[instance.shop-1]
service = "shop"
port = 8082
upstreams = [{ service = "orders", listen = "127.0.0.1:9001" }]
"#;

/// With less time for a request than connections here are silent.
const POLICY: &str = r#"[service.orders]
protocol = "http"
timeout = "3s"

[[allow.orders]]
name = "callers"
from = ["web", "job", "shop"]
"#;

/// The programs, and a Python that has [`LIBRARY`].
struct Python {
    venv: PathBuf,
    folder: PathBuf,
}

impl Python {
    /// Puts the programs into `folder`; nothing if the library cannot be had.
    fn new(folder: PathBuf) -> Option<Self> {
        let venv = python::venv(Path::new(env!("CARGO_TARGET_TMPDIR")), LIBRARY)?;
        fs::write(folder.join("server.py"), include_str!("websocket/server.py")).unwrap();
        fs::write(folder.join("client.py"), include_str!("websocket/client.py")).unwrap();
        Some(Self { venv, folder })
    }

    /// One of the programs on `host`.
    fn command(&self, host: &Host, program: &str, what: &str, port: u16) -> Command {
        let mut command = host.command(path(&self.venv.join("bin/python")));
        command.arg(self.folder.join(program)).arg(what).arg(port.to_string());
        command
    }

    /// Has the client do `what` through `port` of `host`.
    fn client(&self, host: &Host, what: &str, port: u16) -> Ran {
        output(self.command(host, "client.py", what, port), Duration::from_secs(120))
    }
}

#[test]
fn websockets_of_others_pass_by_every_way() {
    let _turn = turn();
    let needs = ["ip", "nsenter", "curl", "python3"].map(Needs::Program);
    if !has(&[&[Needs::Root][..], &needs].concat()) {
        return;
    }
    let mut mesh = Mesh::new(Net::new(&["ctl-1", "front", "back"]));
    let Some(python) = Python::new(mesh.folder("python")) else { return };
    mesh.add_server("ctl-1");
    mesh.add_agent("back", "orders,shop", BACK);
    mesh.add_agent("front", "web,batch,job", FRONT);
    mesh.apply("mesh.toml", POLICY);
    mesh.wait_synced();
    let (front, back) = (mesh.net.host("front").clone(), mesh.net.host("back").clone());
    let server = python.command(&back, "server.py", "listen", APP);
    let _server = Process::start(server, &mesh.folder("python").join("server.log"));
    let callers = [(&front, ORDERS, "web"), (&front, BY_HOST, "job"), (&back, ORDERS, "shop")];
    for (host, port, name) in callers {
        is_had(name, || python.client(host, "caller", port));
    }
    many_rest(&mesh, &python, &front);
    for (host, port, name) in callers {
        let ran = python.client(host, "all", port).good();
        println!("measured: from {name}: {}", ran.stdout.trim().replace('\n', ", "));
    }
    python.client(&front, "denied", BATCH_ORDERS).good();
    what_is_denied_ends(&mesh, &python, &front);
}

/// Waits until `ask` finds itself called by `name` at the other end of a WebSocket.
fn is_had(name: &str, ask: impl Fn() -> Ran) {
    let mut last = None;
    let had = within(Duration::from_secs(30), || {
        let ran = last.insert(ask());
        ran.stdout.trim().ends_with(&format!("/svc/{name}")).then_some(())
    });
    assert!(had.is_some(), "{name} has no WebSocket: {last:?}");
}

/// Many at rest: what they take, and that nothing of them stays when their client is killed.
fn many_rest(mesh: &Mesh, python: &Python, front: &Host) {
    let agents = ["front", "back"].map(|host| mesh.agent(host).process.as_ref().unwrap().pid());
    let before = agents.map(resident_kib);
    let client = python.command(front, "client.py", "many", ORDERS);
    let mut client = Process::start(client, &mesh.folder("python").join("many.log"));
    eventually("they are open", Duration::from_secs(60), || {
        client.output().contains("connected").then_some(())
    });
    let [callers, callees] = open(mesh);
    assert!(callers == callees && callers > 100, "{callers} and {callees} are open");
    let after = agents.map(resident_kib);
    let each = |at: usize| (after[at] - before[at]) as f64 / callers as f64;
    println!(
        "measured: each of {callers} at rest takes {:.1} KiB at the caller's agent, {:.1} at the callee's",
        each(0),
        each(1)
    );
    client.kill();
    eventually("none is open", Duration::from_secs(20), || (open(mesh) == [0, 0]).then_some(()));
}

/// How many WebSockets of `web` are open at the callers' agent and at the callee's.
fn open(mesh: &Mesh) -> [i64; 2] {
    [("front", "outbound"), ("back", "inbound")].map(|(host, side)| {
        let text = mesh.agent(host).admin("/metrics");
        let parts = ["mesh_connections_open{", &format!("side=\"{side}\""), "src=\"web\""];
        let line = text.lines().find(|line| parts.iter().all(|part| line.contains(part)));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    })
}

fn resident_kib(pid: i32) -> i64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// One that is open ends when its rule is taken away, and was counted while it was open.
fn what_is_denied_ends(mesh: &Mesh, python: &Python, front: &Host) {
    let client = python.command(front, "client.py", "kept", ORDERS);
    let mut client = Process::start(client, &mesh.folder("python").join("kept.log"));
    eventually("it is open", Duration::from_secs(20), || {
        client.output().contains("connected").then_some(())
    });
    assert_eq!(open(mesh), [1, 1]);
    mesh.apply("mesh.toml", &POLICY.replace("\"web\", ", ""));
    eventually("it was ended", Duration::from_secs(10), || {
        client.output().contains("ended None").then_some(())
    });
    assert_eq!(client.wait(Duration::from_secs(10)), Some(0), "{}", client.output());
    python.client(front, "denied", ORDERS).good();
}
