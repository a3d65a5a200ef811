//! Rules about the tree itself: what Cargo cannot enforce.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod docs;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of a source file.
const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file below `dir` with this extension, but for build output and vendored trees.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                let skipped = ["target", ".git", "node_modules", "venv", "corpus"];
                if !skipped.contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if name.ends_with(&format!(".{extension}")) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

/// The folders of the workspace's crates.
fn members() -> Vec<String> {
    let workspace = &manifest_of(".")["workspace"];
    let members = workspace["members"].as_array().unwrap();
    members.iter().map(|member| member.as_str().unwrap().to_owned()).collect()
}

fn manifest_of(member: &str) -> toml::Table {
    fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap().parse().unwrap()
}

/// The source files of a room, with their text, tests left out.
fn sources(room: &str) -> Vec<(String, String)> {
    let dir = root().join(room);
    if !dir.exists() {
        return Vec::new();
    }
    files(&dir, "rs")
        .into_iter()
        .map(|path| (relative(&path), fs::read_to_string(path).unwrap()))
        .filter(|(name, _)| !name.contains("/tests/") && !name.ends_with("/tests.rs"))
        .collect()
}

/// Lines of `text` before its test module, without comments.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
}

/// Asserts that `word` stands in code below `room` only in files that `allowed` names.
fn only_in(room: &str, word: &str, allowed: &[&str]) {
    let offenders: Vec<_> = sources(room)
        .into_iter()
        .filter(|(name, _)| !allowed.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|(_, text)| code_lines(text).any(|line| line.contains(word)))
        .map(|(name, _)| name)
        .collect();
    assert!(offenders.is_empty(), "{word:?} may stand only in {allowed:?}, found in {offenders:?}");
}

