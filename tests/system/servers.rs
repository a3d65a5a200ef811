//! Servers come and go: two of five, then the majority, then one by its disk. What was acknowledged
//! stays, and a server without a majority says so.

use std::time::{Duration, Instant};

use mesh_tests::backends::{local, nginx};
use mesh_tests::cluster::{Mesh, path};
use mesh_tests::load::Load;
use mesh_tests::net::Net;
use mesh_tests::process::{Ran, output};
use mesh_tests::tmpfs::Tmpfs;
use mesh_tests::{Needs, eventually, has};
use serde_json::Value;

use crate::turn;

const NEEDS: [Needs; 4] =
    [Needs::Root, Needs::Program("ip"), Needs::Program("nsenter"), Needs::Program("curl")];
/// What is promised; the tests fail at three times that.
const WRITES_WITHIN: Duration = Duration::from_secs(3);
/// How long a leader counts without an answer of a majority; the tests fail at three times that.
const LEASE: Duration = Duration::from_secs(1);
/// The longest answer of a server that waits for a leader.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// `EX_IOERR` of sysexits(3).
const EXIT_DISK: i32 = 74;
/// How often the last-seen times of all nodes are written to the log, as one entry.
const SEEN_EVERY: Duration = Duration::from_secs(10);

/// An answer of one server's API.
struct Got {
    status: String,
    body: Value,
    took: Duration,
}

/// Asks `server`, and no other.
fn get(mesh: &Mesh, server: &str, page: &str) -> Got {
    let server = mesh.server(server);
    let token = std::fs::read_to_string(mesh.admin_token()).unwrap();
    let (header, url) = (
        format!("authorization: Bearer {}", token.trim()),
        format!("https://{}{page}", server.api()),
    );
    let mut curl = server.host.command("curl");
    curl.args(["-sk", "--max-time", "10", "-w", "\n%{http_code}", "-H", &header, &url]);
    let asked = Instant::now();
    let answer = output(curl, Duration::from_secs(15)).stdout;
    let (body, status) = answer.rsplit_once('\n').unwrap_or_default();
    let body = serde_json::from_str(body).unwrap_or_default();
    Got { status: status.to_owned(), body, took: asked.elapsed() }
}

/// The notes of writes that were acknowledged.
#[derive(Default)]
struct Written {
    notes: Vec<String>,
    tried: usize,
}

impl Written {
    /// Writes through the command.
    fn write(&mut self, mesh: &Mesh, limit: &str) -> Ran {
        self.tried += 1;
        let note = format!("note-{}", self.tried);
        let args = ["token", "create", "--role", "viewer", "--note", &note, "--timeout", limit];
        let ran = mesh.cli(&args);
        if ran.code == Some(0) {
            self.notes.push(note);
        }
        ran
    }

    /// Writes until one is acknowledged.
    fn resume(&mut self, mesh: &Mesh, since: Instant, when: &str) {
        eventually("a write is acknowledged", 3 * WRITES_WITHIN, || {
            (self.write(mesh, "2s").code == Some(0)).then_some(())
        });
        println!("measured: {when}, a write after {} ms", since.elapsed().as_millis());
    }

    fn are_in(&self, tokens: &str) -> bool {
        self.notes.iter().all(|note| tokens.contains(&format!("\"{note}\"")))
    }

    fn are_kept(&self, mesh: &Mesh) {
        let tokens = mesh.json(&["tokens", "--consistent"]).to_string();
        assert!(self.are_in(&tokens), "acknowledged, and lost: {:?}\n{tokens}", self.notes);
        println!("measured: all {} acknowledged writes are there", self.notes.len());
    }
}

/// Waits until `count` servers vote.
fn wait_voters(mesh: &Mesh, count: usize) {
    eventually("every server votes", Duration::from_secs(30), || {
        let status = mesh.json(&["status"]);
        let voters =
            status["servers"].as_array()?.iter().filter(|one| one["info"]["voter"] == true);
        (voters.count() == count).then_some(())
    });
}

#[test]
fn five_servers_lose_two_and_go_on_lose_a_third_and_wait() {
    let _turn = turn();
    if NEEDS.iter().any(|need| !has(&[*need])) {
        return;
    }
    let names = ["ctl-1", "ctl-2", "ctl-3", "ctl-4", "ctl-5"];
    let mut net = Net::new(&[&names[..], &["web-1", "web-2"]].concat());
    net.set_env("MESHD_HEARTBEAT", "500ms");
    net.set_env("MESHD_LEASE", "2s");
    let mut mesh = Mesh::start(net, &names);
    wait_voters(&mesh, names.len());
    for host in ["web-1", "web-2"] {
        let file = format!("[instance.{host}]\nservice = \"web\"\nport = 8080\n");
        mesh.add_agent(host, "web", &file);
    }
    mesh.wait_synced();
    heartbeats_stay_out_of_the_log(&mut mesh);

    let mut written = Written::default();
    written.write(&mesh, "5s").good();
    let lost = others(&mesh, &[mesh.leader()])[0].clone();
    let (killed, lost) = (Instant::now(), [mesh.leader(), lost]);
    lost.iter().for_each(|name| mesh.server_mut(name).kill());
    written.resume(&mesh, killed, "two of five killed");
    written.are_kept(&mesh);

    let leader = mesh.leader();
    let last = others(&mesh, &[lost.to_vec(), vec![leader.clone()]].concat());
    let [follower, third] = &last[..] else { panic!("three are left, found {last:?}") };
    mesh.server_mut(third).kill();
    std::thread::scope(|scope| {
        for name in [&leader, follower] {
            scope.spawn(|| without_a_majority(&mesh, name, &written));
        }
    });
    the_command_without_a_majority(&mesh, &mut written);

    let back = Instant::now();
    mesh.server_mut(third).start();
    written.resume(&mesh, back, "three of five again");
    lost.iter().for_each(|name| mesh.start_server(name));
    mesh.wait_same_state();
    written.write(&mesh, "5s").good();
    written.are_kept(&mesh);
}

