//! `why`: what would happen to a call, and every reason, from the same code that the proxy runs.

use serde::{Deserialize, Serialize};

use crate::access::{self, AccessRequest, Decision, HttpRequest, RuleRef, decide};
use crate::compile;
use crate::identity::SpiffeId;
use crate::name::{NodeName, ServiceName, SubsetName};
use crate::path::{self, PathError};
use crate::policy::{Mode, Protocol, RuleKind};
use crate::resource::{CompiledRule, Endpoint, ServiceAccess};
use crate::revision::Revision;
use crate::route::{RouteRef, find};
use crate::state::MeshState;
use crate::trust::Revoked;

/// The call asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhyQuery {
    /// Who calls.
    pub from: WhyCaller,
    /// The service called.
    pub to: ServiceName,
    /// The request; `None` asks about an opaque connection.
    pub http: Option<WhyHttp>,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum WhyCaller {
    /// A service of this datacenter.
    Service(ServiceName),
    /// A node of this datacenter.
    Node(NodeName),
    /// Any identity.
    Spiffe(SpiffeId),
}

/// The request asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhyHttp {
    /// Such as `GET`.
    pub method: String,
    /// As the caller would send it, without the query.
    pub path: String,
    /// Names in any case, values as sent.
    pub headers: Vec<(String, String)>,
}

/// What would happen, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhyAnswer {
    /// The state asked.
    pub revision: Revision,
    /// The version of policy in force.
    pub version: u64,
    /// The caller.
    pub caller: SpiffeId,
    /// Whether every backend that could be chosen lets the call pass and has an endpoint, and the
    /// caller is not on the deny list.
    pub allowed: bool,
    /// What the service speaks; `None` is undeclared: opaque TCP.
    pub protocol: Option<Protocol>,
    /// The path as asked.
    pub path_before: Option<String>,
    /// The path as decided on and forwarded.
    pub path_after: Option<String>,
    /// The route that takes the call.
    pub route: RouteRef,
    /// Where it may go.
    pub backends: Vec<WhyBackend>,
    /// Things worth knowing that decided nothing.
    pub notes: Vec<String>,
}

/// One destination the call may go to, and what its hosts would say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhyBackend {
    /// The service.
    pub service: ServiceName,
    /// A subset of it; `None` is all.
    pub subset: Option<SubsetName>,
    /// Share of the calls.
    pub weight: u32,
    /// The verdict of the service's hosts.
    pub decision: Decision,
    /// Rules of the service that did not decide, and why not.
    pub losers: Vec<Loser>,
    /// The endpoints, those out with their reason.
    pub endpoints: Vec<WhyEndpoint>,
}

/// A rule that did not decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loser {
    /// The rule.
    pub rule: RuleRef,
    /// Why it did not.
    pub why: String,
}

