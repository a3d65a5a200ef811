//! `apply`, command by command. `World::apply` checks of every rejection that it changed nothing.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod nodes;
mod policy;
mod props;
mod rejected;
mod restore;
mod tokens;

use super::*;
use crate::command::{CommandKind, Outcome, Rejected};
use crate::limits;
use crate::testing::*;
use crate::trust::{Principal, Revoked, TokenGrant};

fn rejected(outcome: Outcome) -> Rejected {
    match outcome {
        Outcome::Rejected(why) => why,
        done => panic!("not rejected: {done:?}"),
    }
}

fn exists(what: &str, name: &str) -> Rejected {
    Rejected::Exists { what: what.to_owned(), name: name.to_owned() }
}

fn not_found(what: &str, name: &str) -> Rejected {
    Rejected::NotFound { what: what.to_owned(), name: name.to_owned() }
}

#[test]
fn init_happens_once_and_first() {
    let mut world = World::blank();
    let early = world.apply(&admin(), CommandKind::DeleteToken1(name("x")));
    assert_eq!(rejected(early), Rejected::NotInitialised);
    assert_eq!(world.state, MeshState::default());
    assert_eq!(world.state.bundle(), None);
    world.done(&server(), init(AccessMode::Enforce));
    assert_eq!(world.state.revision, Revision::new(1, 2));
    assert_eq!(world.state.clock, START);
    assert_eq!(world.state.trust_modified, world.state.revision);
    assert_eq!(world.state.bundle().unwrap().roots.len(), 1);
    let again = world.apply(&server(), init(AccessMode::Enforce));
    assert_eq!(rejected(again), Rejected::Initialised(name("td.mesh.internal")));
}

#[test]
fn the_clock_and_the_revision_never_fall() {
    let mut world = World::new();
    world.at = UnixMillis(5);
    world.done(&admin(), CommandKind::CreateToken1(token("t", join_node(None, &[]))));
    assert_eq!(world.state.clock, START);
    assert_eq!(world.state.revision, Revision::new(1, 2));
}

#[test]
fn feature_levels_rise() {
    let mut world = World::new();
    let early = rejected(world.apply(&server(), CommandKind::SetFeatureLevel1(2)));
    let behind = Rejected::ServerBehind { server: name("ctl-1"), speaks: 1, level: 2 };
    assert_eq!(early, behind, "a server does not speak it yet");
    world.done(&server(), set_server_level("ctl-1", 2));
    world.done(&server(), CommandKind::SetFeatureLevel1(2));
    let back = rejected(world.apply(&server(), set_server_level("ctl-1", 1)));
    assert_eq!(back, Rejected::FeatureLevel { now: 2, found: 1 });
    for found in [0, 1, 2] {
        let again = world.apply(&server(), CommandKind::SetFeatureLevel1(found));
        assert_eq!(rejected(again), Rejected::FeatureLevel { now: 2, found });
    }
}

#[test]
fn revocations_are_kept_once_and_reach_the_bundle() {
    let mut world = World::new();
    world.done(&admin(), revoke(Revoked::Serial("0a".to_owned())));
    let first = world.state.trust_modified;
    assert_eq!(first, world.state.revision);
    world.at = START.plus(1);
    world.done(&admin(), revoke(Revoked::Serial("0a".to_owned())));
    assert_eq!(world.state.trust_modified, first, "nothing new is no change of trust");
    assert_eq!(world.state.bundle().unwrap().revoked.len(), 1);
}

#[test]
fn names_of_services_are_those_in_use() {
    let mut world = World::new();
    world.node("n-1", &["*"], 1);
    world.host("n-1", "i-1", "web", &[]);
    world.policy("a.toml", "[[allow.orders]]\nfrom = [\"web\"]\n");
    assert_eq!(world.state.service_names(), [name("orders"), name("web")]);
    world.done(&agent("n-1"), sync("n-1", vec![], &["i-1"]));
    world.done(&admin(), files(vec![], &["a.toml"]));
    assert!(world.state.service_names().is_empty());
}
