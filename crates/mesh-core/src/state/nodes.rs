//! Nodes and their instances.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::MeshState;
use super::apply::{at_most, not_found};
use super::trust::scope;
use crate::catalog::{Instance, InstanceSpec, Liveness, Node, NodePolicy};
use crate::command::{
    EnrolNode1, Rejected, SetHealth1, SetLiveness1, SetNodeAddress1, SyncInstances1,
};
use crate::limits;
use crate::name::{InstanceId, NodeName, ServiceName};
use crate::trust::{Revocation, Revoked, TokenGrant};

impl MeshState {
    pub(super) fn enrol_node(&mut self, enrol: &EnrolNode1) -> Result<(), Rejected> {
        let granted = self.use_token(&enrol.token, &enrol.secret, &enrol.key)?;
        let found = format!("node {}", enrol.node);
        let TokenGrant::JoinNode { node, policy } = granted.grant else {
            return Err(scope("something else", found));
        };
        if let Some(node) = node.filter(|node| *node != enrol.node) {
            return Err(scope(format!("node {node}"), found));
        }
        if let Some(known) = self.nodes.get(&enrol.node) {
            let (what, name) = ("node".to_owned(), enrol.node.to_string());
            return if known.key == enrol.key {
                self.refuse_denied(&enrol.key, self.node_id(&enrol.node).as_ref(), &found)
            } else {
                Err(Rejected::Exists { what, name })
            };
        }
        if let Some(at) = granted.used_before {
            return Err(Rejected::TokenUsed(at));
        }
        self.refuse_denied(&enrol.key, self.node_id(&enrol.node).as_ref(), &found)?;
        at_most("number of nodes", self.nodes.len() + 1, limits::NODES_MAX)?;
        let node = Node {
            name: enrol.node.clone(),
            address: enrol.address,
            port: enrol.port,
            policy,
            key: enrol.key,
            enrolled_at: self.clock,
            liveness: Liveness::Alive,
            last_seen: self.clock,
            modified: self.revision,
        };
        self.nodes.insert(enrol.node.clone(), Arc::new(node));
        Ok(())
    }

    pub(super) fn set_node_address(&mut self, set: &SetNodeAddress1) -> Result<(), Rejected> {
        let node = self.node(&set.node)?;
        if node.address == set.address && node.port == set.port {
            return Ok(());
        }
        let node = self.node_mut(&set.node)?;
        (node.address, node.port) = (set.address, set.port);
        self.touch_services_of(&set.node);
        Ok(())
    }

    pub(super) fn set_node_policy(
        &mut self, name: &NodeName, policy: &NodePolicy,
    ) -> Result<(), Rejected> {
        self.node_mut(name)?.policy = policy.clone();
        let barred: Vec<_> = self
            .instances_on(name)
            .filter(|instance| !policy.allows(&instance.spec.service))
            .map(|instance| (instance.spec.service.clone(), instance.spec.id.clone()))
            .collect();
        for (service, id) in barred {
            self.remove_instance(name, &service, &id);
        }
        Ok(())
    }

    pub(super) fn remove_node(&mut self, name: &NodeName) -> Result<(), Rejected> {
        let node = self.node(name)?;
        let denied = Revocation {
            what: Revoked::Key(node.key),
            at: self.clock,
            reason: format!("node {name} was removed"),
        };
        let hosted: Vec<_> = self
            .instances_on(name)
            .map(|instance| (instance.spec.service.clone(), instance.spec.id.clone()))
            .collect();
        for (service, id) in hosted {
            self.remove_instance(name, &service, &id);
        }
        self.nodes.remove(name);
        self.revoke(&denied)
    }

    pub(super) fn sync_instances(&mut self, sync: &SyncInstances1) -> Result<(), Rejected> {
        let node = self.node(&sync.node)?;
        let mut ids = BTreeSet::new();
        for spec in &sync.upsert {
            spec.check()?;
            if !ids.insert(&spec.id) {
                let (what, name) = ("instance".to_owned(), spec.id.to_string());
                return Err(Rejected::Exists { what, name });
            }
            if !node.policy.allows(&spec.service) {
                let allowed: Vec<_> =
                    node.policy.services.iter().map(ToString::to_string).collect();
                return Err(Rejected::NodePolicy {
                    node: sync.node.clone(),
                    service: spec.service.to_string(),
                    allowed: if allowed.is_empty() { "none".into() } else { allowed.join(", ") },
                });
            }
        }
        let known: Vec<_> = self
            .instances_on(&sync.node)
            .map(|instance| (instance.spec.service.clone(), instance.spec.id.clone()))
            .collect();
        for (service, id) in &known {
            let moved = sync.upsert.iter().any(|spec| spec.id == *id && spec.service != *service);
            if moved || sync.remove.contains(id) {
                self.remove_instance(&sync.node, service, id);
            }
        }
        for spec in &sync.upsert {
            self.put_instance(&sync.node, spec);
        }
        at_most("number of services", self.services.len(), limits::SERVICES_MAX)?;
        let hosted = self.instances_on(&sync.node).count();
        at_most("number of instances on the node", hosted, limits::INSTANCES_PER_NODE_MAX)
    }

