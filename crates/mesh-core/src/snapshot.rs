//! [`ProxySnapshot`]: everything one agent's proxy goes by, swapped in whole.
//!
//! State kind: *derived*, from resources that servers sent and from the host's own files. Plain
//! data: it holds nothing that runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::{SpiffeId, TrustDomain};
use crate::name::{Datacenter, InstanceId, NodeName, ServiceName};
use crate::resource::{Resource, ResourceKey, ServiceAccess, ServiceEndpoints, ServiceRoutes};
use crate::revision::Revision;
use crate::trust::Bundle;

pub use crate::catalog::Health;

/// The config in force of one proxy. A request loads it once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxySnapshot {
    /// Who this agent is.
    pub host: HostIdentity,
    /// The newest revision that is in force whole.
    pub revision: Revision,
    /// What everyone verifies against.
    pub bundle: Arc<Bundle>,
    /// How to call services.
    pub routes: BTreeMap<ServiceName, Arc<ServiceRoutes>>,
    /// Where services are reached.
    pub endpoints: BTreeMap<ServiceName, Arc<ServiceEndpoints>>,
    /// Who may call the services of this host.
    pub access: BTreeMap<ServiceName, Arc<ServiceAccess>>,
    /// The instances of this host.
    pub hosted: BTreeMap<InstanceId, Arc<HostedInstance>>,
}

/// Who an agent is, fixed at enrolment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostIdentity {
    /// The mesh.
    pub trust_domain: TrustDomain,
    /// The datacenter.
    pub datacenter: Datacenter,
    /// This node.
    pub node: NodeName,
}

impl HostIdentity {
    /// The identity of `service` in this datacenter.
    pub fn service_id(&self, service: &ServiceName) -> SpiffeId {
        SpiffeId::service(&self.trust_domain, &self.datacenter, service)
    }

    /// The identity of this node.
    pub fn node_id(&self) -> SpiffeId {
        SpiffeId::node(&self.trust_domain, &self.datacenter, &self.node)
    }
}

/// An instance of this host, as its proxy sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostedInstance {
    /// Its name.
    pub id: InstanceId,
    /// The service it is a copy of.
    pub service: ServiceName,
    /// Where the application listens.
    pub address: SocketAddr,
    /// The outcome of its checks.
    pub health: Health,
    /// Whether the service names a unit or a user: its explicit ports then refuse all others. If
    /// not, whoever reaches such a port acts as the service.
    pub exclusive: bool,
    /// The explicit ports through which it calls others.
    pub upstreams: Vec<UpstreamListener>,
}

/// An explicit port: what connects to it calls `service` as the instance's own service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamListener {
    /// The service called.
    pub service: ServiceName,
    /// A loopback address and port.
    pub listen: SocketAddr,
}

impl ProxySnapshot {
    /// A snapshot with no services.
    pub fn empty(host: HostIdentity, bundle: Bundle) -> Self {
        Self {
            host,
            revision: Revision::ZERO,
            bundle: Arc::new(bundle),
            routes: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            access: BTreeMap::new(),
            hosted: BTreeMap::new(),
        }
    }

    /// This snapshot with a batch of `resources` that brings it to `revision`; `None` if the batch
    /// is older than what is in force. `full` drops what the batch does not hold.
    pub fn with_batch(
        &self, revision: Revision, full: bool, resources: Vec<Resource>,
    ) -> Option<Self> {
        if revision < self.revision {
            return None;
        }
        let mut next = self.clone();
        next.revision = revision;
        if full {
            next.routes.clear();
            next.endpoints.clear();
            next.access.clear();
        }
        for resource in resources {
            match resource {
                Resource::Bundle(bundle) => next.bundle = Arc::new(bundle),
                Resource::Routes(new) => {
                    drop(next.routes.insert(new.service.clone(), Arc::new(new)))
                }
                Resource::Endpoints(new) => {
                    drop(next.endpoints.insert(new.service.clone(), Arc::new(new)));
                }
                Resource::Access(new) => {
                    drop(next.access.insert(new.service.clone(), Arc::new(new)))
                }
            }
        }
        Some(next)
    }

    /// Drops the resources that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&ResourceKey) -> bool) {
        self.routes.retain(|name, _| keep(&ResourceKey::Routes(name.clone())));
        self.endpoints.retain(|name, _| keep(&ResourceKey::Endpoints(name.clone())));
        self.access.retain(|name, _| keep(&ResourceKey::Access(name.clone())));
    }

    /// What is held, and the revision of each; the bundle's is the snapshot's own.
    pub fn held(&self) -> BTreeMap<ResourceKey, Revision> {
        let mut held = BTreeMap::from([(ResourceKey::Bundle, self.revision)]);
        held.extend(self.routes.iter().map(|(n, r)| (ResourceKey::Routes(n.clone()), r.revision)));
        held.extend(
            self.endpoints.iter().map(|(n, e)| (ResourceKey::Endpoints(n.clone()), e.revision)),
        );
        held.extend(self.access.iter().map(|(n, a)| (ResourceKey::Access(n.clone()), a.revision)));
        held
    }

    /// The instances of `service` on this host, in name order.
    pub fn instances_of(
        &self, service: &ServiceName,
    ) -> impl Iterator<Item = &Arc<HostedInstance>> {
        self.hosted.values().filter(move |instance| instance.service == *service)
    }

    /// What this host must know: access, routes and endpoints of what it hosts, routes and
    /// endpoints of what its instances call, and the bundle.
    pub fn wanted<'a>(
        hosted: impl IntoIterator<Item = (&'a ServiceName, &'a [ServiceName])>,
    ) -> Vec<ResourceKey> {
        let mut keys = vec![ResourceKey::Bundle];
        for (service, upstreams) in hosted {
            keys.push(ResourceKey::Access(service.clone()));
            keys.push(ResourceKey::Routes(service.clone()));
            keys.push(ResourceKey::Endpoints(service.clone()));
            for upstream in upstreams {
                keys.push(ResourceKey::Routes(upstream.clone()));
                keys.push(ResourceKey::Endpoints(upstream.clone()));
            }
        }
        keys.sort();
        keys.dedup();
        keys
    }
}

#[cfg(test)]
mod tests;
