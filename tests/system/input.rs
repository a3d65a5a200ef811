//! Input that is wrong: each a clear refusal that says what to do, and nothing changes.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use mesh_tests::cluster::Mesh;
use mesh_tests::net::{Host, Net};
use mesh_tests::process::output;
use mesh_tests::{Needs, has, within};

use crate::turn;

const NOBODY: u32 = 65_534;
const WEB: &str = "[instance.web-1]\nservice = \"web\"\nport = 8080\n";

#[test]
fn wrong_input_is_refused_and_changes_nothing() {
    let _turn = turn();
    if !has(&[Needs::Root]) || !has(&["ip", "nsenter", "setpriv", "curl"].map(Needs::Program)) {
        return;
    }
    let mut mesh = Mesh::start(Net::new(&["ctl-1", "n1", "n2", "n3", "n4"]), &["ctl-1"]);
    policy_past_the_command(&mesh);
    a_token_used_twice(&mut mesh);
    a_token_too_late(&mut mesh);
    a_token_used_by_two_at_once(&mut mesh);
    another_user_on_the_agents_socket(&mesh);
    a_port_taken_from_the_server(&mut mesh);
    a_port_taken_from_the_agent(&mut mesh);
}

/// The version of policy in force.
pub(crate) fn version(mesh: &Mesh) -> u64 {
    mesh.json(&["status"])["status"]["policy_version"].as_u64().unwrap()
}

/// The server does not rely on what the command has looked at.
fn policy_past_the_command(mesh: &Mesh) {
    let before = version(mesh);
    let bad = "[service.orders]\ntimeot = \"2s\"\n";
    let rows = [
        ("a policy that is wrong", apply_body("row.toml", bad), "400", "row.toml:2:1"),
        ("a file's name that is a path", apply_body("../row.toml", "[service.a]\n"), "400", ""),
        ("another shape", "{\"files\": 7}".to_owned(), "400", ""),
        ("no JSON", "{".to_owned(), "400", ""),
        ("deep JSON", "[".repeat(100_000), "400", ""),
        ("too much", apply_body("row.toml", &"#".repeat(12 << 20)), "4", ""),
    ];
    for (what, text, status, word) in rows {
        let (found, answer) = apply_by_api(mesh, &text);
        assert!(found.starts_with(status), "{what}: {found} {answer}");
        assert!(answer.contains(word), "{what}: {word:?} is not in {answer}");
    }
    assert_eq!(version(mesh), before, "policy changed");
}

/// Posts `text` as an apply, past the command: the status and the body of the answer.
pub(crate) fn apply_by_api(mesh: &Mesh, text: &str) -> (String, String) {
    let (body, header) = (mesh.folder("api").join("body"), mesh.folder("api").join("header"));
    let token = fs::read_to_string(mesh.admin_token()).unwrap();
    fs::write(&header, format!("authorization: Bearer {}", token.trim())).unwrap();
    fs::write(&body, text).unwrap();
    let server = mesh.server("ctl-1");
    let mut curl = server.host.command("curl");
    // Over HTTP/2 it takes an answer that does not wait for all of a body for an error.
    curl.args(["-skS", "--http1.1", "-w", " %{http_code}", "--max-time", "10", "-X", "POST"]);
    curl.args(["-H", "content-type: application/json"]);
    curl.args(["-H", &format!("@{}", header.display())]);
    curl.args(["--data-binary", &format!("@{}", body.display())]);
    curl.arg(format!("https://{}/v1/policy/apply", server.api()));
    let ran = output(curl, Duration::from_secs(20));
    let (answer, status) = ran.stdout.rsplit_once(' ').expect("a status");
    (status.to_owned(), format!("{answer}{}", ran.stderr))
}

/// The body of an apply of one file.
pub(crate) fn apply_body(name: &str, text: &str) -> String {
    serde_json::json!({
        "expected": null, "files": [[name, text]], "prune": false, "dry_run": false, "message": "",
    })
    .to_string()
}

/// Starts the agent on `host`, which must end with `said` in its log.
fn ends(mesh: &mut Mesh, host: &str, said: &[&str]) {
    let agent = mesh.agent_mut(host);
    let before = fs::read_to_string(agent.dir.join("log")).unwrap_or_default().len();
    agent.start();
    let process = agent.process.as_mut().unwrap();
    let code = process.wait(Duration::from_secs(15));
    let log = process.output().split_off(before);
    assert!(code.is_some_and(|code| code != 0), "{host} ended with {code:?}:\n{log}");
    for word in said {
        assert!(log.contains(word), "{host}: {word:?} is not in:\n{log}");
    }
    agent.process = None;
}

