//! Rules about the pages: what they name exists, what they show is read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use mesh_core::{hostfile, policy};

use crate::{files, manifest_of, members, relative, root};

/// README.md, ARCHITECTURE.md, CONTRIBUTING.md and the pages of docs/, with their text.
fn pages() -> Vec<(String, String)> {
    let top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root().join(name));
    let pages = top.into_iter().chain(files(&root().join("docs"), "md"));
    pages.map(|path| (relative(&path), fs::read_to_string(path).unwrap())).collect()
}

/// What stands between single backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The indented blocks of a page, without their indent.
fn blocks(page: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in page.lines() {
        match line.strip_prefix("    ") {
            Some(line) => *blocks.last_mut().unwrap() += &format!("{line}\n"),
            None if line.is_empty() => *blocks.last_mut().unwrap() += "\n",
            None => blocks.push(String::new()),
        }
    }
    blocks
}

#[test]
fn every_dependency_has_its_line_and_its_users() {
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    let manifests: Vec<toml::Table> = members().iter().map(|member| manifest_of(member)).collect();
    let users = |table: &str, dependency: &str| {
        let users = manifests.iter().filter(|crate_| {
            crate_.get(table).is_some_and(|table| table.get(dependency).is_some())
        });
        let names = users.map(|crate_| crate_["package"]["name"].as_str().unwrap());
        names.map(short).collect::<BTreeSet<_>>()
    };
    for dependency in manifest_of(".")["workspace"]["dependencies"].as_table().unwrap().keys() {
        if dependency.starts_with("mesh") {
            continue;
        }
        let plain = users("dependencies", dependency);
        let tests: BTreeSet<_> = &users("dev-dependencies", dependency) - &plain;
        assert!(plain.len() + tests.len() > 0, "nobody uses {dependency}");
        let named = [("", &plain), ("tests of ", &tests)].map(|(prefix, names)| {
            names.iter().map(|name| format!("{prefix}{name}")).collect::<Vec<_>>()
        });
        expected.insert(dependency.clone(), named.concat().join(", "));
    }

    let page = fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let found: BTreeMap<String, String> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            (cells[1].trim_matches('`').to_owned(), in_order(cells[2]))
        })
        .collect();
    assert_eq!(found, expected, "docs/dependencies.md, used by");
}

/// A crate as the pages call it.
fn short(name: &str) -> &str {
    match name {
        "mesh-agent" => "agent",
        "mesh-cli" => "cli",
        "mesh-tests" => "tests",
        name => name,
    }
}

/// `b, a; tests of d, c` as `a, b, tests of c, tests of d`.
fn in_order(cell: &str) -> String {
    let mut all: Vec<Vec<String>> = vec![Vec::new(), Vec::new()];
    for part in cell.split("; ") {
        let (at, prefix, names) = match part.strip_prefix("tests of ") {
            Some(names) => (1, "tests of ", names),
            None => (0, "", part),
        };
        all[at].extend(names.split(", ").map(|name| format!("{prefix}{name}")));
    }
    all.iter_mut().for_each(|names| names.sort());
    all.concat().join(", ")
}

#[test]
fn what_architecture_names_exists() {
    let rooms = ["crates", "meshd", "agent", "cli", "tests"];
    let sources = rooms.iter().flat_map(|room| files(&root().join(room), "rs"));
    let sources: Vec<(String, String)> =
        sources.map(|path| (relative(&path), fs::read_to_string(path).unwrap())).collect();
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();

    let paths = spans(&page).filter(|span| span.ends_with(".rs") && !span.contains(' '));
    let absent: Vec<_> = paths
        .filter(|path| {
            let end = format!("/{path}");
            !sources.iter().any(|(name, _)| name == path || name.ends_with(&end))
        })
        .collect();
    assert!(absent.is_empty(), "ARCHITECTURE.md names files that are not there: {absent:?}");

    let table = page.split("\n## ").find(|part| part.starts_with("Invariants")).unwrap();
    let named: Vec<&str> = spans(table).filter_map(function).collect();
    assert!(named.len() > 30, "only {} functions are named: {named:?}", named.len());
    let absent: Vec<_> = named.into_iter().filter(|name| !is_there(&sources, name)).collect();
    assert!(absent.is_empty(), "ARCHITECTURE.md names functions that are not there: {absent:?}");
}

/// The function a span names: `Outcome::revision`, `a_test_of_many_words` or `s_area_*`.
fn function(span: &str) -> Option<&str> {
    let name = span.rsplit("::").next().unwrap_or(span);
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let family = name.strip_suffix('*').is_some();
    let named = span.contains("::") || name.contains('_');
    (named && (plain || family)).then_some(name)
}

fn is_there(sources: &[(String, String)], name: &str) -> bool {
    let needle = match name.strip_suffix('*') {
        Some(start) => format!("fn {start}"),
        None => format!("fn {name}("),
    };
    sources.iter().any(|(_, text)| text.contains(&needle))
}

#[test]
fn examples_of_files_are_read() {
    let (mut policies, mut hosts) = (0, 0);
    for (name, page) in pages() {
        for block in blocks(&page) {
            let has = |starts: &[&str]| {
                block.lines().any(|line| starts.iter().any(|start| line.starts_with(start)))
            };
            if has(&["[service.", "[[allow.", "[[deny."]) {
                let read = policy::text::parse(&name, &block);
                assert!(read.is_ok(), "{name}: {block}\n{:?}", read.err());
                policies += 1;
            }
            if has(&["[instance."]) {
                let read = hostfile::parse(&name, &block);
                assert!(read.is_ok(), "{name}: {block}\n{:?}", read.err());
                hosts += 1;
            }
        }
    }
    assert!(policies >= 2 && hosts >= 2, "{policies} of policy, {hosts} of hosts");
}
