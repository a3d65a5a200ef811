//! `decide`: may this caller make this request? The one evaluator, run by proxy, CLI and plan.
//!
//! Allows add up; any matching deny wins; nothing matching is denied. What cannot be decided (an
//! HTTP rule on a connection whose requests are not seen) counts against the caller: such an
//! allow grants nothing, such a deny refuses.

use serde::{Deserialize, Serialize};

use crate::identity::SpiffeId;
use crate::policy::{AccessMode, HeaderMatch, HttpMatch, Mode, Origin, RuleId, RuleKind, Source};
use crate::resource::{CompiledRule, ServiceAccess};

/// What is asked, as the callee's agent received it.
#[derive(Clone, Copy, Debug)]
pub struct AccessRequest<'a> {
    /// Who calls: the verified identity of the connection.
    pub caller: &'a SpiffeId,
    /// The request; `None` for an opaque connection.
    pub http: Option<HttpRequest<'a>>,
}

/// The parts of a request that rules and routes look at.
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'a> {
    /// Upper case as received.
    pub method: &'a str,
    /// In canonical form ([`crate::path`]), without the query.
    pub path: &'a str,
    /// All headers, names in lower case, a name once per value.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// The answer, with its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Whether the call passes.
    pub allowed: bool,
    /// Why.
    pub reason: Reason,
    /// Rules in audit mode that would have turned what the rules say (leaving aside that the
    /// service may only audit): denies of an allowed call, allows of a call that none allowed.
    pub audited: Vec<RuleRef>,
}

/// Why a call passes or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Reason {
    /// This rule decided.
    Rule(RuleRef),
    /// No rule matched, so it is denied.
    NoRule,
    /// No rule matched and the service only audits, so it passes and is logged.
    AuditOnly,
}

/// A rule, as named in logs and answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleRef {
    /// Its stable id.
    pub id: RuleId,
    /// Where it stands.
    pub origin: Origin,
    /// The version of the file it stands in.
    pub version: u64,
}

impl std::fmt::Display for RuleRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}@v{}", self.id, self.origin, self.version)
    }
}

impl Reason {
    /// The stable id for logs, metrics and the refusal: a rule id, `default` or `audit`.
    pub fn id(&self) -> String {
        match self {
            Self::Rule(rule) => rule.id.to_string(),
            Self::NoRule => "default".to_owned(),
            Self::AuditOnly => "audit".to_owned(),
        }
    }
}

impl From<&CompiledRule> for RuleRef {
    fn from(rule: &CompiledRule) -> Self {
        Self { id: rule.id.clone(), origin: rule.origin.clone(), version: rule.version }
    }
}

/// Decides `request` by `access`. Pure: the same arguments give the same answer everywhere.
pub fn decide(access: &ServiceAccess, request: &AccessRequest<'_>) -> Decision {
    let matching = |kind: RuleKind, mode: Mode| {
        access.rules.iter().filter(move |rule| {
            rule.id.kind == kind && rule.mode == mode && matches(access, rule, request)
        })
    };
    let audited = |kind| matching(kind, Mode::Audit).map(RuleRef::from).collect();
    let only_audits = access.mode == AccessMode::Audit;
    if let Some(deny) = matching(RuleKind::Deny, Mode::Enforce).next() {
        let reason = Reason::Rule(deny.into());
        return Decision { allowed: only_audits, reason, audited: Vec::new() };
    }
    if let Some(allow) = matching(RuleKind::Allow, Mode::Enforce).next() {
        let reason = Reason::Rule(allow.into());
        return Decision { allowed: true, reason, audited: audited(RuleKind::Deny) };
    }
    let reason = if only_audits { Reason::AuditOnly } else { Reason::NoRule };
    Decision { allowed: only_audits, reason, audited: audited(RuleKind::Allow) }
}

/// Whether `rule` matches `request`.
pub fn matches(access: &ServiceAccess, rule: &CompiledRule, request: &AccessRequest<'_>) -> bool {
    let deny = rule.id.kind == RuleKind::Deny;
    let is = |source| is_source(access, source, request.caller, deny);
    let by_caller = rule.from.iter().any(is);
    by_caller && (rule.http.is_empty() || by_http(rule, request))
}

fn by_http(rule: &CompiledRule, request: &AccessRequest<'_>) -> bool {
    let deny = rule.id.kind == RuleKind::Deny;
    match &request.http {
        // requests that are not seen cannot be told apart: a deny refuses them all
        None => deny,
        Some(http) => rule.http.iter().any(|wanted| is_request(wanted, http, deny)),
    }
}

fn is_source(access: &ServiceAccess, source: &Source, caller: &SpiffeId, deny: bool) -> bool {
    match source {
        Source::Spiffe(id) => return id == caller,
        // "nobody" means nobody: an id that another rule allows by name is no way around it
        Source::Any if deny => return true,
        Source::Any | Source::Service { .. } | Source::Node(_) => {}
    }
    if caller.trust_domain != access.id.trust_domain {
        return false;
    }
    match source {
        // an issuing certificate or a control server never calls a service
        Source::Any => caller.as_service().is_some() || caller.as_node().is_some(),
        Source::Service { service, dc } => caller.as_service().is_some_and(|(in_dc, name)| {
            name == service && dc.as_ref().is_none_or(|dc| dc == in_dc)
        }),
        Source::Node(node) => caller.as_node() == Some(node),
        Source::Spiffe(id) => id == caller,
    }
}

fn is_request(wanted: &HttpMatch, request: &HttpRequest<'_>, deny: bool) -> bool {
    let method = wanted.methods.is_empty()
        || wanted.methods.iter().any(|method| method.as_str() == request.method);
    method
        && wanted.path.matches(request.path)
        && wanted.headers.iter().all(|header| has_header(header, request, deny))
}

/// Whether a header matches: for an allow every line must be the value; for a deny it is enough
/// that some reader could find the value: in one line, in one item of a comma-separated list, or
/// in all lines joined as one list (RFC 9110 §5.3 lets any hop join or split them).
fn has_header(wanted: &HeaderMatch, request: &HttpRequest<'_>, deny: bool) -> bool {
    let lines: Vec<&[u8]> = request
        .headers
        .iter()
        .filter(|(name, _)| *name == wanted.name)
        .map(|(_, value)| *value)
        .collect();
    let value = wanted.value.as_bytes();
    if !deny {
        return !lines.is_empty() && lines.iter().all(|line| *line == value);
    }
    let joined = lines.join(&b","[..]);
    lines.contains(&value)
        || !lines.is_empty()
            && (items(&joined).any(|i| i == value) || items(&joined).eq(items(value)))
}

/// The items of a comma-separated list, without the blanks around each.
fn items(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Whether a route's header match holds: any value will do, routing is no boundary.
pub(crate) fn any_value_is(wanted: &HeaderMatch, request: &HttpRequest<'_>) -> bool {
    request
        .headers
        .iter()
        .any(|(name, value)| *name == wanted.name && *value == wanted.value.as_bytes())
}

#[cfg(test)]
mod tests;