fn nodes(mesh: &Mesh) -> Vec<String> {
    let nodes = mesh.json(&["nodes"]);
    let names = nodes.as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap());
    names.map(str::to_owned).collect()
}

fn a_token_used_twice(mesh: &mut Mesh) {
    let token = mesh.token(&["--any-node", "--service", "web"]);
    mesh.prepare_agent("n1", &token, WEB);
    mesh.prepare_agent("n2", &token, WEB);
    mesh.agent_mut("n1").start();
    mesh.wait_ready("n1");
    ends(mesh, "n2", &["the token was used at", "mesh token create"]);
    assert_eq!(nodes(mesh), ["n1"]);
}

fn a_token_too_late(mesh: &mut Mesh) {
    let token = mesh.token(&["--node", "n2", "--service", "web", "--ttl", "1s"]);
    mesh.agent("n2").give_token(&token);
    std::thread::sleep(Duration::from_millis(1500));
    ends(mesh, "n2", &["the token expired at", "mesh token create"]);
    let other = mesh.token(&["--node", "other", "--service", "web"]);
    mesh.agent("n2").give_token(&other);
    ends(mesh, "n2", &["the token is for"]);
    mesh.agent("n2").give_token("mesh1.j.not-a-token");
    ends(mesh, "n2", &["token"]);
    assert_eq!(nodes(mesh), ["n1"]);
}

fn a_token_used_by_two_at_once(mesh: &mut Mesh) {
    let token = mesh.token(&["--any-node", "--service", "web"]);
    for host in ["n3", "n4"] {
        mesh.prepare_agent(host, &token, WEB);
    }
    for host in ["n3", "n4"] {
        mesh.agent_mut(host).start();
    }
    let ended = within(Duration::from_secs(20), || {
        ["n3", "n4"].into_iter().find(|host| {
            let process = mesh.agent_mut(host).process.as_mut();
            !process.is_some_and(|process| process.is_alive())
        })
    });
    let loser = ended.expect("one of two that used a token at once is refused");
    let winner = if loser == "n3" { "n4" } else { "n3" };
    let log = mesh.agent(loser).process.as_ref().unwrap().output();
    assert!(log.contains("the token was used at"), "{log}");
    mesh.wait_ready(winner);
    assert_eq!(nodes(mesh), ["n1", winner]);
    for host in ["n2", "n3", "n4"] {
        mesh.agent_mut(host).kill();
    }
}

fn another_user_on_the_agents_socket(mesh: &Mesh) {
    let agent = mesh.agent("n1");
    agent.local_cli(None, &["service", "list"]).good();
    agent.local_cli(Some(NOBODY), &["service", "list"]).bad(1, "run this as root or as a member");
    // Even where the file lets everybody in, the agent asks the kernel who it is.
    let socket = agent.dir.join("agent.sock");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let add = ["service", "add", "evil", "--port", "1"];
    agent.local_cli(Some(NOBODY), &add).bad(1, "expected root or a member of group mesh");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o660)).unwrap();
    let listed = agent.local_cli(None, &["service", "list"]).good().stdout;
    assert!(!listed.contains("evil"), "{listed}");
}

fn taken(host: &Host, address: SocketAddr) -> TcpListener {
    host.run(|| TcpListener::bind(address)).unwrap()
}

fn a_port_taken_from_the_server(mesh: &mut Mesh) {
    let host = mesh.net.host("ctl-1").clone();
    for (port, key) in [(7300, "api"), (7301, "raft")] {
        mesh.server_mut("ctl-1").kill();
        let address = SocketAddr::from((host.ip, port));
        let listener = taken(&host, address);
        let server = mesh.server_mut("ctl-1");
        server.start();
        let process = server.process.as_mut().unwrap();
        let code = process.wait(Duration::from_secs(15));
        let said = process.output();
        let last = said.lines().last().unwrap_or_default();
        assert_eq!(code, Some(1), "{said}");
        assert!(last.contains(&address.to_string()) && last.contains(key), "{last}");
        drop(listener);
    }
    mesh.start_server("ctl-1");
}

fn a_port_taken_from_the_agent(mesh: &mut Mesh) {
    let host = mesh.net.host("n1").clone();
    let ports = [
        ("0.0.0.0:7443", "change inbound in agent.toml"),
        ("127.0.0.1:7302", "change admin in agent.toml"),
        ("127.0.0.1:7380", "change http in agent.toml"),
    ];
    for (address, advice) in ports {
        mesh.agent_mut("n1").kill();
        let listener = taken(&host, address.parse().unwrap());
        ends(mesh, "n1", &[address, advice]);
        drop(listener);
    }
    mesh.agent_mut("n1").start();
    mesh.wait_ready("n1");
}
