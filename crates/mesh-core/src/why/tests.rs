//! The answers for a small mesh.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;
use crate::catalog::{Health, Liveness};
use crate::testing::{World, admin, agent, name, revoke, server, set_health, set_liveness};

const ORDERS: &str = r#"[service.orders]
protocol = "http"

[service.orders.subset.v1]
meta = { version = "1" }

[service.orders.subset.v2]
meta = { version = "2" }

[[service.orders.route]]
match = { path_prefix = "/v2" }
to = [{ subset = "v2" }]

[[allow.orders]]
name = "readers"
from = ["web"]
http = [{ methods = ["GET"], path_prefix = "/v2/" }, { methods = ["GET"], path = "/" }]

[[allow.orders]]
name = "trial"
from = ["batch"]
mode = "audit"

[[deny.orders]]
name = "no-admin"
from = ["*"]
http = [{ path_prefix = "/admin" }]

[[allow.db]]
name = "all"
from = ["*"]
"#;

fn world() -> World {
    let mut world = World::new();
    for (node, with) in [("n-1", 1), ("n-2", 2), ("n-3", 3)] {
        world.node(node, &["*"], with);
    }
    world.host("n-1", "web-1", "web", &[]);
    world.host("n-1", "orders-1", "orders", &[("version", "1")]);
    world.host("n-2", "orders-2", "orders", &[("version", "2")]);
    world.host("n-3", "db-1", "db", &[]);
    world.policy("orders.toml", ORDERS);
    world
}

fn asked(from: &str, to: &str, http: Option<(&str, &str)>) -> WhyQuery {
    let http = http.map(|(method, path)| WhyHttp {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: vec![("X-Any".to_owned(), "1".to_owned())],
    });
    WhyQuery { from: WhyCaller::Service(name(from)), to: name(to), http }
}

fn ask(world: &World, from: &str, to: &str, http: Option<(&str, &str)>) -> WhyAnswer {
    why(&world.state, &asked(from, to, http)).unwrap()
}

fn losers(answer: &WhyAnswer) -> Vec<(String, &str)> {
    let losers = answer.backends.iter().flat_map(|backend| &backend.losers);
    losers.map(|loser| (loser.rule.id.to_string(), loser.why.as_str())).collect()
}

fn reason(answer: &WhyAnswer) -> String {
    answer.backends[0].decision.reason.id()
}

#[test]
fn an_allowed_call_names_rule_file_and_line() {
    let answer = ask(&world(), "web", "orders", Some(("GET", "/v2/x")));
    assert!(answer.allowed);
    let access::Reason::Rule(rule) = &answer.backends[0].decision.reason else {
        panic!("{answer:?}");
    };
    assert_eq!(rule.to_string(), "allow.orders/readers orders.toml:14@v1");
    assert_eq!(answer.route.id, "service.orders/route[0]");
    assert_eq!(answer.route.origin.as_ref().unwrap().to_string(), "orders.toml:10");
    assert_eq!(answer.caller.to_string(), "spiffe://td.mesh.internal/ns/default/dc/dc1/svc/web");
    assert!(answer.notes.is_empty(), "{:?}", answer.notes);
    assert_eq!(
        losers(&answer),
        [
            ("deny.orders/no-admin".to_owned(), "the caller is, the request is not in http"),
            ("allow.orders/trial".to_owned(), "the caller is not in from = [batch]"),
        ]
    );
}

#[test]
fn a_denied_call_says_what_would_have_allowed_it() {
    let world = world();
    let answer = ask(&world, "batch", "orders", Some(("GET", "/v2/x")));
    assert!(!answer.allowed);
    assert_eq!(reason(&answer), "default");
    let audited = &answer.backends[0].decision.audited;
    assert_eq!(audited.len(), 1);
    let trial =
        ("allow.orders/trial".to_owned(), "it matches, but mode = \"audit\" grants nothing");
    assert!(losers(&answer).contains(&trial), "{:?}", losers(&answer));
    assert_eq!(answer.notes, ["no instance of batch is registered"]);
    let post = ask(&world, "web", "orders", Some(("POST", "/v2/x")));
    assert_eq!((post.allowed, reason(&post).as_str()), (false, "default"));
    let admin = ask(&world, "web", "orders", Some(("GET", "/admin/x")));
    assert_eq!((admin.allowed, reason(&admin).as_str()), (false, "deny.orders/no-admin"));
}

#[test]
fn the_path_is_judged_as_it_is_forwarded() {
    let world = world();
    let cases = [
        ("/v2/x", "/v2/x", "allow.orders/readers"),
        ("/v2//a/./%78", "/v2/a/x", "allow.orders/readers"),
        ("/v2/../admin", "/admin", "deny.orders/no-admin"),
        ("/%61dmin", "/admin", "deny.orders/no-admin"),
        ("/v2/../v20", "/v20", "default"),
    ];
    for (before, after, want) in cases {
        let answer = ask(&world, "web", "orders", Some(("GET", before)));
        assert_eq!(answer.path_before.as_deref(), Some(before));
        assert_eq!(answer.path_after.as_deref(), Some(after));
        assert_eq!(reason(&answer), want, "{before}");
    }
    for bad in ["/../x", "/a%2fb", "/a;b", "x", "/a?b"] {
        let error = why(&world.state, &asked("web", "orders", Some(("GET", bad)))).unwrap_err();
        assert!(error.to_string().starts_with("the request would be refused with 400: "), "{bad}");
    }
}

