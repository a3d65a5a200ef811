//! `mesh why`: the verdict first, then every reason.

use std::fmt::Write;

use mesh_core::access::{Decision, Reason};
use mesh_core::policy::{Origin, Protocol, RuleKind};
use mesh_core::why::{WhyAnswer, WhyBackend, WhyQuery};

use crate::output::{plain, table};

/// `answer` to `query` as text; its first word is the verdict:
/// `ALLOWED`, `DENIED`, or `UNREACHABLE` where rules allow it and no endpoint could answer.
pub(crate) fn why(query: &WhyQuery, answer: &WhyAnswer) -> String {
    let mut out = verdict(query, answer);
    let mut line = |text: String| {
        out.push('\n');
        out.push_str(&text);
    };
    line(format!("caller    {}", answer.caller));
    line(protocol(answer));
    path(answer).into_iter().for_each(&mut line);
    line(format!("route     {}", route(answer)));
    for note in &answer.notes {
        line(format!("note      {}", plain(note)));
    }
    for backend in &answer.backends {
        line(format!("\n{}", backend_text(backend, answer)));
    }
    out
}

fn verdict(query: &WhyQuery, answer: &WhyAnswer) -> String {
    let word = match (answer.allowed, refusing(answer)) {
        (true, _) => "ALLOWED",
        (false, Some(_)) => "DENIED",
        // No rule is against it; there is just nobody to answer.
        (false, None) => "UNREACHABLE",
    };
    let from = answer.caller.as_service().map(|(_, name)| name.to_string());
    let from = from.or_else(|| answer.caller.as_node().map(|name| format!("node:{name}")));
    let from = from.unwrap_or_else(|| answer.caller.to_string());
    let asked = query.http.as_ref().map(|http| format!(" {} {}", http.method, http.path));
    let call = plain(&format!("{from} -> {}{}", query.to, asked.unwrap_or_default()));
    format!("{word}  {call}  {}", reason(answer))
}

/// The first backend that a call may go to and that refuses it.
fn refusing(answer: &WhyAnswer) -> Option<&WhyBackend> {
    answer.backends.iter().find(|b| b.weight > 0 && !b.decision.allowed)
}

/// Why, in one phrase.
fn reason(answer: &WhyAnswer) -> String {
    let chosen = || answer.backends.iter().filter(|b| b.weight > 0);
    let decides = refusing(answer).or_else(|| chosen().next().filter(|_| answer.allowed));
    if let Some(backend) = decides {
        return format!("by {}", by(&backend.decision));
    }
    match chosen().find(|b| !b.endpoints.iter().any(|e| e.usable)) {
        Some(backend) => {
            let by = by(&backend.decision);
            format!("allowed by {by}, but {} has no usable endpoint", name(backend))
        }
        None => "there is nowhere to go".to_owned(),
    }
}

fn by(decision: &Decision) -> String {
    match &decision.reason {
        Reason::Rule(rule) => {
            format!("{} at {}@v{}", rule.id, origin(&rule.origin), rule.version)
        }
        Reason::NoRule => "default: no allow matches".to_owned(),
        Reason::AuditOnly => "audit: no allow matches, but access = \"audit\"".to_owned(),
    }
}

fn origin(origin: &Origin) -> String {
    plain(&origin.to_string())
}

fn protocol(answer: &WhyAnswer) -> String {
    let protocol = answer.protocol.map_or("undeclared, so opaque TCP", Protocol::as_str);
    format!("protocol  {protocol}")
}

fn path(answer: &WhyAnswer) -> Option<String> {
    let (before, after) = answer.path_before.as_deref().zip(answer.path_after.as_deref())?;
    let (before, after) = (plain(before), plain(after));
    if before == after {
        return Some(format!("path      {after}"));
    }
    Some(format!("path      {before} -> {after} (decided on and forwarded)"))
}

fn route(answer: &WhyAnswer) -> String {
    let route = &answer.route;
    match &route.origin {
        Some(at) => format!("{} at {}@v{}", route.id, origin(at), route.version),
        None => format!("{} (no policy speaks of it)", route.id),
    }
}

fn name(backend: &WhyBackend) -> String {
    match &backend.subset {
        Some(subset) => format!("{} subset {subset}", backend.service),
        None => backend.service.to_string(),
    }
}

