//! Applies of policy.

use super::*;
use crate::command::ApplyPolicy1;

const WEB: &str = "[service.web]\nprotocol = \"http\"\n";
const READERS: &str = "[[allow.orders]]\nname = \"readers\"\nfrom = [\"web\"]\n";

fn version(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Policy { version, .. } => version,
        other => panic!("{other:?}"),
    }
}

fn put(world: &mut World, name: &str, toml: &str) -> u64 {
    version(world.apply(&admin(), files(vec![file(name, toml)], &[])))
}

#[test]
fn applies_that_change_something_are_versions() {
    let mut world = World::new();
    assert_eq!(put(&mut world, "a.toml", WEB), 1);
    let modified = world.state.policy.services.get("web").unwrap().modified;
    assert_eq!(put(&mut world, "a.toml", WEB), 1, "the same text");
    assert_eq!(put(&mut world, "b.toml", READERS), 2);
    assert_eq!(world.state.policy.services.get("web").unwrap().modified, modified);
    assert_eq!(world.state.policy.files.get("a.toml").unwrap().version, 1);
    assert_eq!(put(&mut world, "a.toml", &format!("{WEB}# why\n")), 3, "a comment counts");
    assert_eq!(world.state.policy.services.get("web").unwrap().service_version, 3);
    assert_eq!(version(world.apply(&admin(), files(vec![], &["b.toml"]))), 4);
    let orders = world.state.policy.services.get("orders").unwrap();
    assert!(orders.rules.is_empty());
    assert_eq!(orders.modified, world.state.revision, "the removal is told");
    assert_eq!(version(world.apply(&admin(), files(vec![], &[]))), 4);
    assert_eq!(world.flaw(), None);
}

#[test]
fn an_unchanged_apply_answers_with_its_revision() {
    let mut world = World::new();
    put(&mut world, "a.toml", WEB);
    let again = world.done(&admin(), files(vec![file("a.toml", WEB)], &[]));
    assert_eq!(again, Outcome::Policy { revision: Revision::new(1, 3), version: 1 });
    assert_eq!(world.state.revision, Revision::new(1, 3));
}

#[test]
fn the_second_writer_learns_of_the_first() {
    let mut world = World::new();
    let apply = |expected, toml| {
        let (files, message) = (vec![file("a.toml", toml)], String::new());
        CommandKind::ApplyPolicy1(ApplyPolicy1 { expected, files, remove: vec![], message })
    };
    assert_eq!(version(world.apply(&admin(), apply(Some(0), WEB))), 1);
    let why = rejected(world.apply(&admin(), apply(Some(0), READERS)));
    assert_eq!(why, Rejected::Conflict { now: 1, expected: 0 });
    assert_eq!(version(world.apply(&admin(), apply(Some(1), READERS))), 2);
}

#[test]
fn s_rbac_operators_touch_only_their_services() {
    let mut world = World::new();
    put(&mut world, "a.toml", WEB);
    let by = operator(&["orders"]);
    let cases = [
        ("writes another's", files(vec![file("b.toml", "[[allow.web]]\nfrom = [\"*\"]\n")], &[])),
        ("replaces another's", files(vec![file("a.toml", READERS)], &[])),
        ("empties another's", files(vec![file("a.toml", "")], &[])),
        ("removes another's", files(vec![], &["a.toml"])),
    ];
    for (case, kind) in cases {
        let why = rejected(world.apply(&by, kind));
        assert!(matches!(why, Rejected::Forbidden { .. }), "{case}: {why}");
    }
    let own = files(vec![file("b.toml", READERS)], &[]);
    assert_eq!(version(world.apply(&by, own)), 2);
    assert_eq!(version(world.apply(&by, files(vec![], &["b.toml"]))), 3);
}

#[test]
fn files_must_fit_together() {
    let mut world = World::new();
    let http_rule = "[[allow.orders]]\nfrom = [\"web\"]\nhttp = [{ methods = [\"GET\"] }]\n";
    let cases = [
        ("an HTTP rule of an opaque service", vec![file("a.toml", http_rule)]),
        ("one id twice", vec![file("a.toml", READERS), file("b.toml", READERS)]),
        ("a service twice", vec![file("a.toml", WEB), file("b.toml", WEB)]),
        ("one file twice", vec![file("a.toml", WEB), file("a.toml", READERS)]),
        (
            "a route to no subset",
            vec![file(
                "a.toml",
                &format!("{WEB}[[service.web.route]]\nto = [{{ subset = \"v2\" }}]\n"),
            )],
        ),
    ];
    for (case, set) in cases {
        let why = rejected(world.apply(&admin(), files(set, &[])));
        assert!(matches!(why, Rejected::Policy(_)), "{case}: {why}");
    }
    // each apply alone is sound, the second does not fit the first
    let orders = "[service.orders]\nprotocol = \"http\"\n";
    put(&mut world, "a.toml", orders);
    put(&mut world, "b.toml", http_rule);
    let why = rejected(world.apply(&admin(), files(vec![], &["a.toml"])));
    let text = why.to_string();
    assert!(text.starts_with("b.toml:1:1: allow.orders/h-"), "{text}");
    let why = rejected(world.apply(&admin(), files(vec![], &["z.toml"])));
    assert_eq!(why, not_found("policy file", "z.toml"));
}
