//! Reads `[service.NAME]`, its subsets and its routes.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Placed;
use super::matches::read_match;
use crate::limits::{ROUTES_PER_SERVICE_MAX, SUBSETS_PER_SERVICE_MAX, TARGETS_PER_ROUTE_MAX};
use crate::name::{ServiceName, SubsetName};
use crate::policy::{
    AccessMode, PolicyObject, Protocol, Route, RouteMatch, ServicePolicy, Subset, Target,
};
use crate::tomltext::{Keys, Table, Value, Walk};

const SERVICE: Keys = Keys {
    known: &["protocol", "timeout", "connect_timeout", "access", "subset", "route"],
    later: &[
        "balance",
        "circuit",
        "fault",
        "idle_timeout",
        "limit",
        "limits",
        "locality",
        "mirror",
        "outlier",
        "per_try_timeout",
        "retry",
        "shed",
        "slow_start",
        "sticky",
    ],
};
const SUBSET: Keys = Keys { known: &["meta"], later: &["balance", "circuit", "timeout"] };
const ROUTE: Keys = Keys {
    known: &["match", "to", "timeout"],
    later: &[
        "circuit",
        "fault",
        "headers",
        "mirror",
        "per_try_timeout",
        "redirect",
        "retry",
        "rewrite",
    ],
};
const TARGET: Keys = Keys { known: &["subset", "service", "weight"], later: &["headers"] };

const PROTOCOLS: [(&str, Protocol); 4] = [
    ("tcp", Protocol::Tcp),
    ("http", Protocol::Http),
    ("http2", Protocol::Http2),
    ("grpc", Protocol::Grpc),
];
const ACCESS: [(&str, AccessMode); 2] =
    [("enforce", AccessMode::Enforce), ("audit", AccessMode::Audit)];

const TIMEOUT_MS_MAX: u64 = 3_600_000;
const CONNECT_TIMEOUT_MS_MAX: u64 = 60_000;
const WEIGHT_MAX: u32 = 1_000_000;

/// Reads the tables below `service`.
pub(super) fn services(walk: &mut Walk<'_>, value: &Value<'_>, found: &mut Vec<Placed>) {
    let expected = "a table for each service, written [service.NAME]";
    let Some(services) = walk.table("service", value, expected) else { return };
    for (name, span, value) in services.iter() {
        let what = format!("service.{name}");
        let expected = format!("a table, written [{what}]");
        let table = walk.table(&what, value, &expected);
        let name: Option<ServiceName> = walk.accept(span, name.parse());
        let Some(table) = table else { continue };
        let policy = service(walk, &table, name);
        found.extend(policy.map(|policy| (table.span.start, PolicyObject::Service(policy))));
    }
}

fn service(
    walk: &mut Walk<'_>, table: &Table<'_, '_>, name: Option<ServiceName>,
) -> Option<ServicePolicy> {
    walk.keys(table, &SERVICE);
    let protocol = table.get("protocol").and_then(|v| walk.choice("protocol", v, &PROTOCOLS));
    let timeout_ms = timeout(walk, table, "timeout", TIMEOUT_MS_MAX);
    let connect_timeout_ms = timeout(walk, table, "connect_timeout", CONNECT_TIMEOUT_MS_MAX);
    let access = table.get("access").and_then(|v| walk.choice("access", v, &ACCESS));
    let subsets = table.get("subset").map(|value| subsets(walk, value)).unwrap_or_default();
    let routes = table.get("route").map(|value| routes(walk, value)).unwrap_or_default();
    let origin = walk.origin(&table.span);
    Some(ServicePolicy {
        service: name?,
        protocol,
        timeout_ms,
        connect_timeout_ms,
        access,
        subsets,
        routes,
        origin,
    })
}

fn timeout(walk: &mut Walk<'_>, table: &Table<'_, '_>, key: &str, max: u64) -> Option<u64> {
    walk.duration(key, table.get(key)?, 1..=max)
}

