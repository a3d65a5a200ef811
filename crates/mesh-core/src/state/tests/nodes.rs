//! Nodes, their instances, health and liveness.

use super::*;
use crate::catalog::{Health, InstanceSpec, InvalidInstance, Liveness};
use crate::command::SetNodeAddress1;

fn world() -> World {
    let mut world = World::new();
    world.node("n-1", &["web", "batch-*"], 1);
    world.node("n-2", &["*"], 2);
    world
}

fn ids(world: &World, node: &str) -> Vec<String> {
    let node = name(node);
    let on = world.state.instances_on(&node);
    on.map(|i| format!("{}:{}", i.spec.service, i.spec.id)).collect()
}

#[test]
fn s_nodescope_a_node_hosts_what_its_policy_allows() {
    let mut world = world();
    for (service, ok) in [("web", true), ("batch-7", true), ("orders", false), ("web-2", false)] {
        let outcome = world.apply(&agent("n-1"), sync("n-1", vec![spec("i", service, &[])], &[]));
        assert_eq!(matches!(outcome, Outcome::Done(_)), ok, "{service}: {outcome:?}");
        if let Outcome::Rejected(why) = outcome {
            let allowed = "web, batch-*".to_owned();
            let node = name("n-1");
            assert_eq!(why, Rejected::NodePolicy { node, service: service.to_owned(), allowed });
        }
    }
    // one bad instance refuses the whole difference
    let both = sync("n-1", vec![spec("a", "web", &[]), spec("b", "orders", &[])], &["i"]);
    rejected(world.apply(&agent("n-1"), both));
    assert_eq!(ids(&world, "n-1"), ["batch-7:i"]);
}

#[test]
fn s_nodescope_a_node_acts_for_itself_alone() {
    let mut world = world();
    let set = SetNodeAddress1 { node: name("n-2"), address: "10.9.9.9".parse().unwrap(), port: 1 };
    let kinds = [
        sync("n-2", vec![spec("i", "web", &[])], &[]),
        set_health("n-2", &[]),
        CommandKind::SetNodeAddress1(set),
        set_liveness("n-1", Liveness::Gone),
        CommandKind::SetNodePolicy1 { node: name("n-1"), policy: node_policy(&["*"]) },
    ];
    for kind in kinds {
        let why = rejected(world.apply(&agent("n-1"), kind));
        assert_eq!(why, Rejected::Forbidden { by: "node:n-1".to_owned() });
    }
}

#[test]
fn a_narrower_policy_removes_what_it_bars() {
    let mut world = world();
    world.done(
        &agent("n-1"),
        sync("n-1", vec![spec("a", "web", &[]), spec("b", "batch-1", &[])], &[]),
    );
    let policy = node_policy(&["web"]);
    world.done(&admin(), CommandKind::SetNodePolicy1 { node: name("n-1"), policy });
    assert_eq!(ids(&world, "n-1"), ["web:a"]);
    assert_eq!(world.state.services.get("batch-1").unwrap().modified, world.state.revision);
    assert_eq!(world.flaw(), None);
}

#[test]
fn sync_is_a_difference() {
    let mut world = world();
    world.host("n-1", "a", "web", &[]);
    world.host("n-1", "b", "web", &[]);
    world.host("n-2", "a", "web", &[]);
    let web = |world: &World| world.state.services.get("web").unwrap().modified;
    let before = web(&world);
    // the same again, and what is not there, changes nothing
    world.done(&agent("n-1"), sync("n-1", vec![spec("a", "web", &[])], &["zz"]));
    assert_eq!(web(&world), before);
    // a changed fact, a move to another service, a removal; the other node stays
    world.done(&agent("n-1"), sync("n-1", vec![spec("a", "batch-1", &[])], &["b"]));
    assert_eq!(ids(&world, "n-1"), ["batch-1:a"]);
    assert_eq!(ids(&world, "n-2"), ["web:a"]);
    assert_eq!(web(&world), world.state.revision);
    assert_eq!(world.state.nodes.get("n-1").unwrap().modified, world.state.revision);
    // both removed and registered: it is registered
    world.done(&agent("n-1"), sync("n-1", vec![spec("a", "web", &[])], &["a"]));
    assert_eq!(ids(&world, "n-1"), ["web:a"]);
    assert_eq!(world.flaw(), None);
}

