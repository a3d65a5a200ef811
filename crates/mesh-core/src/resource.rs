//! What servers send to agents: three resources per service, and the bundle.
//!
//! State kind: *derived*, by [`crate::compile`]. Plain data that a proxy matches; it never holds
//! user policy.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::identity::SpiffeId;
use crate::name::{InstanceId, NodeName, ServiceName, SubsetName};
use crate::policy::{AccessMode, HttpMatch, Mode, Origin, RouteMatch, RuleId, Source};
use crate::revision::Revision;
use crate::trust::Bundle;

pub use crate::policy::{Protocol, RuleKind};

/// Names one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ResourceKey {
    /// For everyone.
    Bundle,
    /// For callers of the service.
    Routes(ServiceName),
    /// For callers of the service.
    Endpoints(ServiceName),
    /// For hosts of the service only.
    Access(ServiceName),
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// See [`ResourceKey::Bundle`].
    Bundle(Bundle),
    /// See [`ResourceKey::Routes`].
    Routes(ServiceRoutes),
    /// See [`ResourceKey::Endpoints`].
    Endpoints(ServiceEndpoints),
    /// See [`ResourceKey::Access`].
    Access(ServiceAccess),
}

impl Resource {
    /// The resource's name.
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Bundle(_) => ResourceKey::Bundle,
            Self::Routes(routes) => ResourceKey::Routes(routes.service.clone()),
            Self::Endpoints(endpoints) => ResourceKey::Endpoints(endpoints.service.clone()),
            Self::Access(access) => ResourceKey::Access(access.service.clone()),
        }
    }
}

/// How to call a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRoutes {
    /// The service.
    pub service: ServiceName,
    /// Whom a caller must find at the other end.
    pub id: SpiffeId,
    /// The last change that touched this resource.
    pub revision: Revision,
    /// What the service speaks; `None` is undeclared: opaque TCP.
    pub protocol: Option<Protocol>,
    /// Longest time for one request, in milliseconds.
    pub timeout_ms: u64,
    /// Longest time to connect, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Where the service's table stands, if it has one.
    pub origin: Option<Origin>,
    /// The version of the policy file it stands in; 0 if it has none.
    pub version: u64,
    /// First match wins; no match goes to all endpoints of the service.
    pub routes: Vec<CompiledRoute>,
}

/// One route of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompiledRoute {
    /// Its place among the routes, from 0: `service.orders/route[0]`.
    pub index: u32,
    /// Which requests.
    pub matches: RouteMatch,
    /// Where they go. Weights sum to at least 1.
    pub backends: Vec<Backend>,
    /// Longest time for one request, in milliseconds.
    pub timeout_ms: u64,
    /// Where it stands.
    pub origin: Origin,
}

/// One destination of a route: a service, or a subset of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// The service.
    pub service: ServiceName,
    /// Whom a caller must find at the other end.
    pub id: SpiffeId,
    /// A subset of its endpoints; `None` is all.
    pub subset: Option<SubsetName>,
    /// Share of the route's requests.
    pub weight: u32,
}

/// Where the instances of a service are reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceEndpoints {
    /// The service.
    pub service: ServiceName,
    /// The last change that touched this resource.
    pub revision: Revision,
    /// In node and instance order. Healthy and suspect ones, and those that are out with their
    /// reason, so that `mesh why` can say why.
    pub endpoints: Vec<Endpoint>,
}

/// One instance as peers reach it: through its node's agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The instance.
    pub instance: InstanceId,
    /// Its node.
    pub node: NodeName,
    /// The inbound mTLS port of the node's agent.
    pub address: SocketAddr,
    /// The subsets that the instance belongs to, in order.
    pub subsets: Vec<SubsetName>,
    /// Whether it may be used.
    pub state: EndpointState,
}

/// Whether an endpoint may be used, and if not, why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    /// It may.
    Healthy,
    /// After healthy ones: its node's lease expired together with many others.
    Suspect,
    /// A check of it fails.
    Critical,
    /// It is being taken out of service.
    Draining,
    /// Its node's lease expired.
    Gone,
}

impl EndpointState {
    /// Whether calls may go there.
    pub fn usable(self) -> bool {
        match self {
            Self::Healthy | Self::Suspect => true,
            Self::Critical | Self::Draining | Self::Gone => false,
        }
    }

    /// Why calls do not go there, for people.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Suspect => "suspect: its node stopped answering together with many others",
            Self::Critical => "critical: a check fails or has not passed yet",
            Self::Draining => "draining: it is being taken out of service",
            Self::Gone => "gone: its node's lease expired",
        }
    }
}

/// Who may call a service: decided by the agents that host it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccess {
    /// The service.
    pub service: ServiceName,
    /// Its identity.
    pub id: SpiffeId,
    /// The last change that touched this resource.
    pub revision: Revision,
    /// What the service speaks; `None` is undeclared: opaque TCP.
    pub protocol: Option<Protocol>,
    /// What happens to a call that no rule allows.
    pub mode: AccessMode,
    /// The newest version of a file that speaks of the service; 0 if none does.
    pub version: u64,
    /// Denies first, each kind in id order.
    pub rules: Vec<CompiledRule>,
}

/// One rule, ready to match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompiledRule {
    /// Its stable id.
    pub id: RuleId,
    /// Any of these callers.
    pub from: Vec<Source>,
    /// Any of these requests; empty is every request and every connection.
    pub http: Vec<HttpMatch>,
    /// Acts or only counts.
    pub mode: Mode,
    /// Where it stands.
    pub origin: Origin,
    /// The version of the file it stands in.
    pub version: u64,
}
