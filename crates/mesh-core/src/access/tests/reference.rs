//! The reference: clumsy on purpose, and without a line of the evaluator's.

use super::*;

/// What the design says of this call: whether it passes, by rule texts alone.
pub(super) fn allowed(access: &ServiceAccess, request: &AccessRequest<'_>) -> bool {
    access.mode == AccessMode::Audit || allowed_by_rules(access, request)
}

pub(super) fn allowed_by_rules(access: &ServiceAccess, request: &AccessRequest<'_>) -> bool {
    let mut granted = false;
    let mut refused = false;
    for rule in &access.rules {
        if rule.mode == Mode::Audit || !applies(rule, request) {
            continue;
        }
        match rule.id.kind {
            RuleKind::Allow => granted = true,
            RuleKind::Deny => refused = true,
        }
    }
    granted && !refused
}

pub(super) fn applies(rule: &CompiledRule, request: &AccessRequest<'_>) -> bool {
    let deny = rule.id.kind == RuleKind::Deny;
    let mut from = false;
    for source in &rule.from {
        from |= names(&source.to_string(), &request.caller.to_string(), deny);
    }
    if !from {
        return false;
    }
    let Some(http) = &request.http else {
        // fail closed: what is not seen passes no HTTP allow and no HTTP deny
        return rule.http.is_empty() || deny;
    };
    let mut any = rule.http.is_empty();
    for wanted in &rule.http {
        let methods: Vec<_> = wanted.methods.iter().map(ToString::to_string).collect();
        let mut good = methods.is_empty() || methods.contains(&http.method.to_owned());
        good &= path_fits(&wanted.path, http.path);
        for header in &wanted.headers {
            good &= header_fits(header, http, deny);
        }
        any |= good;
    }
    any
}

/// Works on the printed forms, as a reader of the policy would.
fn names(source: &str, caller: &str, deny: bool) -> bool {
    let ours = caller.strip_prefix("spiffe://td.mesh.internal/");
    let parts: Vec<&str> = ours.map(|path| path.split('/').collect()).unwrap_or_default();
    match (source, &parts[..]) {
        ("*", ["ns", ..] | ["dc", _, "node", _]) => true,
        ("*", _) => deny,
        (_, ["ns", "default", "dc", dc, "svc", service]) => {
            source == *service || source == format!("{service}@{dc}") || source == caller
        }
        (_, ["dc", _, "node", node]) => source == format!("node:{node}") || source == caller,
        _ => source == caller,
    }
}

fn path_fits(wanted: &PathMatch, path: &str) -> bool {
    let segments = |text: &str| -> Vec<String> {
        text.trim_end_matches('/').split('/').map(str::to_owned).collect()
    };
    match wanted {
        PathMatch::Any => true,
        PathMatch::Exact(exact) => exact == path,
        PathMatch::Prefix(prefix) => segments(path).starts_with(&segments(prefix)),
    }
}

fn header_fits(wanted: &HeaderMatch, http: &HttpRequest<'_>, deny: bool) -> bool {
    let lines: Vec<Vec<u8>> = http
        .headers
        .iter()
        .filter(|(name, _)| *name == wanted.name)
        .map(|(_, value)| value.to_vec())
        .collect();
    let value = wanted.value.as_bytes();
    if lines.is_empty() {
        return false;
    }
    if !deny {
        return lines.iter().all(|line| line == value);
    }
    let mut readings = lines.clone();
    for line in &lines {
        for item in line.split(|b| *b == b',') {
            readings.push(item.trim_ascii().to_vec());
        }
    }
    let tidy = |text: &[u8]| -> Vec<Vec<u8>> {
        text.split(|b| *b == b',').map(|item| item.trim_ascii().to_vec()).collect()
    };
    let joined = lines.join(&b","[..]);
    readings.contains(&value.to_vec()) || tidy(&joined) == tidy(value)
}