    pub(super) fn set_health(&mut self, set: &SetHealth1) -> Result<(), Rejected> {
        self.node(&set.node)?;
        let changed: Vec<_> = self
            .instances_on(&set.node)
            .filter_map(|instance| {
                let change = set.changes.get(&instance.spec.id)?;
                let mut spec = instance.spec.clone();
                (spec.health, spec.checks) = (change.health, change.checks.clone());
                Some(spec)
            })
            .collect();
        for spec in changed {
            spec.check()?;
            self.put_instance(&set.node, &spec);
        }
        Ok(())
    }

    pub(super) fn set_liveness(&mut self, set: &SetLiveness1) {
        for (name, seen) in &set.seen {
            if let Some(node) = self.nodes.get_mut(name) {
                let node = Arc::make_mut(node);
                node.last_seen = node.last_seen.max(*seen);
            }
        }
        let revision = self.revision;
        for (name, liveness) in &set.nodes {
            match self.nodes.get_mut(name) {
                Some(node) if node.liveness != *liveness => {
                    let node = Arc::make_mut(node);
                    (node.liveness, node.modified) = (*liveness, revision);
                }
                Some(_) | None => continue,
            }
            self.touch_services_of(name);
        }
    }

    fn node(&self, name: &NodeName) -> Result<Arc<Node>, Rejected> {
        self.nodes.get(name).cloned().ok_or_else(|| not_found("node", name))
    }

    fn node_mut(&mut self, name: &NodeName) -> Result<&mut Node, Rejected> {
        let revision = self.revision;
        let node = self.nodes.get_mut(name).ok_or_else(|| not_found("node", name))?;
        let node = Arc::make_mut(node);
        node.modified = revision;
        Ok(node)
    }

    fn put_instance(&mut self, node: &NodeName, spec: &InstanceSpec) {
        let revision = self.revision;
        let known = self
            .services
            .get(&spec.service)
            .and_then(|entry| entry.instances.get(node).and_then(|of_node| of_node.get(&spec.id)));
        if known.is_some_and(|instance| instance.spec == *spec) {
            return;
        }
        self.touch_node(node);
        let instance = Instance { node: node.clone(), spec: spec.clone(), modified: revision };
        let entry = Arc::make_mut(self.services.entry(spec.service.clone()).or_default());
        entry.modified = revision;
        entry
            .instances
            .entry(node.clone())
            .or_default()
            .insert(spec.id.clone(), Arc::new(instance));
    }

    fn remove_instance(&mut self, node: &NodeName, service: &ServiceName, id: &InstanceId) {
        let revision = self.revision;
        self.touch_node(node);
        let Some(entry) = self.services.get_mut(service).map(Arc::make_mut) else {
            return;
        };
        entry.modified = revision;
        if let Some(of_node) = entry.instances.get_mut(node) {
            of_node.remove(id);
            if of_node.is_empty() {
                entry.instances.remove(node);
            }
        }
        // an empty entry stays: its revision tells the last removal to those who watch
    }

    fn touch_node(&mut self, name: &NodeName) {
        let revision = self.revision;
        if let Some(node) = self.nodes.get_mut(name) {
            Arc::make_mut(node).modified = revision;
        }
    }

    fn touch_services_of(&mut self, node: &NodeName) {
        let revision = self.revision;
        let hosted: Vec<_> = self
            .services
            .iter()
            .filter(|(_, entry)| entry.instances.contains_key(node))
            .map(|(name, _)| name.clone())
            .collect();
        for name in hosted {
            if let Some(entry) = self.services.get_mut(&name) {
                Arc::make_mut(entry).modified = revision;
            }
        }
    }
}