fn backend_text(backend: &WhyBackend, answer: &WhyAnswer) -> String {
    let total: u64 = answer.backends.iter().map(|b| u64::from(b.weight)).sum();
    let usable = backend.endpoints.iter().filter(|e| e.usable).count();
    let verdict = if backend.decision.allowed { "allowed" } else { "denied" };
    let mut out = format!(
        "backend   {} (weight {} of {total}): {verdict} by {}",
        name(backend),
        backend.weight,
        by(&backend.decision),
    );
    for rule in &backend.decision.audited {
        let would = match rule.id.kind {
            RuleKind::Allow => "allow",
            RuleKind::Deny => "deny",
        };
        let at = origin(&rule.origin);
        push(&mut out, &format!("  audit   {} at {at}@v{} would {would}", rule.id, rule.version));
    }
    for loser in &backend.losers {
        let (rule, at) = (&loser.rule, origin(&loser.rule.origin));
        let why = plain(&loser.why);
        push(&mut out, &format!("  loser   {} at {at}@v{}: {why}", rule.id, rule.version));
    }
    push(&mut out, &format!("  endpoints {usable} of {} usable", backend.endpoints.len()));
    if !backend.endpoints.is_empty() {
        push(&mut out, &indent(&endpoints(backend)));
    }
    out
}

fn endpoints(backend: &WhyBackend) -> String {
    let rows = backend.endpoints.iter().map(|one| {
        let endpoint = &one.endpoint;
        let usable = if one.usable { "yes" } else { "no" };
        vec![
            endpoint.instance.to_string(),
            endpoint.node.to_string(),
            endpoint.address.to_string(),
            usable.to_owned(),
            one.why.clone(),
        ]
    });
    table(&["INSTANCE", "NODE", "AGENT", "USABLE", "WHY"], rows)
}

fn push(out: &mut String, line: &str) {
    let _ = write!(out, "\n{line}");
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn an_allowed_call_names_rule_route_losers_and_endpoints() {
        let (query, answer) = samples::why("/v2/./x");
        let want = "\
ALLOWED  web -> orders GET /v2/./x  by allow.orders/readers at orders.toml:11@v3
caller    spiffe://0123456789ab.mesh.internal/ns/default/dc/dc1/svc/web
protocol  http
path      /v2/./x -> /v2/x (decided on and forwarded)
route     service.orders/route[0] at orders.toml:7@v3

backend   orders subset v2 (weight 10 of 100): allowed by allow.orders/readers at orders.toml:11@v3
  loser   deny.orders/no-batch at orders.toml:16@v3: the caller is not in from = [batch]
  endpoints 1 of 2 usable
    INSTANCE  NODE  AGENT          USABLE  WHY
    orders-1  db-1  10.0.0.3:7443  no      not in subset v2: its meta does not match
    orders-2  db-1  10.0.0.3:7443  yes     healthy

backend   orders (weight 90 of 100): allowed by allow.orders/readers at orders.toml:11@v3
  loser   deny.orders/no-batch at orders.toml:16@v3: the caller is not in from = [batch]
  endpoints 1 of 2 usable
    INSTANCE  NODE  AGENT          USABLE  WHY
    orders-1  db-1  10.0.0.3:7443  no      critical: a check fails or has not passed yet
    orders-2  db-1  10.0.0.3:7443  yes     healthy";
        assert_eq!(why(&query, &answer), want);
    }

    #[test]
    fn a_denied_call_says_so_first() {
        let (mut query, mut answer) = samples::why("/v2/x");
        answer.allowed = false;
        for backend in &mut answer.backends {
            backend.decision.allowed = false;
            backend.decision.reason = Reason::NoRule;
        }
        let text = why(&query, &answer);
        let first = text.lines().next();
        assert_eq!(first, Some("DENIED  web -> orders GET /v2/x  by default: no allow matches"));
        query.http = None;
        answer.path_before = None;
        answer.path_after = None;
        let text = why(&query, &answer);
        assert!(text.starts_with("DENIED  web -> orders  by default"), "{text}");
        assert!(!text.contains("path  "), "{text}");
    }

    #[test]
    fn allowed_without_endpoints_is_no_denial() {
        let (query, mut answer) = samples::why("/v2/x");
        answer.allowed = false;
        answer.backends[1].endpoints.clear();
        let text = why(&query, &answer);
        let want = "UNREACHABLE  web -> orders GET /v2/x  allowed by allow.orders/readers at \
                    orders.toml:11@v3, but orders has no usable endpoint\n";
        assert!(text.starts_with(want), "{text}");
    }
}