fn subsets(walk: &mut Walk<'_>, value: &Value<'_>) -> BTreeMap<SubsetName, Subset> {
    let mut subsets = BTreeMap::new();
    let expected = "a table for each subset, written [service.NAME.subset.SUBSET]";
    let Some(table) = walk.table("subset", value, expected) else { return subsets };
    if table.entries.len() > SUBSETS_PER_SERVICE_MAX {
        let found = table.entries.len();
        let message =
            format!("service has {found} subsets, expected at most {SUBSETS_PER_SERVICE_MAX}");
        walk.error(table.span.clone(), message);
    }
    for (name, span, value) in table.iter() {
        let what = format!("subset.{name}");
        let body = walk.table(&what, value, "a table such as { meta = { version = \"2\" } }");
        let name = walk.accept(span, name.parse());
        let Some(body) = body else { continue };
        let subset = subset(walk, &what, &body);
        subsets.extend(name.map(|name| (name, subset)));
    }
    subsets
}

fn subset(walk: &mut Walk<'_>, what: &str, table: &Table<'_, '_>) -> Subset {
    walk.keys(table, &SUBSET);
    let Some(value) = table.get("meta") else {
        let message = format!("{what} has no meta, expected such as meta = {{ version = \"2\" }}");
        walk.missing(table.span.clone(), message);
        return Subset { meta: BTreeMap::new() };
    };
    let meta = walk.meta(value);
    if value.get_ref().as_table().is_some_and(|pairs| pairs.is_empty()) {
        let message = format!("meta of {what} is empty, expected at least one pair");
        walk.error(value.span(), message);
    }
    Subset { meta }
}

fn routes(walk: &mut Walk<'_>, value: &Value<'_>) -> Vec<Route> {
    let expected = "routes, each written [[service.NAME.route]]";
    let Some(items) = walk.array("route", value, expected, ROUTES_PER_SERVICE_MAX) else {
        return Vec::new();
    };
    let mut routes = Vec::with_capacity(items.len());
    for item in items {
        if let Some(table) = walk.table("route", item, expected) {
            routes.push(route(walk, &table));
        }
    }
    routes
}

fn route(walk: &mut Walk<'_>, table: &Table<'_, '_>) -> Route {
    walk.keys(table, &ROUTE);
    let matches = table.get("match").and_then(|value| read_match(walk, "match", value));
    let matches = matches.unwrap_or_default();
    let to = match table.get("to") {
        Some(value) => targets(walk, value),
        None => {
            let message = "route has no destination, expected such as to = [{ subset = \"v2\" }]";
            walk.missing(table.span.clone(), message.to_owned());
            Vec::new()
        }
    };
    Route {
        matches: RouteMatch {
            path: matches.path,
            methods: matches.methods,
            headers: matches.headers,
        },
        to,
        timeout_ms: timeout(walk, table, "timeout", TIMEOUT_MS_MAX),
        origin: walk.origin(&table.span),
    }
}

fn targets(walk: &mut Walk<'_>, value: &Value<'_>) -> Vec<Target> {
    let expected = "at least one destination such as { subset = \"v2\", weight = 10 }";
    let Some(items) = walk.array("to", value, expected, TARGETS_PER_ROUTE_MAX) else {
        return Vec::new();
    };
    let mut to = Vec::with_capacity(items.len());
    for item in items {
        if let Some(table) = walk.table("destination", item, expected) {
            to.push(target(walk, &table));
        }
    }
    check_weights(walk, value.span(), &to);
    to
}

fn target(walk: &mut Walk<'_>, table: &Table<'_, '_>) -> Target {
    walk.keys(table, &TARGET);
    let service = table.get("service").and_then(|v| walk.parsed("service", v, "a service's name"));
    let subset = table.get("subset").and_then(|v| walk.parsed("subset", v, "a subset's name"));
    let weight = table.get("weight").map(|v| walk.integer("weight", v, 0..=WEIGHT_MAX));
    // Without a weight every destination has the same share.
    Target { service, subset, weight: weight.unwrap_or(Some(1)).unwrap_or(1) }
}

fn check_weights(walk: &mut Walk<'_>, span: Range<usize>, to: &[Target]) {
    if !to.is_empty() && to.iter().all(|target| target.weight == 0) {
        walk.error(span, "weights sum to 0, expected at least 1".to_owned());
    }
}
