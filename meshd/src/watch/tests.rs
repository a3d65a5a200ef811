//! What a stream must be sent, without a stream.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use mesh_core::catalog::{CheckStatus, Health, Instance, InstanceSpec};
use mesh_core::command::HealthChange;
use mesh_core::name::{NodeName, ServiceName};
use mesh_core::resource::ResourceKey;
use mesh_core::revision::Revision;
use mesh_core::state::{MeshState, ServiceInstances};

use super::cache::Cache;
use super::plan::{Held, Plan, plan, wanted};
use super::stream::is_sound;

fn node() -> NodeName {
    "web-7".parse().unwrap()
}

fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

/// At revision `epoch.index`, with an instance of `orders` on the node, changed at index 5.
fn state(epoch: u64, index: u64) -> MeshState {
    let spec = InstanceSpec {
        id: "orders-1".parse().unwrap(),
        service: service("orders"),
        port: 80,
        meta: BTreeMap::new(),
        upstreams: Vec::new(),
        health: Health::Passing,
        checks: BTreeMap::new(),
    };
    let modified = Revision::new(epoch, 5);
    let instance = Instance { node: node(), spec: spec.clone(), modified };
    let of_node = OrdMap::unit(spec.id, Arc::new(instance));
    let entry = ServiceInstances { instances: OrdMap::unit(node(), of_node), modified };
    let mut state = MeshState { revision: Revision::new(epoch, index), ..MeshState::default() };
    state.services.insert(service("orders"), Arc::new(entry));
    state
}

fn held(keys: &[(&ResourceKey, Revision)]) -> Held {
    keys.iter().map(|(key, revision)| ((*key).clone(), *revision)).collect()
}

#[test]
fn a_batch_is_what_changed_since() {
    let at = Revision::new;
    let endpoints = ResourceKey::Endpoints(service("orders"));
    let routes = ResourceKey::Routes(service("orders"));
    let foreign = ResourceKey::Access(service("payments"));
    let none = Revision::ZERO;
    let all = |full, resources: &[(&ResourceKey, Revision)]| {
        let resources = resources.iter().map(|(key, at)| ((*key).clone(), *at)).collect();
        Some(Plan { revision: at(2, 9), full, resources })
    };
    let cases: &[(&str, Held, Revision, Option<Plan>)] = &[
        ("first", held(&[(&endpoints, none)]), none, all(true, &[(&endpoints, at(2, 5))])),
        ("nothing new", held(&[(&endpoints, at(2, 5))]), at(2, 9), None),
        ("only the revision", held(&[(&endpoints, at(2, 5))]), at(2, 8), all(false, &[])),
        (
            "one changed",
            held(&[(&endpoints, at(2, 4)), (&routes, at(2, 0))]),
            at(2, 4),
            all(false, &[(&endpoints, at(2, 5))]),
        ),
        (
            "a new subscription",
            held(&[(&endpoints, at(2, 5)), (&routes, none)]),
            at(2, 9),
            all(false, &[(&routes, at(2, 0))]),
        ),
        (
            "older epoch",
            held(&[(&endpoints, at(1, 900))]),
            at(1, 900),
            all(true, &[(&endpoints, at(2, 5))]),
        ),
        ("this server lags", held(&[(&endpoints, none)]), at(2, 10), None),
        ("this server is of an older epoch", held(&[(&endpoints, none)]), at(3, 1), None),
        ("not hosted here", held(&[(&foreign, none)]), at(2, 9), None),
    ];
    for (name, held, cursor, want) in cases {
        assert_eq!(plan(&state(2, 9), &node(), held, *cursor), *want, "case: {name}");
    }
}

#[test]
fn access_is_for_hosts() {
    let key = ResourceKey::Access(service("orders"));
    let held = held(&[(&key, Revision::ZERO)]);
    let here = plan(&state(1, 9), &node(), &held, Revision::new(1, 8)).unwrap();
    assert_eq!(here.resources.len(), 1);
    let other: NodeName = "web-8".parse().unwrap();
    let there = plan(&state(1, 9), &other, &held, Revision::new(1, 8)).unwrap();
    assert!(there.resources.is_empty());
    assert_eq!(wanted(&state(1, 9), &other, &held), Revision::ZERO);
}

#[test]
fn frames_are_made_once_and_anew_after_a_change() {
    let (cache, key) = (Cache::default(), ResourceKey::Endpoints(service("orders")));
    let first = cache.frame(&state(1, 9), &key, Revision::new(1, 5)).unwrap();
    let again = cache.frame(&state(1, 20), &key, Revision::new(1, 5)).unwrap();
    assert_eq!(first.as_ptr(), again.as_ptr(), "the same bytes");
    let changed = cache.frame(&state(2, 20), &key, Revision::new(2, 5)).unwrap();
    assert_ne!(first.as_ptr(), changed.as_ptr());
    assert!(cache.frame(&state(1, 9), &ResourceKey::Bundle, Revision::ZERO).is_none(), "no mesh");
}

#[test]
fn health_is_kept_only_within_its_bounds() {
    // what waits to be written is held in memory: a thousand instances, each of any size
    let change = |checks: usize, bytes: usize| {
        let status = CheckStatus { passing: true, output: "x".repeat(bytes) };
        let checks = (0..checks).map(|check| (format!("c{check}"), status.clone()));
        HealthChange { health: Health::Passing, checks: checks.collect() }
    };
    for (checks, bytes, want) in [(0, 0, true), (64, 256, true), (65, 1, false), (1, 257, false)] {
        assert_eq!(is_sound(&change(checks, bytes)), want, "{checks} checks of {bytes} bytes");
    }
}