#[test]
fn instances_keep_their_bounds() {
    let mut world = world();
    let no_port = InstanceSpec { port: 0, ..spec("i", "web", &[]) };
    let why = rejected(world.apply(&agent("n-1"), sync("n-1", vec![no_port], &[])));
    assert_eq!(why, Rejected::Instance(InvalidInstance::Port(name("i"))));
    let twice = vec![spec("i", "web", &[]), spec("i", "batch-1", &[])];
    let why = rejected(world.apply(&agent("n-1"), sync("n-1", twice, &[])));
    assert_eq!(why, exists("instance", "i"));
    let long = "x".repeat(513);
    let why = rejected(
        world.apply(&agent("n-1"), sync("n-1", vec![spec("i", "web", &[("k", &long)])], &[])),
    );
    assert!(
        matches!(why, Rejected::Instance(InvalidInstance::TooLarge { found: 513, .. })),
        "{why}"
    );
    let many = |n: usize| (0..n).map(|i| spec(&format!("i{i}"), "web", &[])).collect();
    let why = rejected(world.apply(&agent("n-1"), sync("n-1", many(1025), &[])));
    assert!(matches!(why, Rejected::TooMany { found: 1025, max: 1024, .. }), "{why}");
    world.done(&agent("n-1"), sync("n-1", many(1024), &[]));
}

#[test]
fn health_changes_known_instances() {
    let mut world = world();
    world.host("n-1", "a", "web", &[("v", "1")]);
    world.done(
        &agent("n-1"),
        set_health("n-1", &[("a", Health::Critical), ("zz", Health::Critical)]),
    );
    let node = name("n-1");
    let instance = world.state.instances_on(&node).next().unwrap();
    assert_eq!((instance.spec.health, instance.spec.meta.len()), (Health::Critical, 1));
    assert_eq!(instance.modified, world.state.revision);
    let changed = world.state.services.get("web").unwrap().modified;
    world.done(&server(), set_health("n-1", &[("a", Health::Critical)]));
    assert_eq!(world.state.services.get("web").unwrap().modified, changed, "nothing new");
    let why = rejected(world.apply(&agent("n-9"), set_health("n-9", &[])));
    assert_eq!(why, not_found("node", "n-9"));
    let mut change = health(Health::Passing);
    change.checks.insert(
        "long".to_owned(),
        crate::catalog::CheckStatus { passing: true, output: "x".repeat(257) },
    );
    let changes = [(name("a"), change)].into();
    let set = crate::command::SetHealth1 { node: name("n-1"), changes };
    let why = rejected(world.apply(&agent("n-1"), CommandKind::SetHealth1(set)));
    assert!(matches!(why, Rejected::Instance(_)), "{why}");
}

#[test]
fn liveness_marks_the_services_of_the_node() {
    let mut world = world();
    world.host("n-1", "a", "web", &[]);
    world.host("n-2", "b", "orders", &[]);
    let orders = world.state.services.get("orders").unwrap().modified;
    world.done(&server(), set_liveness("n-1", Liveness::Gone));
    assert_eq!(world.state.services.get("web").unwrap().modified, world.state.revision);
    assert_eq!(world.state.services.get("orders").unwrap().modified, orders);
    let gone = world.state.revision;
    world.done(&server(), set_liveness("n-1", Liveness::Gone));
    assert_eq!(world.state.services.get("web").unwrap().modified, gone, "nothing new");
    world.done(&server(), set_liveness("n-9", Liveness::Gone));
    assert!(!world.state.nodes.contains_key("n-9"));
    let seen = |at: u64| {
        let seen = [(name("n-1"), UnixMillis(at))].into();
        CommandKind::SetLiveness1(crate::command::SetLiveness1 { nodes: [].into(), seen })
    };
    world.done(&server(), seen(START.0 + 20_000));
    world.done(&server(), seen(START.0 + 10_000));
    assert_eq!(world.state.nodes.get("n-1").unwrap().last_seen, START.plus(20_000));
}

#[test]
fn addresses_change_endpoints() {
    let mut world = world();
    world.host("n-1", "a", "web", &[]);
    let set = |port| {
        let (node, address) = (name("n-1"), "10.0.0.77".parse().unwrap());
        CommandKind::SetNodeAddress1(SetNodeAddress1 { node, address, port })
    };
    world.done(&agent("n-1"), set(7443));
    let changed = world.state.revision;
    assert_eq!(world.state.services.get("web").unwrap().modified, changed);
    world.done(&agent("n-1"), set(7443));
    assert_eq!(world.state.services.get("web").unwrap().modified, changed, "nothing new");
}

#[test]
fn a_removed_node_leaves_nothing_but_its_denied_key() {
    let mut world = world();
    world.host("n-1", "a", "web", &[]);
    world.done(&admin(), CommandKind::RemoveNode1(name("n-1")));
    assert!(world.state.instances(&name("web")).next().is_none());
    assert_eq!(world.state.services.get("web").unwrap().modified, world.state.revision);
    assert!(world.state.revoked.iter().any(|denied| denied.what == Revoked::Key(key(1))));
    assert_eq!(world.state.trust_modified, world.state.revision);
    let why = rejected(world.apply(&admin(), CommandKind::RemoveNode1(name("n-1"))));
    assert_eq!(why, not_found("node", "n-1"));
}
