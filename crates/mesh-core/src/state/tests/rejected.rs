//! Who may propose what, and every reason to reject.

use super::*;
use crate::catalog::Liveness;

/// One command of every kind.
fn kinds(state: &MeshState) -> Vec<(&'static str, CommandKind)> {
    let address = crate::command::SetNodeAddress1 {
        node: name("n-1"),
        address: "10.0.0.1".parse().unwrap(),
        port: 7443,
    };
    let policy = node_policy(&["*"]);
    vec![
        ("init", init(AccessMode::Enforce)),
        ("create token", CommandKind::CreateToken1(token("x", join_node(None, &[])))),
        ("delete token", CommandKind::DeleteToken1(name("root"))),
        ("enrol node", CommandKind::EnrolNode1(enrol("t", "n-2", 2))),
        ("enrol server", CommandKind::EnrolServer1(enrol_server("s", "ctl-2", 2))),
        ("remove server", CommandKind::RemoveServer1(name("ctl-1"))),
        ("address", CommandKind::SetNodeAddress1(address)),
        ("node policy", CommandKind::SetNodePolicy1 { node: name("n-1"), policy }),
        ("remove node", CommandKind::RemoveNode1(name("n-1"))),
        ("sync", sync("n-1", vec![], &[])),
        ("health", set_health("n-1", &[])),
        ("liveness", set_liveness("n-1", Liveness::Gone)),
        ("policy", files(vec![file("a.toml", "[service.web]\n")], &[])),
        ("revoke", revoke(Revoked::Key(key(7)))),
        ("restore", restore(2, state)),
        ("level", CommandKind::SetFeatureLevel1(2)),
        ("server level", set_server_level("ctl-1", 1)),
    ]
}

#[test]
fn s_rbac_every_kind_has_its_proposers() {
    let node = agent("n-1");
    let expired = Principal::ExpiredNode(name("n-1"));
    let viewer = Principal::Token { id: name("v"), role: crate::trust::Role::Viewer };
    let callers: [(&str, Principal); 8] = [
        ("anonymous", Principal::Anonymous),
        ("server", server()),
        ("node", node),
        ("expired", expired),
        ("service", Principal::Service(name("web"))),
        ("admin", admin()),
        ("operator", operator(&["web"])),
        ("viewer", viewer),
    ];
    let all: &[&str] =
        &["anonymous", "server", "node", "expired", "service", "admin", "operator", "viewer"];
    let may = |kind: &str| -> &[&str] {
        match kind {
            "init" | "liveness" | "level" | "server level" => &["server"],
            "enrol node" | "enrol server" => all,
            "remove server" => &["server", "admin"],
            "address" | "sync" => &["node"],
            "health" => &["server", "node"],
            "policy" => &["admin", "operator"],
            _ => &["admin"],
        }
    };
    for (caller, by) in &callers {
        for (what, kind) in kinds(&MeshState::default()) {
            let got = crate::command::may_propose(by, &kind);
            assert_eq!(got, may(what).contains(caller), "{caller}: {what}");
            let mut world = World::new();
            let outcome = world.apply(by, kind);
            let forbidden =
                outcome == Outcome::Rejected(Rejected::Forbidden { by: by.to_string() });
            assert_eq!(forbidden, !got, "{caller}: {what}: {outcome:?}");
        }
    }
}

#[test]
fn things_that_are_not_there_are_named() {
    let mut world = World::new();
    let cases = [
        (admin(), CommandKind::DeleteToken1(name("x")), not_found("token", "x")),
        (admin(), CommandKind::RemoveServer1(name("x")), not_found("server", "x")),
        (admin(), CommandKind::RemoveNode1(name("x")), not_found("node", "x")),
        (agent("x"), sync("x", vec![], &[]), not_found("node", "x")),
        (agent("x"), set_health("x", &[]), not_found("node", "x")),
        (admin(), files(vec![], &["x"]), not_found("policy file", "x")),
        (
            admin(),
            CommandKind::SetNodePolicy1 { node: name("x"), policy: node_policy(&[]) },
            not_found("node", "x"),
        ),
    ];
    for (by, kind, want) in cases {
        assert_eq!(rejected(world.apply(&by, kind)), want);
    }
    let again = CommandKind::CreateToken1(token("root", join_node(None, &[])));
    assert_eq!(rejected(world.apply(&admin(), again)), exists("token", "root"));
}

#[test]
fn everything_has_a_bound() {
    let mut world = World::new();
    for n in 1..limits::TOKENS_MAX {
        let id = name(&format!("t{n}"));
        world.state.tokens.insert(id, Arc::new(token("any", join_node(None, &[]))));
    }
    let one_more = CommandKind::CreateToken1(token("more", join_node(None, &[])));
    let why = rejected(world.apply(&admin(), one_more));
    assert!(matches!(why, Rejected::TooMany { max: 10_000, .. }), "{why}");
    for n in 0..limits::REVOCATIONS_MAX {
        let (at, reason) = (START, String::new());
        world.state.revoked.insert(Revocation { what: Revoked::Serial(n.to_string()), at, reason });
    }
    let why = rejected(world.apply(&admin(), revoke(Revoked::Key(key(1)))));
    assert!(matches!(why, Rejected::TooMany { found: 10_001, .. }), "{why}");
    let many = (0..4097).map(|n| file(&format!("f{n}.toml"), "")).collect();
    let why = rejected(world.apply(&admin(), files(many, &[])));
    assert!(matches!(why, Rejected::TooMany { found: 4097, .. }), "{why}");
}
