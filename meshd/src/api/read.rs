//! Reads: what is shown of a state, and when it is fresh and new enough to be shown.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::api::{
    BundleAnswer, InstanceHealth, NodeAnswer, PolicyEntry, PolicyList, PolicyText, Ready, RouteId,
    ServerInfo, ServerStatus, ServiceAnswer, ServiceSummary,
};
use mesh_core::catalog::{Instance, Node};
use mesh_core::compile;
use mesh_core::name::{NodeName, ServiceName};
use mesh_core::policy::{AccessMode, PolicyObject, text};
use mesh_core::resource::ResourceKey;
use mesh_core::revision::Revision;
use mesh_core::state::{Mesh, MeshState};
use mesh_core::trust::Principal;
use mesh_core::why::{self, WhyError, WhyQuery};
use mesh_net::hash;
use tokio::time::{Instant, timeout_at};

use super::Answer;
use super::error::{Failure, Kind};
use super::nodes;
use super::request::Call;
use super::tokens;
use crate::lease;
use crate::limits::api::{CONSISTENT_MAX, WAIT_DEFAULT};
use crate::raft::{Role, state_hash};

/// One of the routes that can wait for a change.
pub(super) async fn watched(call: &Call) -> Result<Answer, Failure> {
    check_freshness(call).await?;
    if let Some(index) = call.query.index {
        wait(call, index).await?;
        check_leader(call)?;
    }
    show(call, &call.server.node.state())
}

/// Has what this server shows be as new as the call asks.
async fn check_freshness(call: &Call) -> Result<(), Failure> {
    if call.query.consistent {
        return Ok(call.server.node.linearizable(CONSISTENT_MAX).await?);
    }
    check_leader(call)
}

/// Refuses, unless asked for `stale`, while this server knows no leader.
fn check_leader(call: &Call) -> Result<(), Failure> {
    if call.query.stale || call.server.node.leader().is_some() {
        return Ok(());
    }
    let text = "this server knows no leader: try another, or read with ?stale";
    Err(Failure::new(Kind::Unavailable, "no_leader", text))
}

/// Waits until what is asked changed after `index`, or for the time asked.
///
/// Returns at once if `index` is of another epoch: after a restore, what was held means nothing.
async fn wait(call: &Call, index: Revision) -> Result<(), Failure> {
    let node = &call.server.node;
    let text = "too many blocking queries wait on this server";
    let room = match &call.by {
        Principal::Anonymous | Principal::Service(_) | Principal::ExpiredNode(_) => {
            &call.server.budgets.strangers
        }
        Principal::Server(_) | Principal::Node(_) | Principal::Token { .. } => &call.server.watches,
    };
    let _permit =
        room.try_acquire().map_err(|_| Failure::new(Kind::TooMany, "too_many_watches", text))?;
    let wait = call.query.wait.unwrap_or(WAIT_DEFAULT);
    let end = Instant::now() + wait + jitter(wait);
    let mut changed = node.changed();
    loop {
        changed.borrow_and_update();
        let state = node.state();
        let other_epoch = state.revision.epoch != index.epoch;
        if other_epoch || modified(call, &state) > index {
            return Ok(());
        }
        // Cancel safe, both.
        tokio::select! {
            news = timeout_at(end, changed.changed()) => if !matches!(news, Ok(Ok(()))) {
                return Ok(());
            },
            () = call.server.stop.cancelled() => return Ok(()),
        }
    }
}

/// Up to a sixteenth of `wait`, so that many who began together do not end together.
fn jitter(wait: Duration) -> Duration {
    let mut byte = [0];
    let drawn = aws_lc_rs::rand::fill(&mut byte).map_or(0, |()| u32::from(byte[0]));
    wait / 16 * drawn / 255
}

/// The last change of what is asked, or of anything where that is not kept.
fn modified(call: &Call, state: &MeshState) -> Revision {
    let of_policy = || state.policy.services.values().map(|entry| entry.modified).max();
    let of_service = |name: ServiceName| {
        let routes = compile::modified(state, &ResourceKey::Routes(name.clone()));
        routes.max(compile::modified(state, &ResourceKey::Endpoints(name)))
    };
    match call.spec.id {
        RouteId::Bundle => state.trust_modified,
        RouteId::Service | RouteId::Health => call.name().map_or(state.revision, of_service),
        RouteId::Policy | RouteId::PolicyObject => of_policy().unwrap_or(Revision::ZERO),
        _ => state.revision,
    }
}

