//! Tokens, enrolment and servers.

use super::*;

fn create(world: &mut World, id: &str, grant: TokenGrant) {
    world.done(&admin(), CommandKind::CreateToken1(token(id, grant)));
}

fn join(world: &mut World, token: &str, node: &str, with: u8) -> Outcome {
    world.apply(&Principal::Anonymous, CommandKind::EnrolNode1(enrol(token, node, with)))
}

fn join_server(world: &mut World, token: &str, server: &str, with: u8) -> Outcome {
    let enrol = enrol_server(token, server, with);
    world.apply(&Principal::Anonymous, CommandKind::EnrolServer1(enrol))
}

#[test]
fn s_join_two_uses_of_one_token_have_one_winner() {
    for first in [1, 2] {
        let mut world = World::new();
        create(&mut world, "t", join_node(Some("n-1"), &["web"]));
        let second = 3 - first;
        assert!(matches!(join(&mut world, "t", "n-1", first), Outcome::Done(_)));
        let loser = rejected(join(&mut world, "t", "n-1", second));
        assert_eq!(loser, Rejected::TokenUsed(START));
        assert_eq!(world.state.nodes.get("n-1").unwrap().key, key(first));
        // an answer lost on the way costs no token, also once it has expired
        world.at = START.plus(7_200_000);
        let before = world.state.nodes.clone();
        assert!(matches!(join(&mut world, "t", "n-1", first), Outcome::Done(_)));
        assert_eq!(world.state.nodes, before);
    }
}

#[test]
fn a_used_token_enrols_nothing_else() {
    let mut world = World::new();
    create(&mut world, "t", join_node(None, &["web"]));
    join(&mut world, "t", "n-1", 1);
    assert_eq!(rejected(join(&mut world, "t", "n-2", 1)), Rejected::TokenUsed(START));
    world.done(&admin(), CommandKind::RemoveNode1(name("n-1")));
    assert_eq!(rejected(join(&mut world, "t", "n-1", 1)), Rejected::TokenUsed(START));
    assert!(world.state.nodes.is_empty());
}

#[test]
fn s_join_refuses_what_the_token_is_not_for() {
    let mut world = World::new();
    create(&mut world, "node", join_node(Some("n-1"), &["web"]));
    create(&mut world, "server", TokenGrant::JoinServer { server: Some(name("ctl-2")) });
    let scope = |expected: &str, found: &str| Rejected::TokenScope {
        expected: expected.to_owned(),
        found: found.to_owned(),
    };
    let cases = [
        ("unknown", join(&mut world, "nope", "n-1", 1), Rejected::TokenInvalid),
        ("other node", join(&mut world, "node", "n-2", 1), scope("node n-1", "node n-2")),
        ("for a server", join(&mut world, "server", "n-1", 1), scope("something else", "node n-1")),
        ("for the API", join(&mut world, "root", "n-1", 1), scope("something else", "node n-1")),
        (
            "server by node's",
            join_server(&mut world, "node", "ctl-2", 1),
            scope("something else", "server ctl-2"),
        ),
        (
            "other server",
            join_server(&mut world, "server", "ctl-3", 1),
            scope("server ctl-2", "server ctl-3"),
        ),
    ];
    for (case, outcome, want) in cases {
        assert_eq!(rejected(outcome), want, "{case}");
    }
    let wrong = crate::command::EnrolNode1 { secret: key(8), ..enrol("node", "n-1", 1) };
    let wrong = world.apply(&Principal::Anonymous, CommandKind::EnrolNode1(wrong));
    assert_eq!(rejected(wrong), Rejected::TokenInvalid);
    // none of these used it up
    assert!(matches!(join(&mut world, "node", "n-1", 1), Outcome::Done(_)));
}

#[test]
fn tokens_end() {
    let mut world = World::new();
    create(&mut world, "t", join_node(None, &["web"]));
    let end = START.plus(3_600_000);
    world.at = end;
    assert_eq!(rejected(join(&mut world, "t", "n-1", 1)), Rejected::TokenExpired(end));
    world.at = UnixMillis(end.0 - 1);
    assert!(matches!(join(&mut world, "t", "n-1", 1), Outcome::Done(_)));
    // forgotten a day later, when the next one is made
    world.at = end.plus(24 * 3_600_000 + 1);
    create(&mut world, "next", join_node(None, &["web"]));
    assert!(!world.state.tokens.contains_key("t"));
    assert!(world.state.tokens.contains_key("root"), "without an end");
}

