//! Restores of backups.

use super::*;

fn why(world: &mut World, epoch: u64, backup: &MeshState) -> String {
    rejected(world.apply(&admin(), restore(epoch, backup))).to_string()
}

#[test]
fn restores_refuse_what_is_not_a_higher_epoch_of_this_mesh() {
    let mut world = World::new();
    let backup = world.state.clone();
    let blank = why(&mut world, 2, &MeshState::default());
    assert_eq!(blank, "the backup cannot be restored: it holds no initialised mesh");
    assert!(why(&mut world, 1, &backup).ends_with("epoch 1 is not above 1"));
    let newer = MeshState { revision: Revision::new(7, 1), ..backup.clone() };
    assert!(why(&mut world, 7, &newer).ends_with("epoch 7 is not above 7"));
    let mut other = backup.clone();
    let mesh = Arc::make_mut(other.mesh.as_mut().unwrap());
    mesh.trust_domain = name("other.internal");
    assert!(why(&mut world, 2, &other).ends_with("is other.internal, expected td.mesh.internal"));
}

#[test]
fn a_restore_raises_the_epoch_and_touches_everything() {
    let mut world = World::new();
    world.node("n-1", &["*"], 1);
    world.host("n-1", "i", "web", &[]);
    world.policy("a.toml", "[[allow.web]]\nfrom = [\"*\"]\n");
    let backup = world.state.clone();
    world.policy("a.toml", "");
    world.host("n-1", "j", "orders", &[]);
    let before = world.state.revision;
    world.done(&admin(), restore(5, &backup));
    let now = world.state.revision;
    assert_eq!(now, Revision::new(5, world.index));
    assert!(now > before);
    assert_eq!(world.state.policy.version, 3, "above both");
    for service in ["web", "orders"] {
        for key in [
            crate::resource::ResourceKey::Access(name(service)),
            crate::resource::ResourceKey::Endpoints(name(service)),
        ] {
            let modified = crate::compile::modified(&world.state, &key);
            assert!(modified > before, "{key:?} is at {modified}");
        }
    }
    assert_eq!(world.state.trust_modified, now);
    assert_eq!(world.state.nodes, backup.nodes);
    assert!(!world.state.services.contains_key("orders"));
    assert_eq!(world.flaw(), None);
    world.done(&admin(), CommandKind::DeleteToken1(name("t-n-1")));
    assert_eq!(world.state.revision, Revision::new(5, world.index), "the epoch stays");
}

#[test]
fn a_restore_brings_no_access_back() {
    let mut world = World::new();
    world.node("n-1", &["*"], 1);
    for id in ["used", "deleted"] {
        world.done(&admin(), CommandKind::CreateToken1(token(id, join_node(None, &["*"]))));
    }
    let backup = world.state.clone();
    world.done(&admin(), CommandKind::RemoveNode1(name("n-1")));
    world.done(&admin(), CommandKind::DeleteToken1(name("deleted")));
    world.done(&Principal::Anonymous, CommandKind::EnrolNode1(enrol("used", "n-2", 2)));
    world.done(&admin(), CommandKind::CreateToken1(token("later", join_node(None, &["*"]))));
    let (tokens, revoked) = (world.state.tokens.clone(), world.state.revoked.clone());
    world.done(&admin(), restore(2, &backup));
    assert_eq!(world.state.tokens, tokens);
    assert_eq!(world.state.revoked, revoked);
    let replay = CommandKind::EnrolNode1(enrol("used", "n-3", 3));
    assert_eq!(rejected(world.apply(&Principal::Anonymous, replay)), Rejected::TokenUsed(START));
}

#[test]
fn a_restore_into_a_new_mesh_of_the_same_name_brings_its_tokens() {
    let mut lost = World::new();
    lost.done(
        &admin(),
        CommandKind::CreateToken1(token(
            "kept",
            TokenGrant::Api { role: crate::trust::Role::Viewer },
        )),
    );
    let mut world = World::blank();
    world.at = START.plus(1);
    world.done(&server(), init(AccessMode::Enforce));
    let own = world.state.tokens.get("root").cloned();
    world.done(&admin(), restore(2, &lost.state));
    assert!(world.state.tokens.contains_key("kept"));
    assert_eq!(world.state.tokens.get("root").cloned(), own, "the operator's stays");
}

#[test]
fn server_ids_are_used_once_over_restores() {
    let mut world = World::new();
    let backup = world.state.clone();
    let enrol = |world: &mut World, id: &str, name_: &str, with| {
        let grant = TokenGrant::JoinServer { server: None };
        world.done(&admin(), CommandKind::CreateToken1(token(id, grant)));
        let kind = CommandKind::EnrolServer1(enrol_server(id, name_, with));
        match world.done(&Principal::Anonymous, kind) {
            Outcome::Server { id, .. } => id,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(enrol(&mut world, "s-2", "ctl-2", 2), 2);
    world.done(&admin(), CommandKind::RemoveServer1(name("ctl-2")));
    world.done(&admin(), restore(2, &backup));
    assert_eq!(world.state.servers.len(), 1, "who the servers are stays");
    assert_eq!(enrol(&mut world, "s-3", "ctl-2", 3), 3);
}

#[test]
fn a_backup_whose_index_lies_is_indexed_anew() {
    let mut world = World::new();
    world.policy("a.toml", "[[deny.web]]\nfrom = [\"*\"]\n");
    let mut backup = world.state.clone();
    backup.policy.services = OrdMap::new();
    world.done(&admin(), restore(2, &backup));
    assert_eq!(world.flaw(), None);
    assert_eq!(world.state.policy.services.get("web").unwrap().rules.len(), 1);
}

#[test]
fn a_backup_that_counted_to_the_end_is_refused() {
    // accepted, the next apply or server would overflow on every replica
    let mut world = World::new();
    let mut versions = world.state.clone();
    versions.policy.version = u64::MAX;
    assert!(why(&mut world, 2, &versions).contains("it counts up to"));
    let ids = MeshState { server_id_last: u64::MAX, ..world.state.clone() };
    assert!(why(&mut world, 2, &ids).contains("it counts up to"));
    let backup = world.state.clone();
    assert!(why(&mut world, u64::MAX, &backup).contains("it counts up to"));
}
