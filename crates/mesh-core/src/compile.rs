//! Compile: from replicated state to the resources of one service. Pure.
//!
//! A resource depends on one service's policy and instances only, so a change is compiled once
//! per service it touches and the bytes are shared by every agent that wants them.

use std::net::SocketAddr;

use crate::catalog::{Health, Instance, Liveness};
use crate::name::{ServiceName, SubsetName};
use crate::policy::{Protocol, Route, RuleKind, ServicePolicy, Target};
use crate::resource::{
    Backend, CompiledRoute, CompiledRule, Endpoint, EndpointState, Resource, ResourceKey,
    ServiceAccess, ServiceEndpoints, ServiceRoutes,
};
use crate::revision::Revision;
use crate::state::{MeshState, PolicyOfService};

/// Longest time for one request where policy says nothing, in milliseconds.
pub const TIMEOUT_MS_DEFAULT: u64 = 15_000;
/// Longest time for one gRPC call where policy says nothing: the longest that policy can say.
pub const GRPC_TIMEOUT_MS_DEFAULT: u64 = 3_600_000;
/// Longest time to connect where policy says nothing, in milliseconds.
pub const CONNECT_TIMEOUT_MS_DEFAULT: u64 = 2_000;

/// The resource `key` names, at the state's revision; `None` before `mesh init`. A service nobody
/// registered or spoke of has routes and access (default deny) and no endpoints.
pub fn resource(state: &MeshState, key: &ResourceKey) -> Option<Resource> {
    match key {
        ResourceKey::Bundle => state.bundle().map(Resource::Bundle),
        ResourceKey::Routes(service) => routes(state, service).map(Resource::Routes),
        ResourceKey::Endpoints(service) => Some(Resource::Endpoints(endpoints(state, service))),
        ResourceKey::Access(service) => access(state, service).map(Resource::Access),
    }
}

/// The revision of the last change that touched what `key` names.
pub fn modified(state: &MeshState, key: &ResourceKey) -> Revision {
    let policy = |service| state.policy.services.get(service).map(|entry| entry.modified);
    let instances = |service| state.services.get(service).map(|entry| entry.modified);
    let modified = match key {
        ResourceKey::Bundle => Some(state.trust_modified),
        ResourceKey::Routes(service) | ResourceKey::Access(service) => policy(service),
        // subsets are policy, so endpoints change with it
        ResourceKey::Endpoints(service) => policy(service).max(instances(service)),
    };
    modified.unwrap_or(Revision::new(state.revision.epoch, 0))
}

/// How to call `service`; `None` before `mesh init`.
pub fn routes(state: &MeshState, service: &ServiceName) -> Option<ServiceRoutes> {
    let entry = state.policy.services.get(service);
    let policy = entry.and_then(|entry| entry.service.as_ref());
    // gRPC callers bring deadlines of their own, and streams may be silent for long
    let usual = match policy.and_then(|p| p.protocol) {
        Some(Protocol::Grpc) => GRPC_TIMEOUT_MS_DEFAULT,
        Some(Protocol::Tcp | Protocol::Http | Protocol::Http2) | None => TIMEOUT_MS_DEFAULT,
    };
    let timeout_ms = policy.and_then(|p| p.timeout_ms).unwrap_or(usual);
    let routes = policy.map_or(&[][..], |p| &p.routes);
    let compiled = routes
        .iter()
        .zip(0..)
        .map(|(route, index)| compile_route(state, service, route, index, timeout_ms))
        .collect::<Option<_>>()?;
    Some(ServiceRoutes {
        service: service.clone(),
        id: state.service_id(service)?,
        revision: modified(state, &ResourceKey::Routes(service.clone())),
        protocol: policy.and_then(|p| p.protocol),
        timeout_ms,
        connect_timeout_ms: policy
            .and_then(|p| p.connect_timeout_ms)
            .unwrap_or(CONNECT_TIMEOUT_MS_DEFAULT),
        origin: policy.map(|p| p.origin.clone()),
        version: entry.map_or(0, |entry| entry.service_version),
        routes: compiled,
    })
}