/// The servers besides `these`.
fn others(mesh: &Mesh, these: &[String]) -> Vec<String> {
    mesh.server_names().into_iter().filter(|name| !these.contains(name)).collect()
}

/// While agents only heartbeat the log stands still, but for one entry every ten seconds with all
/// nodes' last-seen times; the death of an agent is an entry at once.
fn heartbeats_stay_out_of_the_log(mesh: &mut Mesh) {
    let leader = mesh.leader();
    let applied = |mesh: &Mesh| get(mesh, &leader, "/v1/status").body["applied_index"].as_u64();
    // Registrations and first reports of health are entries.
    let mut still = (applied(mesh), Instant::now());
    eventually("the log stands still", Duration::from_secs(20), || {
        let now = applied(mesh);
        if now != still.0 {
            still = (now, Instant::now());
        }
        (still.1.elapsed() > Duration::from_millis(1500)).then_some(())
    });
    let seen = |mesh: &Mesh| {
        let agents = get(mesh, &leader, "/v1/agents").body;
        agents.as_array().unwrap().iter().map(|agent| agent["seen"].as_u64().unwrap()).min()
    };
    let (first, first_seen, began) = (applied(mesh).unwrap(), seen(mesh).unwrap(), Instant::now());
    let (mut beats, mut last_seen) = (0, first_seen);
    while began.elapsed() < Duration::from_secs(5) {
        let now = seen(mesh).unwrap();
        // Less is the rounding of its age.
        if now > last_seen + 100 {
            (beats, last_seen) = (beats + 1, now);
        }
    }
    let (entries, took) = (applied(mesh).unwrap() - first, began.elapsed());
    println!(
        "measured: {beats} times heard of two agents in {took:?}, {entries} entries in the log"
    );
    assert!(beats >= 3 && last_seen - first_seen > 3_000, "the agents did not heartbeat: {beats}");
    let most = 1 + took.as_secs() / SEEN_EVERY.as_secs();
    assert!(entries <= most, "{beats} heartbeats made {entries} entries, expected at most {most}");

    let before = applied(mesh);
    mesh.agent_mut("web-2").kill();
    let killed = Instant::now();
    eventually("the dead agent's node is gone", Duration::from_secs(10), || {
        let node = get(mesh, &leader, "/v1/nodes/web-2").body;
        (node["node"]["liveness"] == "gone").then_some(())
    });
    println!("measured: a killed agent's node is gone after {:?}", killed.elapsed());
    assert!(applied(mesh) > before, "a death must be in the log");
    let alive = get(mesh, &leader, "/v1/nodes/web-1").body;
    assert_eq!(alive["node"]["liveness"], "alive", "{alive}");
}

/// What one server answers by itself.
fn without_a_majority(mesh: &Mesh, name: &str, written: &Written) {
    let asked = Instant::now();
    eventually("it knows no leader", 3 * LEASE, || {
        let status = get(mesh, name, "/v1/status").body;
        (status["leader"].is_null() && status["role"] != "leader").then_some(())
    });
    println!("measured: {name} names no leader after {} ms", asked.elapsed().as_millis());
    for read in ["/v1/tokens", "/v1/tokens?consistent"] {
        let Got { status, body, took } = get(mesh, name, read);
        println!("measured: {name} refuses {read} within {} ms", took.as_millis());
        assert_eq!((status.as_str(), body["code"].as_str()), ("503", Some("no_leader")), "{read}");
        assert!(took < ANSWER_MAX, "{read}: {took:?}");
    }
    let stale = get(mesh, name, "/v1/tokens?stale");
    assert_eq!(stale.status, "200", "{}", stale.body);
    assert!(written.are_in(&stale.body.to_string()), "{:?}: {}", written.notes, stale.body);
}