/// An endpoint, and whether it could be picked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhyEndpoint {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Whether a call could go there.
    pub usable: bool,
    /// Why, or why not.
    pub why: String,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyError {
    /// No mesh yet.
    #[error("the mesh is not initialised, run `mesh init` on its first server")]
    NotInitialised,
    /// The proxy would refuse the request before any rule.
    #[error("the request would be refused with 400: {0}")]
    Path(#[from] PathError),
}

/// What would happen to `query` in `state`.
///
/// # Errors
/// [`WhyError`] if the request could not even be asked about.
pub fn why(state: &MeshState, query: &WhyQuery) -> Result<WhyAnswer, WhyError> {
    let mesh = state.mesh.as_ref().ok_or(WhyError::NotInitialised)?;
    let caller = match &query.from {
        WhyCaller::Service(name) => SpiffeId::service(&mesh.trust_domain, &mesh.datacenter, name),
        WhyCaller::Node(name) => SpiffeId::node(&mesh.trust_domain, &mesh.datacenter, name),
        WhyCaller::Spiffe(id) => id.clone(),
    };
    let routes = compile::routes(state, &query.to).ok_or(WhyError::NotInitialised)?;
    let is_http = routes.protocol.is_some_and(Protocol::is_http);
    let asked = query.http.as_ref().filter(|_| is_http);
    let path_after = asked.map(|http| path::canonical(&http.path)).transpose()?;
    let lowered: Vec<(String, String)> = asked
        .map(|http| http.headers.iter().map(|(n, v)| (n.to_lowercase(), v.clone())).collect())
        .unwrap_or_default();
    let headers: Vec<(&str, &[u8])> =
        lowered.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    let request = asked.zip(path_after.as_deref()).map(|(http, path)| HttpRequest {
        method: &http.method,
        path,
        headers: &headers,
    });
    let found = find(&routes, request.as_ref());
    let targets = match found {
        crate::route::Found::Route(route) => route
            .backends
            .iter()
            .map(|to| (to.service.clone(), to.subset.clone(), to.weight))
            .collect(),
        crate::route::Found::Default => vec![(query.to.clone(), None, 1)],
    };
    let asking = AccessRequest { caller: &caller, http: request };
    let backends: Vec<WhyBackend> = targets
        .into_iter()
        .map(|target| backend(state, target, &asking))
        .collect::<Option<_>>()
        .ok_or(WhyError::NotInitialised)?;
    let reached = |b: &WhyBackend| b.decision.allowed && b.endpoints.iter().any(|e| e.usable);
    Ok(WhyAnswer {
        revision: state.revision,
        version: state.policy.version,
        allowed: !is_denied(state, &caller)
            && backends.iter().filter(|b| b.weight > 0).all(reached),
        protocol: routes.protocol,
        path_before: asked.map(|http| http.path.clone()),
        path_after,
        route: found.reference(&routes),
        notes: notes(state, query, &caller, is_http),
        caller,
        backends,
    })
}

fn backend(
    state: &MeshState, (service, subset, weight): (ServiceName, Option<SubsetName>, u32),
    asking: &AccessRequest<'_>,
) -> Option<WhyBackend> {
    let rules = compile::access(state, &service)?;
    let decision = decide(&rules, asking);
    let endpoints = compile::endpoints(state, &service)
        .endpoints
        .into_iter()
        .map(|endpoint| judge(endpoint, subset.as_ref()))
        .collect();
    let losers = losers(&rules, asking, &decision);
    Some(WhyBackend { service, subset, weight, decision, losers, endpoints })
}

fn judge(endpoint: Endpoint, subset: Option<&SubsetName>) -> WhyEndpoint {
    match subset.filter(|subset| !endpoint.subsets.contains(subset)) {
        Some(subset) => {
            let why = format!("not in subset {subset}: its meta does not match");
            WhyEndpoint { endpoint, usable: false, why }
        }
        None => {
            let why = endpoint.state.reason().to_owned();
            WhyEndpoint { usable: endpoint.state.usable(), endpoint, why }
        }
    }
}

fn losers(rules: &ServiceAccess, asking: &AccessRequest<'_>, decision: &Decision) -> Vec<Loser> {
    let decided = |rule: &CompiledRule| match &decision.reason {
        access::Reason::Rule(winner) => winner.id == rule.id,
        access::Reason::NoRule | access::Reason::AuditOnly => false,
    };
    rules
        .rules
        .iter()
        .filter(|rule| !decided(rule))
        .map(|rule| Loser { rule: rule.into(), why: lost(rules, rule, asking) })
        .collect()
}

fn lost(rules: &ServiceAccess, rule: &CompiledRule, asking: &AccessRequest<'_>) -> String {
    let caller_only = CompiledRule { http: Vec::new(), ..rule.clone() };
    if !access::matches(rules, &caller_only, asking) {
        let from: Vec<_> = rule.from.iter().map(ToString::to_string).collect();
        return format!("the caller is not in from = [{}]", from.join(", "));
    }
    if !access::matches(rules, rule, asking) {
        return match asking.http {
            Some(_) => "the caller is, the request is not in http".to_owned(),
            None => "it has http matches and the connection is opaque".to_owned(),
        };
    }
    match (rule.mode, rule.id.kind) {
        (Mode::Audit, RuleKind::Allow) => "it matches, but mode = \"audit\" grants nothing".into(),
        (Mode::Audit, RuleKind::Deny) => "it matches, but mode = \"audit\" only counts".into(),
        (Mode::Enforce, RuleKind::Allow) => {
            "it matches too; a deny or an earlier id decided".into()
        }
        (Mode::Enforce, RuleKind::Deny) => "it matches too; an earlier id decided".into(),
    }
}

fn notes(state: &MeshState, query: &WhyQuery, caller: &SpiffeId, is_http: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let to = &query.to;
    if query.http.is_some() && !is_http {
        notes.push(format!(
            "{to} declares no HTTP protocol, so requests are not told apart; add protocol = \"http\" to [service.{to}]"
        ));
    }
    if query.http.is_none() && is_http {
        notes.push(format!(
            "{to} speaks HTTP and no request is given: rules and routes with http matches are judged as for an opaque connection"
        ));
    }
    let absent = |name: &ServiceName| state.instances(name).next().is_none();
    if absent(to) {
        notes.push(format!("no instance of {to} is registered"));
    }
    if let Some((_, name)) = caller.as_service().filter(|(_, name)| *name != to && absent(name)) {
        notes.push(format!("no instance of {name} is registered"));
    }
    if is_denied(state, caller) {
        notes.push(format!("{caller} is on the deny list: its connections are refused"));
    }
    notes
}

/// Whether the deny list refuses every certificate of `caller`.
fn is_denied(state: &MeshState, caller: &SpiffeId) -> bool {
    state.revoked.iter().any(|denied| matches!(&denied.what, Revoked::Identity(id) if id == caller))
}

#[cfg(test)]
mod tests;
