//! Reads the matches on requests that rules and routes share.

use crate::limits::MATCH_PARTS_MAX;
use crate::policy::{HeaderMatch, HttpMatch, Method, PathMatch};
use crate::tomltext::{Keys, Table, Value, Walk};

const MATCH: Keys = Keys {
    known: &["methods", "path", "path_prefix", "header"],
    later: &["caller", "cookie", "host", "query"],
};

/// Reads `{ methods, path | path_prefix, header }`; `None` if it is no table.
pub(super) fn read_match(walk: &mut Walk<'_>, what: &str, value: &Value<'_>) -> Option<HttpMatch> {
    let table = walk.table(what, value, "a table such as { path_prefix = \"/v2\" }")?;
    walk.keys(&table, &MATCH);
    let methods = table.get("methods").map(|value| methods(walk, value)).unwrap_or_default();
    let path = path(walk, &table);
    let headers = table.get("header").map(|value| headers(walk, value)).unwrap_or_default();
    Some(HttpMatch { methods, path, headers })
}

fn methods(walk: &mut Walk<'_>, value: &Value<'_>) -> Vec<Method> {
    let expected = "a list such as [\"GET\"]; leave the key out for any method";
    let Some(items) = walk.array("methods", value, expected, MATCH_PARTS_MAX) else {
        return Vec::new();
    };
    items.iter().filter_map(|item| walk.parsed("method", item, "a text such as \"GET\"")).collect()
}

fn path(walk: &mut Walk<'_>, table: &Table<'_, '_>) -> PathMatch {
    let expected = "a text such as \"/v2\"";
    let exact = table.get("path");
    let prefix = table.get("path_prefix");
    if let (Some(_), Some(prefix)) = (exact, prefix) {
        let message = "path and path_prefix are both given, expected one of them";
        walk.error(prefix.span(), message.to_owned());
    }
    let found = match (exact, prefix) {
        (Some(value), _) => walk
            .string("path", value, expected)
            .and_then(|text| walk.accept(value.span(), PathMatch::exact(text))),
        (None, Some(value)) => walk
            .string("path_prefix", value, expected)
            .and_then(|text| walk.accept(value.span(), PathMatch::prefix(text))),
        (None, None) => None,
    };
    found.unwrap_or_default()
}

fn headers(walk: &mut Walk<'_>, value: &Value<'_>) -> Vec<HeaderMatch> {
    let expected = "a table such as { \"x-canary\" = \"1\" }";
    let Some(table) = walk.table("header", value, expected) else { return Vec::new() };
    let found = table.entries.len();
    if found == 0 || found > MATCH_PARTS_MAX {
        let message = format!("header has {found} pairs, expected 1 to {MATCH_PARTS_MAX}");
        walk.error(table.span.clone(), message);
    }
    let mut headers = Vec::with_capacity(found);
    for (name, span, value) in table.iter() {
        let Some(text) = walk.string(&format!("header {name:?}"), value, "a text") else {
            continue;
        };
        headers.extend(walk.accept(span, HeaderMatch::new(name, text)));
    }
    headers
}