#[test]
fn names_and_denied_keys_are_not_enrolled_again() {
    let mut world = World::new();
    world.node("n-1", &["web"], 1);
    create(&mut world, "t", join_node(None, &["web"]));
    assert_eq!(rejected(join(&mut world, "t", "n-1", 2)), exists("node", "n-1"));
    world.done(&admin(), CommandKind::RemoveNode1(name("n-1")));
    let denied = rejected(join(&mut world, "t", "n-1", 1));
    assert!(
        matches!(&denied, Rejected::Forbidden { by } if by.contains("key is denied")),
        "{denied}"
    );
    // the host makes a new key, and the token is still good
    assert!(matches!(join(&mut world, "t", "n-1", 2), Outcome::Done(_)));
}

#[test]
fn server_ids_are_used_once() {
    let mut world = World::new();
    let id = |outcome: Outcome| match outcome {
        Outcome::Server { id, .. } => id,
        other => panic!("{other:?}"),
    };
    for token in ["s-2", "s-3", "s-4"] {
        create(&mut world, token, TokenGrant::JoinServer { server: None });
    }
    assert_eq!(id(join_server(&mut world, "s-2", "ctl-2", 2)), 2);
    assert_eq!(id(join_server(&mut world, "s-2", "ctl-2", 2)), 2, "repeated");
    assert_eq!(rejected(join_server(&mut world, "s-2", "ctl-2", 3)), Rejected::TokenUsed(START));
    assert_eq!(rejected(join_server(&mut world, "s-3", "ctl-2", 3)), exists("server", "ctl-2"));
    assert_eq!(id(join_server(&mut world, "s-3", "ctl-3", 3)), 3);
    world.done(&admin(), CommandKind::RemoveServer1(name("ctl-3")));
    assert_eq!(rejected(join_server(&mut world, "s-3", "ctl-3", 3)), Rejected::TokenUsed(START));
    assert_eq!(id(join_server(&mut world, "s-4", "ctl-3", 4)), 4);
}

#[test]
fn a_server_must_speak_the_feature_level_in_force() {
    let mut world = World::new();
    create(&mut world, "s", TokenGrant::JoinServer { server: None });
    world.done(&server(), set_server_level("ctl-1", 2));
    world.done(&server(), CommandKind::SetFeatureLevel1(2));
    let old = rejected(join_server(&mut world, "s", "ctl-2", 2));
    assert_eq!(old, Rejected::FeatureLevel { now: 2, found: 1 });
}

#[test]
fn a_denied_server_gets_in_by_no_token() {
    let mut world = World::new();
    for token in ["s-2", "s-3", "s-4"] {
        create(&mut world, token, TokenGrant::JoinServer { server: None });
    }
    assert!(matches!(join_server(&mut world, "s-2", "ctl-2", 2), Outcome::Server { .. }));
    world.done(&admin(), CommandKind::RemoveServer1(name("ctl-2")));
    let denied = |outcome| matches!(rejected(outcome), Rejected::Forbidden { by } if by.contains("is denied"));
    assert!(denied(join_server(&mut world, "s-3", "ctl-2", 2)), "its key was denied");
    // a member whose key is denied is not answered again either: the answer holds a secret
    assert!(matches!(join_server(&mut world, "s-3", "ctl-3", 3), Outcome::Server { .. }));
    world.done(&admin(), revoke(Revoked::Key(key(3))));
    assert!(denied(join_server(&mut world, "s-3", "ctl-3", 3)));
    let id = SpiffeId::server(
        &name("td.mesh.internal"),
        &world.state.mesh.as_ref().unwrap().datacenter.clone(),
        &name("ctl-4"),
    );
    world.done(&admin(), revoke(Revoked::Identity(id)));
    assert!(denied(join_server(&mut world, "s-4", "ctl-4", 4)), "its identity was denied");
}

#[test]
fn a_full_deny_list_forgets_what_no_certificate_can_use() {
    let mut world = World::new();
    world.node("n-1", &["*"], 1);
    let old = (0..limits::REVOCATIONS_MAX as u64).map(|n| Revocation {
        what: Revoked::Serial(format!("{n:016x}")),
        at: START,
        reason: String::new(),
    });
    world.state.revoked = old.collect();
    let full = rejected(world.apply(&admin(), CommandKind::RemoveNode1(name("n-1"))));
    assert!(matches!(full, Rejected::TooMany { .. }), "{full}");
    world.at = START.plus(121 * 24 * 3_600_000);
    world.done(&admin(), CommandKind::RemoveNode1(name("n-1")));
    assert_eq!(world.state.revoked.len(), 1);
}
