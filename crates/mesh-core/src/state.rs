//! [`MeshState`]: the fold of the log, *replicated* state, the same bytes on every server.

mod apply;
mod nodes;
mod policy;
mod trust;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::catalog::{Instance, Node};
use crate::command::ServerRecord;
use crate::identity::{SpiffeId, TrustDomain};
use crate::name::{Datacenter, InstanceId, NodeName, ServerName, ServiceName, TokenId};
use crate::policy::{AccessMode, PolicyFile, Rule, ServicePolicy};
use crate::revision::Revision;
use crate::time::UnixMillis;
use crate::trust::{Bundle, CertAuthority, Revocation, Token};

/// Everything the control cluster knows. Cheap to clone: maps are persistent, values shared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshState {
    /// The last change.
    pub revision: Revision,
    /// The latest time any command carried.
    pub clock: UnixMillis,
    /// What the servers can all speak.
    pub feature_level: u32,
    /// `None` until `mesh init`.
    pub mesh: Option<Arc<Mesh>>,
    /// Control servers, by name.
    pub servers: OrdMap<ServerName, Arc<ServerRecord>>,
    /// The highest Raft id ever given to a server: ids are never used twice.
    pub server_id_last: u64,
    /// Nodes, by name.
    pub nodes: OrdMap<NodeName, Arc<Node>>,
    /// Instances, by service, then by node and instance.
    pub services: OrdMap<ServiceName, Arc<ServiceInstances>>,
    /// Policy in force.
    pub policy: Policy,
    /// Tokens, by id.
    pub tokens: OrdMap<TokenId, Arc<Token>>,
    /// The deny list, in order.
    pub revoked: OrdSet<Revocation>,
    /// When trust (bundle or deny list) last changed.
    pub trust_modified: Revision,
}

/// What `mesh init` fixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mesh {
    /// The namespace of all identities.
    pub trust_domain: TrustDomain,
    /// This datacenter.
    pub datacenter: Datacenter,
    /// What happens to calls that no rule allows, unless a service says otherwise.
    pub access: AccessMode,
    /// The CA.
    pub ca: CertAuthority,
    /// When.
    pub created_at: UnixMillis,
}

/// The instances of one service, in node and instance order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceInstances {
    /// By node and instance name.
    pub instances: OrdMap<NodeName, OrdMap<InstanceId, Arc<Instance>>>,
    /// The last change of any of them, or of the liveness or address of one's node.
    pub modified: Revision,
}

/// Policy in force, and by service what it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Counts applies: `v12`.
    pub version: u64,
    /// The files in force, by name.
    pub files: OrdMap<String, Arc<FileInForce>>,
    /// What the files say, by service: derived from them by `apply`.
    pub services: OrdMap<ServiceName, Arc<PolicyOfService>>,
}

/// A policy file and the version that put it in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileInForce {
    /// The file.
    pub file: PolicyFile,
    /// The version that last changed it.
    pub version: u64,
}

/// Everything policy says about one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyOfService {
    /// `[service.NAME]`.
    pub service: Option<ServicePolicy>,
    /// The version of the file that holds it; 0 if there is none.
    pub service_version: u64,
    /// Allows and denies, each with the version of its file, in id order.
    pub rules: Vec<(Rule, u64)>,
    /// The last change.
    pub modified: Revision,
}

impl MeshState {
    /// The instances of `service`; none if nobody registered it.
    pub fn instances(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<Instance>> {
        self.services
            .get(service)
            .into_iter()
            .flat_map(|entry| entry.instances.iter())
            .flat_map(|(_, of_node)| of_node.iter().map(|(_, instance)| instance))
    }

    /// The instances on `node`.
    pub fn instances_on<'a>(
        &'a self, node: &'a NodeName,
    ) -> impl Iterator<Item = &'a Arc<Instance>> {
        self.services
            .iter()
            .filter_map(move |(_, entry)| entry.instances.get(node))
            .flat_map(|of_node| of_node.iter().map(|(_, instance)| instance))
    }

    /// What everyone verifies against; `None` before `mesh init`.
    pub fn bundle(&self) -> Option<Bundle> {
        let mesh = self.mesh.as_ref()?;
        Some(Bundle {
            trust_domain: mesh.trust_domain.clone(),
            roots: vec![mesh.ca.root.clone()],
            revoked: self.revoked.iter().cloned().collect(),
        })
    }

    /// The identity of `service` in this datacenter; `None` before `mesh init`.
    pub fn service_id(&self, service: &ServiceName) -> Option<SpiffeId> {
        let mesh = self.mesh.as_ref()?;
        Some(SpiffeId::service(&mesh.trust_domain, &mesh.datacenter, service))
    }

    /// The identity of `node` in this datacenter; `None` before `mesh init`.
    pub fn node_id(&self, node: &NodeName) -> Option<SpiffeId> {
        let mesh = self.mesh.as_ref()?;
        Some(SpiffeId::node(&mesh.trust_domain, &mesh.datacenter, node))
    }

    /// Every service that is registered or that policy speaks of, in order, without doubles.
    pub fn service_names(&self) -> Vec<ServiceName> {
        // an emptied entry stays to tell its last change, and is no service any more
        let registered = self.services.iter().filter(|(_, entry)| !entry.instances.is_empty());
        let spoken_of = self
            .policy
            .services
            .iter()
            .filter(|(_, entry)| entry.service.is_some() || !entry.rules.is_empty());
        let mut names: Vec<_> = registered.map(|(name, _)| name.clone()).collect();
        names.extend(spoken_of.map(|(name, _)| name.clone()));
        names.sort();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests;
