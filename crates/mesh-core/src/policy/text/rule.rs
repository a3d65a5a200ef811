//! Reads `[[allow.NAME]]` and `[[deny.NAME]]`.

use super::Placed;
use super::matches::read_match;
use super::print::print_rule;
use crate::hash::fnv1a;
use crate::limits::{HTTP_MATCHES_PER_RULE_MAX, RULES_PER_SERVICE_MAX, SOURCES_PER_RULE_MAX};
use crate::name::{RuleName, ServiceName};
use crate::policy::{HttpMatch, Mode, PolicyObject, Rule, RuleId, RuleKind, Source};
use crate::tomltext::{Keys, Table, Value, Walk};

const RULE: Keys = Keys {
    known: &["name", "from", "http", "mode"],
    later: &["claims", "expires", "grpc", "unless", "when"],
};
const MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("audit", Mode::Audit)];
const FROM: &str = "at least one caller such as \"web\", \"web@dc2\", \"node:web-7\" or \"*\"";

/// Reads the tables below `allow` or `deny`.
pub(super) fn rules(walk: &mut Walk<'_>, key: &str, value: &Value<'_>, found: &mut Vec<Placed>) {
    let kind = if key == RuleKind::Deny.as_str() { RuleKind::Deny } else { RuleKind::Allow };
    let expected = format!("rules for each service, each written [[{key}.NAME]]");
    let Some(services) = walk.table(key, value, &expected) else { return };
    for (name, span, value) in services.iter() {
        let what = format!("{key}.{name}");
        let expected = format!("rules, each written [[{what}]]");
        let items = walk.array(&what, value, &expected, RULES_PER_SERVICE_MAX);
        let service: Option<ServiceName> = walk.accept(span, name.parse());
        for item in items.unwrap_or_default() {
            let Some(table) = walk.table(&what, item, &expected) else { continue };
            let rule = rule(walk, &what, &table, kind, service.clone());
            found.extend(rule.map(|rule| (table.span.start, PolicyObject::Rule(rule))));
        }
    }
}

fn rule(
    walk: &mut Walk<'_>, what: &str, table: &Table<'_, '_>, kind: RuleKind,
    service: Option<ServiceName>,
) -> Option<Rule> {
    walk.keys(table, &RULE);
    let given = table.get("name");
    let name = given.and_then(|v| walk.parsed::<RuleName>("name", v, "a name such as \"readers\""));
    let from = match table.get("from") {
        Some(value) => sources(walk, value),
        None => {
            walk.missing(table.span.clone(), format!("{what} has no from, expected {FROM}"));
            Vec::new()
        }
    };
    let http = table.get("http").map(|value| http(walk, value)).unwrap_or_default();
    let mode = table.get("mode").and_then(|v| walk.choice("mode", v, &MODES)).unwrap_or_default();
    let named = given.is_some();
    let id = RuleId { kind, service: service?, name: name.unwrap_or_else(provisional) };
    let mut rule = Rule { id, named, from, http, mode, origin: walk.origin(&table.span) };
    if !named {
        rule.id.name = content_name(&rule);
    }
    Some(rule)
}

fn sources(walk: &mut Walk<'_>, value: &Value<'_>) -> Vec<Source> {
    let Some(items) = walk.array("from", value, FROM, SOURCES_PER_RULE_MAX) else {
        return Vec::new();
    };
    let mut sources = Vec::with_capacity(items.len());
    for item in items {
        if let Some(text) = walk.string("caller", item, FROM) {
            sources.extend(walk.accept(item.span(), source(text)));
        }
    }
    sources
}

/// One caller, as written in `from`.
fn source(text: &str) -> Result<Source, String> {
    if text == "*" {
        return Ok(Source::Any);
    }
    if text.starts_with("spiffe://") {
        return text.parse().map(Source::Spiffe).map_err(to_text);
    }
    if let Some((scheme, rest)) = text.split_once(':') {
        return match scheme {
            "node" => rest.parse().map(Source::Node).map_err(to_text),
            "jwt" | "cidr" => Err(format!(
                "caller is {text:?}, but {scheme:?} is reserved and not supported in this version"
            )),
            _ => Err(format!(
                "caller is {text:?}, expected \"NAME\", \"NAME@DC\", \"node:NAME\", \
                 \"spiffe://...\" or \"*\""
            )),
        };
    }
    let (service, dc) = match text.split_once('@') {
        Some((service, dc)) => (service, Some(dc.parse().map_err(to_text)?)),
        None => (text, None),
    };
    Ok(Source::Service { service: service.parse().map_err(to_text)?, dc })
}

fn to_text(why: impl std::fmt::Display) -> String {
    why.to_string()
}

fn http(walk: &mut Walk<'_>, value: &Value<'_>) -> Vec<HttpMatch> {
    let expected = "a list such as [{ methods = [\"GET\"] }]; leave the key out for any request";
    let Some(items) = walk.array("http", value, expected, HTTP_MATCHES_PER_RULE_MAX) else {
        return Vec::new();
    };
    items.iter().filter_map(|item| read_match(walk, "http match", item)).collect()
}

/// The name of a rule without one: `h-` and eight hex digits of a hash of its normalised text.
///
/// Its own name and origin do not count, nor the order of callers, matches, methods and headers.
pub fn content_name(rule: &Rule) -> RuleName {
    let mut rule = Rule { named: false, ..rule.clone() };
    sort(&mut rule.from);
    for part in &mut rule.http {
        sort(&mut part.methods);
        sort(&mut part.headers);
    }
    sort(&mut rule.http);
    let mut text = String::new();
    print_rule(&mut text, &rule);
    let hash = fnv1a(text.as_bytes());
    // Folding keeps more of FNV's quality than cutting.
    name(&format!("h-{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff)))
}

fn sort<T: Ord>(items: &mut Vec<T>) {
    items.sort();
    items.dedup();
}

/// The name until the content's is known, or where the one given was refused, and so the file is.
fn provisional() -> RuleName {
    name("h-0")
}

#[expect(clippy::expect_used, reason = "only called with letters, hex digits and an inner hyphen")]
fn name(text: &str) -> RuleName {
    text.parse().expect("a valid rule name")
}