fn show(call: &Call, state: &MeshState) -> Result<Answer, Failure> {
    let at = state.revision;
    match call.spec.id {
        RouteId::Bundle => Answer::json(&bundle(state)?, at),
        RouteId::Servers => Answer::json(&servers(call, state), at),
        RouteId::Tokens => Answer::json(&tokens::list(state), at),
        RouteId::OwnInstances => Answer::json(&instances_on(state, &nodes::own(call)?), at),
        RouteId::Nodes => {
            let all: Vec<&Node> = state.nodes.values().map(Arc::as_ref).collect();
            Answer::json(&all, at)
        }
        RouteId::Node => {
            let name: NodeName = call.name()?;
            let node = state.nodes.get(&name).ok_or_else(|| Failure::not_found("node", &name))?;
            let (node, instances) = (Node::clone(node), instances_on(state, &name));
            Answer::json(&NodeAnswer { node, instances }, at)
        }
        RouteId::Services => {
            let names = state.service_names();
            let all: Vec<_> = names.iter().map(|name| summary(state, name)).collect();
            Answer::json(&all, at)
        }
        RouteId::Service => Answer::json(&service(state, &call.name()?)?, at),
        RouteId::Health => Answer::json(&health(state, &call.name()?, call.query.passing), at),
        RouteId::Policy => Answer::json(&policy(state), at),
        RouteId::PolicyObject => {
            let id = call.query.id.as_deref();
            let id = id.ok_or_else(|| Failure::field("id", "id is missing, expected ?id=..."))?;
            Answer::json(&policy_object(state, id)?, at)
        }
        other => {
            let text = format!("route {other:?} is no watched read");
            Err(Failure::new(Kind::Internal, "internal", text))
        }
    }
}

pub(super) fn ready(call: &Call) -> Result<Answer, Failure> {
    let (node, state) = (&call.server.node, call.server.node.state());
    let reason = match (state.mesh.is_some(), node.leader().is_some()) {
        (false, _) => Some("the state has not arrived yet"),
        (true, false) => Some("no leader is known"),
        (true, true) => None,
    };
    let answer = Ready { ready: reason.is_none(), reason: reason.map(str::to_owned) };
    if answer.ready {
        return Answer::json(&answer, state.revision);
    }
    Err(Failure::new(Kind::Unavailable, "not_ready", answer.reason.unwrap_or_default()))
}

pub(super) async fn status(call: &Call) -> Result<Answer, Failure> {
    let (node, state) = (&call.server.node, call.server.node.state());
    let mesh = mesh(&state)?;
    let raft = node.metrics();
    // A pass over the whole state: not where requests are answered.
    let of_task = Arc::clone(&state);
    let hash = tokio::task::spawn_blocking(move || state_hash(&of_task)).await?;
    let hash = hash.map_err(|error| Failure::internal(&error))?;
    let role = match raft.role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
    };
    let instances = state.services.values().flat_map(|entry| entry.instances.values());
    let answer = ServerStatus {
        server: node.name().clone(),
        id: node.id(),
        leader: node.leader(),
        term: raft.term,
        role: role.to_owned(),
        revision: state.revision,
        applied_index: raft.applied.unwrap_or(0),
        state_hash: hex::encode(hash),
        trust_domain: mesh.trust_domain.clone(),
        datacenter: mesh.datacenter.clone(),
        access: mesh.access,
        policy_version: state.policy.version,
        feature_level: state.feature_level,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        nodes: state.nodes.len() as u64,
        services: state.service_names().len() as u64,
        instances: instances.map(|of_node| of_node.len() as u64).sum(),
    };
    Answer::json(&answer, state.revision)
}

pub(super) async fn agents(call: &Call) -> Result<Answer, Failure> {
    let agents = if call.query.stale {
        Ok(call.server.agents.all())
    } else {
        lease::all_agents(&call.server).await
    };
    let agents = agents.map_err(|why| Failure::new(Kind::Unavailable, "no_leader", why))?;
    Answer::json(&agents, call.server.node.state().revision)
}

pub(super) fn why(call: &Call) -> Result<Answer, Failure> {
    let (query, state) = (call.json::<WhyQuery>()?, call.server.node.state());
    let answer = why::why(&state, &query).map_err(|error| match error {
        WhyError::NotInitialised => Failure::not_initialised(),
        WhyError::Path(_) => Failure::field("http.path", error.to_string()),
    })?;
    Answer::json(&answer, state.revision)
}

pub(super) fn mesh(state: &MeshState) -> Result<&Mesh, Failure> {
    state.mesh.as_deref().ok_or_else(Failure::not_initialised)
}

fn bundle(state: &MeshState) -> Result<BundleAnswer, Failure> {
    let mesh = mesh(state)?;
    let bundle = state.bundle().ok_or_else(Failure::not_initialised)?;
    Ok(BundleAnswer {
        trust_domain: mesh.trust_domain.clone(),
        datacenter: mesh.datacenter.clone(),
        roots_pem: crate::server::roots_pem(state),
        fingerprints: bundle.roots.iter().map(|root| hex::encode(hash::sha256(&root.0))).collect(),
        revision: state.revision,
    })
}

