//! Files and names that are wrong, by the commands, the API and a host's folder: each is refused
//! with its place, what was found and what is expected, and nothing of it is in force.

use std::fs;
use std::path::Path;
use std::time::Duration;

use mesh_tests::cluster::{Mesh, path};
use mesh_tests::net::Net;
use mesh_tests::{Needs, eventually, has};
use serde_json::Value;

use crate::input::{apply_body, apply_by_api, version};
use crate::turn;
use crate::wrong_text::{self, Row};

const POLICY: &str = "[service.orders]\nprotocol = \"http\"\n";

fn mesh(hosts: &[&str]) -> Option<Mesh> {
    if !has(&[Needs::Root]) || !has(&["ip", "nsenter", "curl"].map(Needs::Program)) {
        return None;
    }
    let mesh = Mesh::start(Net::new(hosts), &["ctl-1"]);
    mesh.apply("mesh.toml", POLICY);
    Some(mesh)
}

/// What of `row` is not in `said`, which is about the file `name`.
fn unsaid<'r>(row: &'r Row, name: &str, said: &str) -> Vec<&'r str> {
    let placed = said.contains(&format!("{name}:{}", row.place));
    let words = row.words.iter().copied().filter(|word| !said.contains(word));
    words.chain((!placed).then_some(row.place)).collect()
}

#[test]
fn a_wrong_policy_is_refused_by_lint_apply_and_the_api() {
    let _turn = turn();
    let Some(mesh) = mesh(&["ctl-1"]) else { return };
    let before = version(&mesh);
    let file = mesh.folder("texts").join("row.toml");
    let mut rows = wrong_text::toml("[service.orders]", "protocol", "http");
    rows.extend(wrong_text::policy());
    let mut wrong = Vec::new();
    for row in &rows {
        fs::write(&file, &row.text).unwrap();
        for command in ["lint", "apply"] {
            let ran = mesh.cli(&[command, path(&file)]);
            // To look is the purpose of `lint`: what it finds is its output.
            let said = if command == "lint" { &ran.stdout } else { &ran.stderr };
            let unsaid = unsaid(row, path(&file), said);
            if ran.code != Some(1) || !unsaid.is_empty() {
                wrong.push(format!("{}, {command}: {unsaid:?} is not in {ran:?}", row.what));
            }
        }
        wrong.extend(wrong_by_api(&mesh, row));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    several_faults_at_once(&mesh, &file);
    windows_line_ends_are_fine(&mesh, &file);
    assert_eq!(version(&mesh), before + 1, "one apply was good");
    println!("measured: {} wrong policies, each by lint, apply and the API", rows.len());
}

/// What the API says wrongly of `row`. What is no UTF-8 is no JSON either.
fn wrong_by_api(mesh: &Mesh, row: &Row) -> Option<String> {
    let text = std::str::from_utf8(&row.text).ok()?;
    let (status, answer) = apply_by_api(mesh, &apply_body("row.toml", text));
    if row.text.len() > 1 << 20 {
        // Too large for a request at all.
        return (status != "413").then(|| format!("{}, API: {status} {answer}", row.what));
    }
    let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
    let unsaid = unsaid(row, "row.toml", answer["message"].as_str().unwrap_or_default());
    let good = status == "400" && unsaid.is_empty();
    (!good).then(|| format!("{}, API: {unsaid:?} is not in {status} {answer}", row.what))
}

fn several_faults_at_once(mesh: &Mesh, file: &Path) {
    fs::write(file, "[service.Orders]\nprotocol = \"http\"\n[[alow.cache]]\n").unwrap();
    let both = mesh.cli(&["apply", path(file)]);
    both.bad(1, "row.toml:1:10").bad(1, "row.toml:3:3").bad(1, "nothing was changed");
}

fn windows_line_ends_are_fine(mesh: &Mesh, file: &Path) {
    fs::write(file, "[service.cache]\r\n# \u{e9}\r\nprotocol = \"tcp\"\r\n").unwrap();
    mesh.cli(&["lint", path(file)]).good();
    mesh.cli(&["apply", path(file)]).good();
    let shown = mesh.cli(&["get", "service.cache"]).good().stdout;
    assert!(shown.contains("protocol = \"tcp\"") && !shown.contains('\r'), "{shown:?}");
}

/// Names that are none, and what is said of each.
const NO_NAMES: &[(&str, &str)] = &[
    ("Orders", "'O' at byte 0"),
    ("or_ders", "'_' at byte 2"),
    ("orders.db", "'.' at byte 6"),
    ("../orders", "'.' at byte 0"),
    ("or/ders", "'/' at byte 2"),
    ("or ders", "' ' at byte 2"),
    ("-orders", "'-' at byte 0"),
    ("orders-", "'-' at byte 6"),
    // Letters of Cyrillic and of full width, a joiner that shows nothing, one that folds to k.
    ("\u{43e}rders", "(U+043E) at byte 0"),
    ("\u{ff4f}rders", "(U+FF4F) at byte 0"),
    ("or\u{200d}ders", "(U+200D) at byte 2"),
    ("\u{212a}eys", "(U+212A) at byte 0"),
    ("\u{f6}rders", "(U+00F6) at byte 0"),
    ("", "has 0 bytes, expected 1 to 63"),
    ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "has 65 bytes"),
    ("orders\n", "'\\n' at byte 6"),
    ("or\0ders", "'\\0' at byte 2"),
];

