#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod check;
mod errors;
mod props;

use super::*;
use crate::policy::{Mode, Origin, PathMatch, Protocol, Rule, RuleKind, Source};

/// A file with every key.
const FULL: &str = r#"[service.orders]                      # for everyone who calls orders
protocol = "http"
timeout  = "2s"
connect_timeout = "250ms"
access   = "audit"

[service.orders.subset.v1]
meta = { version = "1" }

[service.orders.subset.v2]
meta = { version = "2", "zone/a" = "x y" }

[[service.orders.route]]              # first match, top down
match = { path_prefix = "/v2", methods = ["GET", "HEAD"], header = { "x-canary" = "1" } }
to    = [{ subset = "v2", weight = 10 }, { subset = "v1", weight = 90 }]
timeout = "1m"

[[service.orders.route]]
to = [{ service = "archive" }]

[[allow.orders]]
name = "readers"
from = ["web", "batch@dc2", "node:web-7", "spiffe://td/dc/dc1/node/n1", "*"]
http = [{ methods = ["GET"], path_prefix = "/v2/" }, { path = "/health" }]

[[deny.orders]]
from = ["batch"]
http = [{ methods = ["DELETE"] }]
mode = "audit"
"#;

fn rules(file: &PolicyFile) -> Vec<&Rule> {
    file.objects
        .iter()
        .filter_map(|object| match object {
            PolicyObject::Rule(rule) => Some(rule),
            PolicyObject::Service(_) => None,
        })
        .collect()
}

/// `objects` without their places.
fn unplaced(mut objects: Vec<PolicyObject>) -> Vec<PolicyObject> {
    for object in &mut objects {
        match object {
            PolicyObject::Service(policy) => {
                policy.origin = Origin::default();
                policy.routes.iter_mut().for_each(|route| route.origin = Origin::default());
            }
            PolicyObject::Rule(rule) => rule.origin = Origin::default(),
        }
    }
    objects
}

#[test]
fn every_key_is_read() {
    let file = parse("orders.toml", FULL).unwrap();
    let ids: Vec<String> = file.objects.iter().map(PolicyObject::id).collect();
    assert_eq!(ids[..2], ["service.orders", "allow.orders/readers"]);
    assert!(ids[2].starts_with("deny.orders/h-"), "{}", ids[2]);
    let PolicyObject::Service(orders) = &file.objects[0] else { panic!("not a service") };
    assert_eq!(orders.protocol, Some(Protocol::Http));
    assert_eq!((orders.timeout_ms, orders.connect_timeout_ms), (Some(2_000), Some(250)));
    assert_eq!(orders.subsets.len(), 2);
    assert_eq!(orders.routes[0].matches.path, PathMatch::Prefix("/v2".to_owned()));
    assert_eq!(orders.routes[0].timeout_ms, Some(60_000));
    assert_eq!(orders.routes[1].to[0].weight, 1);
    let rules = rules(&file);
    assert_eq!(rules[0].from.len(), 5);
    assert_eq!(rules[0].from[4], Source::Any);
    assert_eq!((rules[1].id.kind, rules[1].mode), (RuleKind::Deny, Mode::Audit));
}

#[test]
fn origins_are_the_lines_of_headers() {
    let file = parse("orders.toml", FULL).unwrap();
    let lines: Vec<u32> = file.objects.iter().map(|object| object.origin().line).collect();
    let headers: Vec<u32> = FULL
        .lines()
        .zip(1..)
        .filter(|(line, _)| {
            ["[service.orders] ", "[[allow", "[[deny"].iter().any(|h| line.starts_with(h))
        })
        .map(|(_, number)| number)
        .collect();
    assert_eq!(lines, headers);
    let PolicyObject::Service(orders) = &file.objects[0] else { panic!("not a service") };
    assert_eq!(orders.routes[0].origin.to_string(), "orders.toml:13");
    let later =
        parse("a", "\r\n\r\n[[service.a.route]]\r\nto = [{}]\r\n\r\n[service.a]\r\n").unwrap();
    assert_eq!(later.objects[0].origin().line, 6);
}