/// The servers on record, with what this server knows of the membership.
pub(super) fn servers(call: &Call, state: &MeshState) -> Vec<ServerInfo> {
    let members = call.server.node.members();
    let info = |record: &Arc<mesh_core::command::ServerRecord>| {
        let member = members.iter().find(|member| member.id == record.id);
        ServerInfo {
            name: record.name.clone(),
            id: record.id,
            api_address: record.api_address.clone(),
            raft_address: record.raft_address.clone(),
            voter: member.is_some_and(|member| member.voter),
            leader: member.is_some_and(|member| member.leader),
            feature_level: record.feature_level,
        }
    };
    state.servers.values().map(info).collect()
}

fn instances_on(state: &MeshState, node: &NodeName) -> Vec<Instance> {
    state.instances_on(node).map(|instance| Instance::clone(instance)).collect()
}

fn summary(state: &MeshState, name: &ServiceName) -> ServiceSummary {
    let policy = state.policy.services.get(name);
    let own = policy.and_then(|entry| entry.service.as_ref());
    let endpoints = compile::endpoints(state, name).endpoints;
    let mesh_access = state.mesh.as_ref().map_or(AccessMode::Enforce, |mesh| mesh.access);
    let routes = compile::modified(state, &ResourceKey::Routes(name.clone()));
    ServiceSummary {
        service: name.clone(),
        protocol: own.and_then(|own| own.protocol),
        access: own.and_then(|own| own.access).unwrap_or(mesh_access),
        healthy: endpoints.iter().filter(|endpoint| endpoint.state.usable()).count() as u64,
        instances: endpoints.len() as u64,
        rules: policy.map_or(0, |entry| entry.rules.len() as u64),
        modified: routes.max(compile::modified(state, &ResourceKey::Endpoints(name.clone()))),
    }
}

fn service(state: &MeshState, name: &ServiceName) -> Result<ServiceAnswer, Failure> {
    if !state.service_names().contains(name) {
        return Err(Failure::not_found("service", name));
    }
    let objects: Vec<PolicyObject> = state.policy.services.get(name).map_or_else(Vec::new, |p| {
        let own = p.service.iter().cloned().map(PolicyObject::Service);
        own.chain(p.rules.iter().map(|(rule, _)| PolicyObject::Rule(rule.clone()))).collect()
    });
    Ok(ServiceAnswer {
        summary: summary(state, name),
        id: state.service_id(name).ok_or_else(Failure::not_initialised)?,
        endpoints: compile::endpoints(state, name).endpoints,
        instances: state.instances(name).map(|instance| Instance::clone(instance)).collect(),
        policy: text::print(&objects),
    })
}

fn health(state: &MeshState, name: &ServiceName, passing: bool) -> Vec<InstanceHealth> {
    let endpoints = compile::endpoints(state, name).endpoints;
    let of = |instance: &Arc<Instance>| {
        let same = |e: &&mesh_core::resource::Endpoint| {
            e.node == instance.node && e.instance == instance.spec.id
        };
        let endpoint = endpoints.iter().find(same)?.clone();
        let shown = !passing || endpoint.state.usable();
        shown.then(|| InstanceHealth { instance: Instance::clone(instance), endpoint })
    };
    state.instances(name).filter_map(of).collect()
}

fn policy(state: &MeshState) -> PolicyList {
    let mut objects: Vec<PolicyEntry> = state
        .policy
        .files
        .values()
        .flat_map(|in_force| {
            in_force.file.objects.iter().map(|object| PolicyEntry {
                id: object.id(),
                origin: object.origin().clone(),
                version: in_force.version,
                summary: one_line(object),
            })
        })
        .collect();
    objects.sort_by(|a, b| a.id.cmp(&b.id));
    PolicyList { version: state.policy.version, objects }
}

fn one_line(object: &PolicyObject) -> String {
    match object {
        PolicyObject::Service(policy) => {
            let protocol = policy.protocol.map_or("undeclared", |protocol| protocol.as_str());
            let (routes, subsets) = (policy.routes.len(), policy.subsets.len());
            format!("{protocol}, {routes} routes, {subsets} subsets")
        }
        PolicyObject::Rule(rule) => {
            let from: Vec<String> = rule.from.iter().map(ToString::to_string).collect();
            let what = match rule.http.len() {
                0 => "everything".to_owned(),
                count => format!("{count} HTTP matches"),
            };
            format!("{} {}: {what}", rule.id.kind.as_str(), from.join(", "))
        }
    }
}

fn policy_object(state: &MeshState, id: &str) -> Result<PolicyText, Failure> {
    let objects = state.policy.files.values().flat_map(|in_force| &in_force.file.objects);
    let found = objects.into_iter().find(|object| object.id() == id);
    let object = found.ok_or_else(|| Failure::not_found("policy object", id))?;
    let text = text::print(std::slice::from_ref(object));
    Ok(PolicyText { id: id.to_owned(), text, version: state.policy.version })
}