/// The command's exit codes: 0 done, 1 not well, 2 wrong usage, 3 nobody can.
fn the_command_without_a_majority(mesh: &Mesh, written: &mut Written) {
    let read = |flags: &[&str]| mesh.cli(&[&["tokens"], flags].concat());
    // On a busy machine its time may be over before any server says so.
    eventually("a read says that there is no leader", 3 * ANSWER_MAX, || {
        let ran = read(&["--timeout", "3s"]);
        assert_eq!(ran.code, Some(3), "{ran:?}");
        ran.stderr.contains("no_leader").then_some(())
    });
    assert_eq!(read(&["--consistent", "--timeout", "3s"]).code, Some(3));
    assert!(written.are_in(&read(&["--stale", "-o", "json"]).good().stdout));
    read(&["--fresh"]).bad(2, "--fresh");
    let before = written.notes.len();
    let ran = written.write(mesh, "3s");
    assert_eq!((ran.code, written.notes.len()), (Some(3), before), "{ran:?}");
    eventually("the mesh is not well", 3 * ANSWER_MAX, || {
        let status = mesh.cli(&["status"]);
        assert_eq!(status.code, Some(1), "{status:?}");
        let all = ["the servers have no leader", "2 of 5 voting servers answer"];
        all.iter().all(|text| status.stdout.contains(text)).then_some(())
    });
}

#[test]
fn a_full_disk_takes_one_of_three_servers_and_nothing_else() {
    let _turn = turn();
    let programs = ["mount", "nginx"].map(Needs::Program);
    if NEEDS.iter().chain(&programs).any(|need| !has(&[*need])) {
        return;
    }
    let mut mesh = Mesh::new(Net::new(&["ctl-1", "ctl-2", "ctl-3", "front", "back"]));
    // The leader's, which is the worst.
    let disk = Tmpfs::mount(&mesh.folder("ctl-1").join("data"), "8m");
    ["ctl-1", "ctl-2", "ctl-3"].iter().for_each(|name| mesh.add_server(name));
    wait_voters(&mesh, 3);
    let (front, back) = (mesh.net.host("front").clone(), mesh.net.host("back").clone());
    let _orders = nginx(&back, &mesh.folder("orders"), "orders", 8081);
    mesh.add_agent("back", "orders", "[instance.orders-1]\nservice = \"orders\"\nport = 8081\n");
    let upstream = "upstreams = [{ service = \"orders\", listen = \"127.0.0.1:9001\" }]";
    let web = format!("[instance.web-1]\nservice = \"web\"\nport = 8080\n{upstream}\n");
    mesh.add_agent("front", "web", &web);
    let policy = "[service.orders]\nprotocol = \"http\"\n\n[[allow.orders]]\nfrom = [\"web\"]\n";
    mesh.apply("mesh.toml", policy);
    eventually("web reaches orders", Duration::from_secs(20), || {
        let answer = front.run(|| mesh_tests::http::get(local(9001), "orders", "/"));
        answer.is_ok_and(|answer| answer.status == 200).then_some(())
    });
    let (load, began) = (Load::start(&front, local(9001), "/", 100, 4), Instant::now());
    assert_eq!(mesh.leader(), "ctl-1");

    let mut written = Written::default();
    disk.fill();
    let full = Instant::now();
    eventually("the full disk ends its server", Duration::from_secs(30), || {
        written.write(&mesh, "5s");
        let process = mesh.server_mut("ctl-1").process.as_mut().unwrap();
        (!process.is_alive()).then_some(())
    });
    written.resume(&mesh, full, "the leader's disk full");
    says_what_to_do(&mut mesh);
    for name in ["ctl-2", "ctl-3"] {
        assert_eq!(get(&mesh, name, "/v1/tokens?consistent").status, "200", "{name}");
    }
    mesh.cli(&["status", "--timeout", "5s"]).bad(1, "");

    // Still full: it ends again, and pretends nothing.
    mesh.server_mut("ctl-1").start();
    written.write(&mesh, "5s").good();
    says_what_to_do(&mut mesh);
    written.write(&mesh, "5s").good();

    disk.empty();
    mesh.start_server("ctl-1");
    mesh.wait_same_state();
    written.are_kept(&mesh);
    let stale = get(&mesh, "ctl-1", "/v1/tokens?stale").body.to_string();
    assert!(written.are_in(&stale), "{stale}");
    mesh.wait_synced();
    std::thread::sleep(Duration::from_secs(4).saturating_sub(began.elapsed()));
    let seen = load.stop();
    println!("measured: disk full, {} requests, slowest {:?}", seen.ok, seen.slowest);
    assert!(seen.failed.is_empty(), "{:?}", seen.failed.first());
    assert!(seen.ok > 200, "only {} requests", seen.ok);
}

/// The server of the full disk has ended, with words for whoever finds it.
fn says_what_to_do(mesh: &mut Mesh) {
    let data = mesh.server("ctl-1").dir.join("data");
    let process = mesh.server_mut("ctl-1").process.as_mut().unwrap();
    let code = process.wait(Duration::from_secs(20));
    let said = process.output();
    assert_eq!(code, Some(EXIT_DISK), "{said}");
    let last = said.lines().last().unwrap_or_default();
    for text in [path(&data), "No space left", "free some space", "start this server again"] {
        assert!(last.contains(text), "{text:?} is not in {last:?}");
    }
}
