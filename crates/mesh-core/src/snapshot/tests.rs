//! Batches move a snapshot forward only.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;
use crate::testing::{World, admin, name, revoke};
use crate::trust::Revoked;

fn world() -> World {
    let mut world = World::new();
    world.node("n-1", &["*"], 1);
    world.host("n-1", "i", "web", &[]);
    world
}

fn host() -> HostIdentity {
    HostIdentity {
        trust_domain: name("td.mesh.internal"),
        datacenter: name("dc1"),
        node: name("n-1"),
    }
}

fn resources(world: &World, service: &str) -> Vec<Resource> {
    let service: ServiceName = name(service);
    let keys = ProxySnapshot::wanted([(&service, &[][..])]);
    keys.iter().map(|key| crate::compile::resource(&world.state, key).unwrap()).collect()
}

fn snapshot(world: &World) -> ProxySnapshot {
    let empty = ProxySnapshot::empty(host(), world.state.bundle().unwrap());
    empty.with_batch(world.state.revision, false, resources(world, "web")).unwrap()
}

#[test]
fn older_batches_are_refused() {
    let world = world();
    let now = snapshot(&world);
    let Revision { epoch, index } = now.revision;
    for (revision, taken) in [
        (Revision::new(epoch, index - 1), false),
        (Revision::new(epoch - 1, index + 1), false),
        (Revision::new(epoch, index), true),
        (Revision::new(epoch, index + 1), true),
        (Revision::new(epoch + 1, 0), true),
    ] {
        let next = now.with_batch(revision, false, resources(&world, "orders"));
        assert_eq!(next.map(|next| next.revision), taken.then_some(revision), "{revision}");
    }
}

#[test]
fn a_batch_adds_and_a_full_one_replaces() {
    let mut world = world();
    let now = snapshot(&world);
    world.done(&admin(), revoke(Revoked::Serial("0a".to_owned())));
    let revision = world.state.revision;
    let more = now.with_batch(revision, false, resources(&world, "orders")).unwrap();
    assert_eq!(more.access.keys().map(ServiceName::as_str).collect::<Vec<_>>(), ["orders", "web"]);
    assert_eq!(more.bundle.revoked.len(), 1);
    assert!(Arc::ptr_eq(&more.routes["web"], &now.routes["web"]), "what stays is shared");
    let full = more.with_batch(revision, true, resources(&world, "orders")).unwrap();
    for names in [
        full.access.keys().collect::<Vec<_>>(),
        full.routes.keys().collect(),
        full.endpoints.keys().collect(),
    ] {
        assert_eq!(names, [&name::<ServiceName>("orders")]);
    }
    assert_eq!((full.host, full.hosted), (now.host, now.hosted), "the host's own part stays");
}

#[test]
fn what_is_held_is_told_and_can_be_dropped() {
    let world = world();
    let mut now = snapshot(&world);
    let held = now.held();
    assert_eq!(
        held.keys().cloned().collect::<Vec<_>>(),
        ProxySnapshot::wanted([(&name("web"), &[][..])])
    );
    assert_eq!(held[&ResourceKey::Bundle], now.revision);
    for (key, revision) in &held {
        assert!(*revision >= crate::compile::modified(&world.state, key), "{key:?}");
    }
    now.retain(|key| matches!(key, ResourceKey::Access(_)));
    assert_eq!((now.access.len(), now.routes.len(), now.endpoints.len()), (1, 0, 0));
}

#[test]
fn hosts_want_what_they_host_and_call() {
    let (web, orders) = (name::<ServiceName>("web"), name::<ServiceName>("orders"));
    let upstreams = [orders.clone(), orders.clone()];
    let wanted = ProxySnapshot::wanted([(&web, &upstreams[..]), (&web, &[][..])]);
    let want = [
        ResourceKey::Bundle,
        ResourceKey::Routes(orders.clone()),
        ResourceKey::Routes(web.clone()),
        ResourceKey::Endpoints(orders),
        ResourceKey::Endpoints(web.clone()),
        ResourceKey::Access(web),
    ];
    assert_eq!(wanted, want, "never who may call others");
}
