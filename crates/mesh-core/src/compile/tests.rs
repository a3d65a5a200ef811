//! States of endpoints; whole resources are in `tests/golden`.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;
use crate::testing::{World, agent, name, server, set_health, set_liveness};

#[test]
fn endpoints_are_as_their_node_and_checks() {
    use EndpointState as S;
    let (alive, suspect, gone) = (Liveness::Alive, Liveness::Suspect, Liveness::Gone);
    let cases = [
        (alive, Health::Passing, S::Healthy),
        (alive, Health::Critical, S::Critical),
        (alive, Health::Draining, S::Draining),
        (suspect, Health::Passing, S::Suspect),
        (suspect, Health::Critical, S::Critical),
        (suspect, Health::Draining, S::Draining),
        (gone, Health::Passing, S::Gone),
        (gone, Health::Critical, S::Gone),
        (gone, Health::Draining, S::Gone),
    ];
    for (liveness, health, want) in cases {
        let mut world = World::new();
        world.node("n-1", &["*"], 1);
        world.host("n-1", "i", "web", &[]);
        world.done(&agent("n-1"), set_health("n-1", &[("i", health)]));
        world.done(&server(), set_liveness("n-1", liveness));
        let endpoints = endpoints(&world.state, &name("web")).endpoints;
        assert_eq!(endpoints.len(), 1);
        assert_eq!(endpoints[0].state, want, "{liveness:?} {health:?}");
        assert_eq!(endpoints[0].address.to_string(), "10.0.0.1:7443", "the agent, never the app");
    }
}

#[test]
fn subsets_need_every_pair() {
    let mut world = World::new();
    world.node("n-1", &["*"], 1);
    world.policy(
        "a.toml",
        "[service.web.subset.a]\nmeta = { v = \"1\" }\n[service.web.subset.b]\nmeta = { v = \"1\", z = \"x\" }\n",
    );
    for (meta, want) in [
        (&[("v", "1")][..], &["a"][..]),
        (&[("v", "1"), ("z", "x"), ("y", "")], &["a", "b"]),
        (&[("z", "x")], &[]),
        (&[("v", "10")], &[]),
    ] {
        world.host("n-1", "i", "web", meta);
        let endpoints = endpoints(&world.state, &name("web")).endpoints;
        let got: Vec<_> = endpoints[0].subsets.iter().map(SubsetName::as_str).collect();
        assert_eq!(got, want, "{meta:?}");
    }
}
