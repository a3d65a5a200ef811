//! What the agent subscribes to. Pure.

use std::collections::BTreeSet;

use mesh_core::limits::SUBSCRIPTIONS_MAX;
use mesh_core::name::ServiceName;
use mesh_core::resource::ResourceKey;
use mesh_core::snapshot::ProxySnapshot;
use mesh_core::stream::Subscribe1;

/// Everything this agent wants: what its host declares, what its callers asked for by first use,
/// and where the routes it holds lead.
///
/// At most [`SUBSCRIPTIONS_MAX`], declared ones first.
pub fn wanted(
    declared: &[ResourceKey], first_use: &BTreeSet<ServiceName>, held: &ProxySnapshot,
) -> BTreeSet<ResourceKey> {
    let mut keys: BTreeSet<ResourceKey> =
        declared.iter().take(SUBSCRIPTIONS_MAX).cloned().collect();
    let mut add = |key: ResourceKey| {
        if keys.len() < SUBSCRIPTIONS_MAX {
            keys.insert(key);
        }
    };
    add(ResourceKey::Bundle);
    for service in first_use {
        add(ResourceKey::Routes(service.clone()));
        add(ResourceKey::Endpoints(service.clone()));
    }
    let called: Vec<ServiceName> = keys
        .iter()
        .filter_map(|key| match key {
            ResourceKey::Routes(service) => Some(service.clone()),
            ResourceKey::Bundle | ResourceKey::Endpoints(_) | ResourceKey::Access(_) => None,
        })
        .collect();
    for routes in called.iter().filter_map(|service| held.routes.get(service)) {
        for backend in routes.routes.iter().flat_map(|route| &route.backends) {
            if keys.len() < SUBSCRIPTIONS_MAX {
                keys.insert(ResourceKey::Endpoints(backend.service.clone()));
            }
        }
    }
    keys
}

/// What to tell a server that knows of `told`, so that it knows of `wanted`; `None` if it does.
pub fn change(told: &BTreeSet<ResourceKey>, wanted: &BTreeSet<ResourceKey>) -> Option<Subscribe1> {
    let add: Vec<ResourceKey> = wanted.difference(told).cloned().collect();
    let remove: Vec<ResourceKey> = told.difference(wanted).cloned().collect();
    (!add.is_empty() || !remove.is_empty()).then_some(Subscribe1 { add, remove })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use std::sync::Arc;

    use mesh_core::policy::{Origin, RouteMatch};
    use mesh_core::resource::{Backend, CompiledRoute, ServiceRoutes};
    use mesh_core::revision::Revision;

    use super::*;
    use crate::live::tests::empty;

    fn name(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    fn routes_to(service: &str, backend: &str) -> ServiceRoutes {
        let host = empty().host;
        let backend = Backend {
            service: name(backend),
            id: host.service_id(&name(backend)),
            subset: None,
            weight: 1,
        };
        let route = CompiledRoute {
            index: 0,
            matches: RouteMatch::default(),
            backends: vec![backend],
            timeout_ms: 1,
            origin: Origin::default(),
        };
        ServiceRoutes {
            service: name(service),
            id: host.service_id(&name(service)),
            revision: Revision::ZERO,
            protocol: None,
            timeout_ms: 1,
            connect_timeout_ms: 1,
            origin: None,
            version: 0,
            routes: vec![route],
        }
    }

    #[test]
    fn routes_lead_to_more_endpoints() {
        let declared = [ResourceKey::Bundle, ResourceKey::Routes(name("orders"))];
        let mut held = empty();
        let first_use = BTreeSet::from([name("mail")]);
        let before = wanted(&declared, &first_use, &held);
        assert!(before.contains(&ResourceKey::Endpoints(name("mail"))));
        assert!(!before.contains(&ResourceKey::Endpoints(name("legacy"))));
        held.routes.insert(name("orders"), Arc::new(routes_to("orders", "legacy")));
        let after = wanted(&declared, &first_use, &held);
        assert!(after.contains(&ResourceKey::Endpoints(name("legacy"))));
        let told = change(&before, &after).unwrap();
        assert_eq!(told.add, [ResourceKey::Endpoints(name("legacy"))]);
        assert_eq!(told.remove, []);
        assert_eq!(change(&after, &after), None);
    }

    #[test]
    fn wants_are_bounded() {
        let declared: Vec<ResourceKey> =
            (0..9_000).map(|n| ResourceKey::Routes(name(&format!("s{n}")))).collect();
        let found = wanted(&declared, &BTreeSet::from([name("x")]), &empty());
        assert_eq!(found.len(), SUBSCRIPTIONS_MAX);
    }
}