/// Names of the mesh's own parts, that no service may have.
const RESERVED: &[&str] = &["meshd", "mesh-agent", "mesh", "admin", "localhost"];

/// Where names stand in files: the text around one, its place, and whether it is a service's.
const PLACES: &[(&str, &str, bool)] = &[
    ("[service.NAME]\nprotocol = \"http\"\n", "1:10", true),
    ("[[allow.NAME]]\nfrom = [\"web\"]\n", "1:9", true),
    ("[[deny.orders]]\nfrom = [NAME]\n", "2:9", true),
    ("[[allow.orders]]\nname = NAME\nfrom = [\"web\"]\n", "2:8", false),
    (
        "[service.a]\nprotocol = \"http\"\n[service.a.subset.NAME]\nmeta = { v = \"1\" }\n",
        "3:19",
        false,
    ),
    ("[[service.a.route]]\nto = [{ service = NAME }]\n", "2:19", true),
    ("[instance.NAME]\nservice = \"web\"\nport = 1\n", "1:11", false),
    ("[instance.a]\nservice = NAME\nport = 1\n", "2:11", true),
    ("[instance.a]\nservice = \"web\"\nport = 1\nupstreams = [NAME]\n", "4:14", true),
];

#[test]
fn a_wrong_name_is_refused_wherever_it_is_given() {
    let _turn = turn();
    let Some(mut mesh) = mesh(&["ctl-1", "n1"]) else { return };
    mesh.add_agent("n1", "*", "");
    let before = (version(&mesh), mesh.json(&["get", "tokens"]));
    let folder = mesh.folder("names");
    let mut wrong = Vec::new();
    let reserved = RESERVED.iter().map(|name| (*name, "is reserved, expected another", true));
    let names: Vec<_> = NO_NAMES.iter().map(|(name, say)| (*name, *say, false)).collect();
    let names: Vec<_> = names.into_iter().chain(reserved).collect();
    for (name, say, reserved) in &names {
        let quoted = serde_json::to_string(name).unwrap();
        for (at, (text, _, _)) in PLACES.iter().enumerate() {
            fs::write(folder.join(format!("{at}.toml")), text.replace("NAME", &quoted)).unwrap();
        }
        let ran = mesh.cli(&["lint", path(&folder)]);
        assert_eq!(ran.code, Some(1), "{name:?}: {ran:?}");
        for (at, (text, place, service)) in PLACES.iter().enumerate() {
            let place = format!("{}/{at}.toml:{place}: ", folder.display());
            let said = ran.stdout.lines().any(|l| l.starts_with(&place) && l.contains(say));
            if said != (*service || !reserved) {
                wrong.push(format!("{name:?} in {text:?}: {place} {say}: {}", ran.stdout));
            }
        }
        wrong.extend(wrong_by_commands(&mesh, name, say, *reserved));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((version(&mesh), mesh.json(&["get", "tokens"])), before, "something changed");
    println!("measured: {} names in {} places each", names.len(), PLACES.len() + 7);
}

/// Commands that take a name, with what they do wrong given `name`.
fn wrong_by_commands(mesh: &Mesh, name: &str, say: &str, reserved: bool) -> Vec<String> {
    let agent = mesh.agent("n1");
    // No command line holds NUL, and what begins with a hyphen is an option.
    if name.contains('\0') || name.starts_with('-') {
        return Vec::new();
    }
    let services: [&[&str]; 3] = [
        &["get", "service", name],
        &["service", "show", name],
        &["why", name, "orders", "GET", "/"],
    ];
    let nodes: [&[&str]; 3] = [
        &["get", "node", name],
        &["token", "create", "--node", name, "--service", "web"],
        &["node", "policy", name, "--service", "web"],
    ];
    let asked = services.iter().chain(nodes.iter().filter(|_| !reserved));
    let mut ran: Vec<_> = asked.map(|args| (args.join(" "), mesh.cli(args))).collect();
    let add = ["service", "add", name, "--port", "1"];
    ran.push((add.join(" "), agent.local_cli(None, &add)));
    let expected = if reserved { "" } else { "expected" };
    let good = |text: &str| text.contains(say) && text.contains(expected);
    ran.retain(|(_, ran)| ran.code != Some(2) || !good(&ran.stderr));
    ran.into_iter().map(|(args, ran)| format!("mesh {args:?}: {say}: {ran:?}")).collect()
}

const WEB_2: &str = "[instance.web-2]\nservice = \"web\"\nport = 8082\n";

#[test]
fn a_wrong_host_file_leaves_what_was_good_in_force() {
    let _turn = turn();
    let Some(mut mesh) = mesh(&["ctl-1", "n1"]) else { return };
    mesh.add_agent("n1", "web", "[instance.web-1]\nservice = \"web\"\nport = 8081\n");
    let folder = mesh.agent("n1").dir.join("services.d");
    let (web, other) = (folder.join("web.toml"), folder.join("zz.toml"));
    fs::write(&web, WEB_2).unwrap();
    registered(&mesh, &[("web-1", 8081), ("web-2", 8082)]);
    let mut rows = wrong_text::toml("[instance.web-2]", "service", "web");
    rows.extend(wrong_text::host());
    let mut port = 8100;
    for row in &rows {
        fs::write(&web, &row.text).unwrap();
        let lint = mesh.cli(&["lint", path(&web)]);
        let good = lint.code == Some(1) && unsaid(row, path(&web), &lint.stdout).is_empty();
        assert!(good, "{}: {lint:?}", row.what);
        // A good file beside it, so that the wrong one is known to have been read.
        port += 1;
        fs::write(&other, format!("[instance.web-3]\nservice = \"web\"\nport = {port}\n")).unwrap();
        let listed = eventually("the other file loads", Duration::from_secs(10), || {
            let ran = mesh.agent("n1").local_cli(None, &["service", "list"]).good();
            ran.stdout.contains(&format!(":{port}")).then_some(ran.stdout)
        });
        assert_eq!(unsaid(row, path(&web), &listed), [""; 0], "{}: {listed}", row.what);
        assert!(listed.contains("127.0.0.1:8082"), "{}: web-2 is gone: {listed}", row.what);
        let log = mesh.agent("n1").process.as_ref().unwrap().output();
        let place = format!("{}:{}", web.display(), row.place);
        assert!(log.contains(&place), "{}: {place} is not in the log", row.what);
    }
    registered(&mesh, &[("web-1", 8081), ("web-2", 8082), ("web-3", port)]);
    status_tells_of(&mesh, &format!("{}:4:", web.display()));
    // Mended, with the line ends of Windows.
    fs::write(&web, WEB_2.replace("8082", "8083").replace('\n', "\r\n")).unwrap();
    registered(&mesh, &[("web-1", 8081), ("web-2", 8083), ("web-3", port)]);
    mesh.wait_synced();
    // A wrong file that goes takes what it had declared with it.
    fs::write(&web, "[instance").unwrap();
    status_tells_of(&mesh, &format!("{}:1:", web.display()));
    fs::remove_file(&web).unwrap();
    registered(&mesh, &[("web-1", 8081), ("web-3", port)]);
    mesh.wait_synced();
    println!("measured: {} wrong host files on a running agent", rows.len());
}

/// Waits until the servers know these instances of n1, by name and port, and no others.
fn registered(mesh: &Mesh, want: &[(&str, u64)]) {
    eventually(&format!("{want:?} is registered"), Duration::from_secs(10), || {
        let node = mesh.json(&["node", "show", "n1"]);
        let all = node["instances"].as_array()?.iter().map(|instance| &instance["spec"]);
        let found: Vec<_> =
            all.map(|spec| Some((spec["id"].as_str()?, spec["port"].as_u64()?))).collect();
        (found == want.iter().map(|one| Some(*one)).collect::<Vec<_>>()).then_some(())
    });
}

/// Waits until `mesh status` ends with 1 and names n1 and the place.
fn status_tells_of(mesh: &Mesh, place: &str) {
    eventually(&format!("the status tells of {place}"), Duration::from_secs(15), || {
        let ran = mesh.cli(&["status"]);
        let told = ran.stdout.lines().any(|line| line.contains("n1: ") && line.contains(place));
        (ran.code == Some(1) && told).then_some(())
    });
}