#[test]
fn a_service_nobody_knows_is_denied_and_noted() {
    let answer = ask(&world(), "web", "nowhere", None);
    assert!(!answer.allowed);
    assert_eq!((reason(&answer).as_str(), answer.protocol), ("default", None));
    assert_eq!(answer.route.id, "service.nowhere/default");
    assert_eq!(answer.notes, ["no instance of nowhere is registered"]);
    let early = why(&MeshState::default(), &asked("web", "orders", None));
    assert_eq!(early, Err(WhyError::NotInitialised));
}

#[test]
fn opaque_services_do_not_tell_requests_apart() {
    let world = world();
    let answer = ask(&world, "web", "db", Some(("GET", "/a/../b")));
    assert!(answer.allowed);
    assert_eq!((answer.path_before, answer.path_after), (None, None));
    assert!(answer.notes[0].starts_with("db declares no HTTP protocol"), "{:?}", answer.notes);
    // an HTTP service asked about without a request: no HTTP allow grants, an HTTP deny refuses
    let answer = ask(&world, "web", "orders", None);
    assert_eq!((answer.allowed, reason(&answer).as_str()), (false, "deny.orders/no-admin"));
    assert!(answer.notes[0].starts_with("orders speaks HTTP"), "{:?}", answer.notes);
    let readers = "it has http matches and the connection is opaque";
    assert!(losers(&answer).contains(&("allow.orders/readers".to_owned(), readers)));
}

#[test]
fn endpoints_that_are_out_say_why() {
    let mut world = world();
    world.host("n-3", "orders-3", "orders", &[("version", "2")]);
    world.done(&agent("n-2"), set_health("n-2", &[("orders-2", Health::Critical)]));
    let of = |world: &World| {
        let answer = ask(world, "web", "orders", Some(("GET", "/v2/x")));
        let endpoints = answer.backends[0].endpoints.iter();
        let said: Vec<_> =
            endpoints.map(|e| (e.endpoint.instance.to_string(), e.usable, e.why.clone())).collect();
        (answer.allowed, said)
    };
    let said = |instance: &str, usable, why: &str| (instance.to_owned(), usable, why.to_owned());
    let subset = said("orders-1", false, "not in subset v2: its meta does not match");
    let critical = said("orders-2", false, "critical: a check fails or has not passed yet");
    let (allowed, endpoints) = of(&world);
    assert!(allowed);
    assert_eq!(endpoints, [subset.clone(), critical.clone(), said("orders-3", true, "healthy")]);
    world.done(&server(), set_liveness("n-3", Liveness::Gone));
    let (allowed, endpoints) = of(&world);
    assert!(!allowed, "a rule allows it, but nobody is there");
    assert_eq!(
        endpoints,
        [subset, critical, said("orders-3", false, "gone: its node's lease expired")]
    );
}

#[test]
fn every_backend_with_a_share_must_take_the_call() {
    let mut world = world();
    let split = |weight: u32| {
        let to = format!(
            "to = [{{ service = \"orders\" }}, {{ service = \"shop\", weight = {weight} }}]"
        );
        let shop = "[service.shop]\nprotocol = \"http\"\n";
        ORDERS.replace("to = [{ subset = \"v2\" }]", &to) + shop
    };
    for (weight, allowed) in [(1, false), (0, true)] {
        world.policy("orders.toml", &split(weight));
        let answer = ask(&world, "web", "orders", Some(("GET", "/v2/x")));
        assert_eq!(answer.allowed, allowed, "shop has no rule and weight {weight}");
        let verdicts: Vec<_> = answer.backends.iter().map(|b| b.decision.allowed).collect();
        assert_eq!(verdicts, [true, false]);
    }
}

#[test]
fn a_denied_identity_is_refused_before_any_rule() {
    let mut world = world();
    let web: SpiffeId = name("spiffe://td.mesh.internal/ns/default/dc/dc1/svc/web");
    world.done(&admin(), revoke(Revoked::Identity(web.clone())));
    let answer = ask(&world, "web", "orders", Some(("GET", "/v2/x")));
    assert!(!answer.allowed);
    assert_eq!(answer.notes, [format!("{web} is on the deny list: its connections are refused")]);
    assert!(ask(&world, "orders", "db", None).allowed);
}

#[test]
fn callers_of_any_kind_can_be_asked_about() {
    let world = world();
    let node = WhyQuery { from: WhyCaller::Node(name("n-1")), ..asked("web", "db", None) };
    assert!(why(&world.state, &node).unwrap().allowed);
    let server = name("spiffe://td.mesh.internal/dc/dc1/server/ctl-1");
    let server = WhyQuery { from: WhyCaller::Spiffe(server), ..asked("web", "db", None) };
    assert!(!why(&world.state, &server).unwrap().allowed, "no server calls a service");
}