#[test]
fn files_stay_short() {
    let long: Vec<_> = ["crates", "meshd", "agent", "cli", "tests"]
        .iter()
        .flat_map(|room| files(&root().join(room), "rs"))
        .map(|path| (relative(&path), fs::read_to_string(&path).unwrap().lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines, split by noun: {long:?}");
}

#[test]
fn the_core_is_pure() {
    for word in ["HashMap", "HashSet", "SystemTime", "Instant", "std::env", "std::fs", "async fn"] {
        only_in("crates/mesh-core/src", word, &[]);
    }
    let manifest = fs::read_to_string(root().join("crates/mesh-core/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let found: BTreeSet<_> = manifest["dependencies"].as_table().unwrap().keys().cloned().collect();
    let allowed = ["serde", "thiserror", "ipnet", "toml", "toml_edit", "regex", "strsim", "imbl"];
    let extra: Vec<_> = found.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
    assert!(extra.is_empty(), "mesh-core may not depend on {extra:?}");
}

#[test]
fn libraries_stay_in_their_rooms() {
    // as a crate: its name also stands in the default filter of the log
    only_in("meshd/src", "openraft::", &["meshd/src/raft/"]);
    only_in("meshd/src", "rcgen", &["meshd/src/ca/"]);
    only_in("crates/mesh-net/src", "rcgen", &["crates/mesh-net/src/testing.rs"]);
    only_in("agent/src", "rcgen", &[]);
    only_in("cli/src", "rcgen", &[]);
    for room in ["meshd/src", "agent/src", "cli/src"] {
        only_in(room, "reqwest", &[]);
        only_in(room, "sled", &[]);
    }
    only_in("meshd/src", "clap", &["meshd/src/args.rs", "meshd/src/main.rs"]);
    only_in("agent/src", "clap", &["agent/src/args.rs", "agent/src/main.rs"]);
    only_in(
        "cli/src",
        "clap",
        &["cli/src/args", "cli/src/main.rs", "cli/src/commands/completions"],
    );
}

#[test]
fn deployables_do_not_import_each_other() {
    only_in("meshd/src", "mesh_agent", &[]);
    only_in("meshd/src", "mesh_cli", &[]);
    only_in("agent/src", "meshd::", &[]);
    only_in("agent/src", "mesh_cli", &[]);
    for room in ["crates", "meshd", "agent", "cli"] {
        only_in(room, "mesh_tests", &[]);
    }
}

#[test]
fn the_proxy_sees_compiled_types_only() {
    let beyond = [
        "mesh_core::state",
        "mesh_core::command",
        "mesh_core::compile",
        "mesh_core::catalog",
        "mesh_core::policy",
        "crate::control",
    ];
    for word in beyond {
        only_in("agent/src/proxy", word, &[]);
    }
    for word in ["tokio", "Instant::now", "SystemTime", "rand::"] {
        only_in("agent/src/traffic", word, &[]);
    }
}

#[test]
fn a_server_dials_servers_only() {
    let peers = ["meshd/src/raft/peers.rs", "meshd/src/membership.rs"];
    only_in("meshd/src", "TcpStream::connect", &peers);
    only_in("meshd/src", "hyper::client", &["meshd/src/raft/peers.rs"]);
    // a server that joins asks one that is there
    only_in("meshd/src", "mesh_net::client", &["meshd/src/join.rs"]);
    for word in ["TcpSocket", "hyper_util::client", "std::net::TcpStream"] {
        only_in("meshd/src", word, &[]);
    }
}

#[test]
fn unsafe_code_is_forbidden() {
    let marks = [
        concat!("unsafe", " {"),
        concat!("unsafe", " fn"),
        concat!("unsafe", " impl"),
        concat!("unsafe", " extern"),
        concat!("allow(unsafe", "_code"),
        concat!("expect(unsafe", "_code"),
    ];
    let rooms = ["crates", "meshd", "agent", "cli", "tests/harness", "tests/system", "tests/tidy"];
    let found: Vec<_> = rooms
        .iter()
        .flat_map(|room| files(&root().join(room), "rs"))
        .map(|path| (relative(&path), fs::read_to_string(&path).unwrap()))
        .filter(|(_, text)| marks.iter().any(|mark| text.contains(mark)))
        .map(|(name, _)| name)
        .collect();
    assert!(found.is_empty(), "unsafe code in {found:?}");
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""));
    for member in members() {
        let lints = &manifest_of(&member)["lints"];
        let inherits = lints.get("workspace").and_then(toml::Value::as_bool) == Some(true);
        assert!(inherits || member == "crates/mesh-sys", "{member} has lints of its own");
    }
}

#[test]
fn the_kernel_room_stays_small() {
    let rooms = sources("crates/mesh-sys/src");
    let lines: usize = rooms.iter().map(|(_, text)| code_lines(text).count()).sum();
    assert!((1..=LINES_MAX).contains(&lines), "mesh-sys has {lines} lines, at most {LINES_MAX}");
}

#[test]
fn spawned_tasks_have_owners() {
    for room in ["crates/mesh-net/src", "meshd/src", "agent/src", "cli/src"] {
        // a peer's tasks are held by handles that abort them when dropped
        only_in(room, "tokio::spawn(", &["meshd/src/raft/peers.rs"]);
    }
}

/// A bound beside its use is a bound that nobody compares with the others.
#[test]
fn bounds_stand_in_files_of_limits() {
    let home = |name: &str| {
        let tests = ["testing.rs", "simulation.rs", "/sim.rs", "/samples.rs"];
        name.ends_with("/limits.rs") || tests.iter().any(|test| name.ends_with(test))
    };
    let mut offenders = Vec::new();
    for room in ["crates/mesh-net/src", "meshd/src", "agent/src", "cli/src"] {
        for (name, text) in sources(room).into_iter().filter(|(name, _)| !home(name)) {
            for line in code_lines(&text) {
                let Some((_, rest)) = line.split_once("const ") else { continue };
                let Some((constant, kind)) = rest.split_once(": ") else { continue };
                let bound = constant.ends_with("_MAX") || kind.starts_with("Duration =");
                if bound && !constant.contains(['(', ' ']) {
                    offenders.push(format!("{name}: {constant}"));
                }
            }
        }
    }
    assert!(offenders.is_empty(), "these belong into the crate's limits.rs: {offenders:#?}");
}

#[test]
fn no_stubs_or_leftovers() {
    let marks =
        ["todo!(", "unimplemented!(", concat!("FIX", "ME"), concat!("XX", "X"), "#[ignore]"];
    for room in ["crates", "meshd/src", "agent/src", "cli/src", "tests"] {
        for mark in marks {
            only_in(room, mark, &["tests/tidy/"]);
        }
    }
}

#[test]
fn banned_crates_are_not_in_the_graph() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let banned = [
        "openssl",
        "native-tls",
        "bincode",
        "serde_yaml",
        "rustls-pemfile",
        "rsa",
        "postcard",
        "atty",
    ];
    for name in banned {
        assert!(!lock.contains(&format!("name = \"{name}\"\n")), "{name} is in Cargo.lock");
    }
    for single in ["rustls", "hyper", "http", "tokio"] {
        let count = lock.matches(&format!("name = \"{single}\"\n")).count();
        assert_eq!(count, 1, "versions of {single} in Cargo.lock");
    }
}
