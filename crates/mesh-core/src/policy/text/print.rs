//! Writes policy objects as text.

use crate::policy::{
    AccessMode, HeaderMatch, HttpMatch, Method, Mode, PathMatch, PolicyObject, Route, Rule,
    ServicePolicy, Target,
};
use crate::tomltext::{format_duration, inline, key, list, string};

/// `objects` as the text of a policy file, in their order.
///
/// Deterministic; [`parse`](super::parse) gives the same objects but for their origin.
pub fn print(objects: &[PolicyObject]) -> String {
    let mut out = String::new();
    for object in objects {
        if !out.is_empty() {
            out.push('\n');
        }
        match object {
            PolicyObject::Service(policy) => print_service(&mut out, policy),
            PolicyObject::Rule(rule) => print_rule(&mut out, rule),
        }
    }
    out
}

fn print_service(out: &mut String, policy: &ServicePolicy) {
    let name = &policy.service;
    line(out, &format!("[service.{name}]"));
    let quoted = |text: &str| string(text);
    pair(out, "protocol", policy.protocol.map(|protocol| quoted(protocol.as_str())));
    pair(out, "timeout", policy.timeout_ms.map(duration));
    pair(out, "connect_timeout", policy.connect_timeout_ms.map(duration));
    pair(out, "access", policy.access.map(AccessMode::as_str).map(quoted));
    for (subset, body) in &policy.subsets {
        line(out, &format!("\n[service.{name}.subset.{subset}]"));
        let meta = body.meta.iter().map(|(key, value)| (key, string(value)));
        pair(out, "meta", Some(inline(meta)));
    }
    for route in &policy.routes {
        line(out, &format!("\n[[service.{name}.route]]"));
        print_route(out, route);
    }
}

fn print_route(out: &mut String, route: &Route) {
    let matches = print_match(&route.matches.methods, &route.matches.path, &route.matches.headers);
    pair(out, "match", (matches != "{}").then_some(matches));
    pair(out, "to", Some(list(route.to.iter().map(print_target))));
    pair(out, "timeout", route.timeout_ms.map(duration));
}

fn print_target(target: &Target) -> String {
    let mut pairs = Vec::new();
    pairs.extend(target.service.as_ref().map(|name| ("service", string(name.as_str()))));
    pairs.extend(target.subset.as_ref().map(|name| ("subset", string(name.as_str()))));
    pairs.push(("weight", target.weight.to_string()));
    inline(pairs)
}

pub(super) fn print_rule(out: &mut String, rule: &Rule) {
    line(out, &format!("[[{}.{}]]", rule.id.kind.as_str(), rule.id.service));
    pair(out, "name", rule.named.then(|| string(rule.id.name.as_str())));
    pair(out, "from", Some(list(rule.from.iter().map(|source| string(&source.to_string())))));
    let http = |m: &HttpMatch| print_match(&m.methods, &m.path, &m.headers);
    pair(out, "http", (!rule.http.is_empty()).then(|| list(rule.http.iter().map(http))));
    match rule.mode {
        Mode::Enforce => {}
        Mode::Audit => pair(out, "mode", Some(string("audit"))),
    }
}

fn print_match(methods: &[Method], path: &PathMatch, headers: &[HeaderMatch]) -> String {
    let mut pairs = Vec::new();
    if !methods.is_empty() {
        pairs.push(("methods", list(methods.iter().map(|method| string(method.as_str())))));
    }
    match path {
        PathMatch::Any => {}
        PathMatch::Exact(path) => pairs.push(("path", string(path))),
        PathMatch::Prefix(path) => pairs.push(("path_prefix", string(path))),
    }
    if !headers.is_empty() {
        let headers = headers.iter().map(|header| (&header.name, string(&header.value)));
        pairs.push(("header", inline(headers)));
    }
    inline(pairs)
}

fn duration(ms: u64) -> String {
    string(&format_duration(ms))
}

fn pair(out: &mut String, name: &str, value: Option<String>) {
    if let Some(value) = value {
        line(out, &format!("{} = {value}", key(name)));
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}