fn compile_route(
    state: &MeshState, service: &ServiceName, route: &Route, index: u32, timeout_ms: u64,
) -> Option<CompiledRoute> {
    let backend = |target: &Target| {
        let to = target.service.as_ref().unwrap_or(service);
        Some(Backend {
            service: to.clone(),
            id: state.service_id(to)?,
            subset: target.subset.clone(),
            weight: target.weight,
        })
    };
    Some(CompiledRoute {
        index,
        matches: route.matches.clone(),
        backends: route.to.iter().map(backend).collect::<Option<_>>()?,
        timeout_ms: route.timeout_ms.unwrap_or(timeout_ms),
        origin: route.origin.clone(),
    })
}

/// Where the instances of `service` are reached, in node and instance order.
pub fn endpoints(state: &MeshState, service: &ServiceName) -> ServiceEndpoints {
    let policy = state.policy.services.get(service).and_then(|entry| entry.service.as_ref());
    let endpoints =
        state.instances(service).filter_map(|instance| endpoint(state, policy, instance)).collect();
    ServiceEndpoints {
        service: service.clone(),
        revision: modified(state, &ResourceKey::Endpoints(service.clone())),
        endpoints,
    }
}

fn endpoint(
    state: &MeshState, policy: Option<&ServicePolicy>, instance: &Instance,
) -> Option<Endpoint> {
    let node = state.nodes.get(&instance.node)?;
    let endpoint_state = match (node.liveness, instance.spec.health) {
        (Liveness::Gone, _) => EndpointState::Gone,
        (_, Health::Critical) => EndpointState::Critical,
        (_, Health::Draining) => EndpointState::Draining,
        (Liveness::Suspect, Health::Passing) => EndpointState::Suspect,
        (Liveness::Alive, Health::Passing) => EndpointState::Healthy,
    };
    Some(Endpoint {
        instance: instance.spec.id.clone(),
        node: instance.node.clone(),
        address: SocketAddr::new(node.address, node.port),
        subsets: policy.map_or_else(Vec::new, |policy| subsets_of(policy, instance)),
        state: endpoint_state,
    })
}

fn subsets_of(policy: &ServicePolicy, instance: &Instance) -> Vec<SubsetName> {
    let holds = |(key, value): (&String, &String)| instance.spec.meta.get(key) == Some(value);
    policy
        .subsets
        .iter()
        .filter(|(_, subset)| subset.meta.iter().all(holds))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Who may call `service`; `None` before `mesh init`.
pub fn access(state: &MeshState, service: &ServiceName) -> Option<ServiceAccess> {
    let mesh = state.mesh.as_ref()?;
    let entry = state.policy.services.get(service);
    let policy = entry.and_then(|entry| entry.service.as_ref());
    Some(ServiceAccess {
        service: service.clone(),
        id: state.service_id(service)?,
        revision: modified(state, &ResourceKey::Access(service.clone())),
        protocol: policy.and_then(|p| p.protocol),
        mode: policy.and_then(|p| p.access).unwrap_or(mesh.access),
        version: entry.map_or(0, |entry| newest(entry)),
        rules: entry.map_or_else(Vec::new, |entry| compile_rules(entry)),
    })
}

/// The newest version among the files that speak of the service.
fn newest(entry: &PolicyOfService) -> u64 {
    entry.rules.iter().map(|(_, version)| *version).fold(entry.service_version, u64::max)
}

fn compile_rules(entry: &PolicyOfService) -> Vec<CompiledRule> {
    let of_kind = |kind: RuleKind| entry.rules.iter().filter(move |(rule, _)| rule.id.kind == kind);
    of_kind(RuleKind::Deny)
        .chain(of_kind(RuleKind::Allow))
        .map(|(rule, version)| CompiledRule {
            id: rule.id.clone(),
            from: rule.from.clone(),
            http: rule.http.clone(),
            mode: rule.mode,
            origin: rule.origin.clone(),
            version: *version,
        })
        .collect()
}

#[cfg(test)]
mod tests;