#[test]
fn objects_print_and_parse_back() {
    let file = parse("orders.toml", FULL).unwrap();
    let text = print(&file.objects);
    let again = parse("again.toml", &text).unwrap();
    assert_eq!(unplaced(again.objects.clone()), unplaced(file.objects));
    assert_eq!(print(&again.objects), text);
    let want = r#"[service.orders]
protocol = "http"
timeout = "2s"
connect_timeout = "250ms"
access = "audit"

[service.orders.subset.v1]
meta = { version = "1" }

[service.orders.subset.v2]
meta = { version = "2", "zone/a" = "x y" }

[[service.orders.route]]
match = { methods = ["GET", "HEAD"], path_prefix = "/v2", header = { x-canary = "1" } }
to = [{ subset = "v2", weight = 10 }, { subset = "v1", weight = 90 }]
timeout = "1m"

[[service.orders.route]]
to = [{ service = "archive", weight = 1 }]

[[allow.orders]]
name = "readers"
from = ["web", "batch@dc2", "node:web-7", "spiffe://td/dc/dc1/node/n1", "*"]
http = [{ methods = ["GET"], path_prefix = "/v2/" }, { path = "/health" }]

[[deny.orders]]
from = ["batch"]
http = [{ methods = ["DELETE"] }]
mode = "audit"
"#;
    assert_eq!(text, want);
}

#[test]
fn unnamed_rules_are_named_by_content() {
    let name = |text: &str| rules(&parse("a", text).unwrap())[0].id.to_string();
    let base = "[[allow.a]]\nfrom = [\"x\", \"y\"]\nhttp = [{ methods = [\"GET\", \"PUT\"] }, { path = \"/a\" }]";
    let same = "# moved\n\n[[allow.a]]\nhttp = [{ path = \"/a\" }, { methods = [\"PUT\", \"GET\"] }]\nfrom = [\"y\", \"x\", \"y\"]";
    assert_eq!(name(base), name(same));
    assert_eq!(name(base).len(), "allow.a/h-".len() + 8);
    for other in [
        base.replace("allow", "deny"),
        base.replace("[[allow.a]]", "[[allow.b]]"),
        base.replace("\"x\"", "\"z\""),
        base.replace("GET", "POST"),
        base.replace("path =", "path_prefix ="),
        format!("{base}\nmode = \"audit\""),
    ] {
        assert_ne!(name(base), name(&other), "{other}");
    }
    // Ids stand in logs and in users' scripts: they must not change between versions.
    assert_eq!(name("[[allow.a]]\nfrom = [\"web\"]"), "allow.a/h-c76cc6ac");
    let named = parse("a", "[[allow.a]]\nname = \"r\"\nfrom = [\"web\"]").unwrap();
    let unnamed = parse("a", "[[allow.a]]\nfrom = [\"web\"]").unwrap();
    assert_eq!(content_name(rules(&named)[0]), rules(&unnamed)[0].id.name);
}

#[test]
fn other_ways_to_write_the_same_are_read() {
    let plain = "[service.a]\nprotocol = \"http\"\n[[allow.a]]\nfrom = [\"b\"]\n";
    let want = unplaced(parse("a", plain).unwrap().objects);
    for text in [
        plain.replace('\n', "\r\n"),
        "service.a.protocol = \"http\"\nallow.a = [{ from = [\"b\"] }]".to_owned(),
        "service = { a = { protocol = \"http\" } }\n[[allow.a]]\nfrom = ['b']".to_owned(),
        "[service]\na = { \"protocol\" = 'http' }\n[[\"allow\" . 'a']]\nfrom = [\n 'b', # c\n]"
            .to_owned(),
    ] {
        let file = parse("a", &text).unwrap_or_else(|errors| panic!("{text}: {}", errors[0]));
        assert_eq!(unplaced(file.objects), want, "{text}");
    }
    for empty in ["", "\n", "# nothing\n", "[service]\n", "[service.a]\n"] {
        assert!(parse("a", empty).is_ok(), "{empty:?}");
    }
}

#[test]
fn header_less_services_have_an_origin() {
    let file = parse("a", "\n[service.a.subset.v1]\nmeta = { v = \"1\" }\n").unwrap();
    assert_eq!(file.objects[0].origin().line, 2);
}
