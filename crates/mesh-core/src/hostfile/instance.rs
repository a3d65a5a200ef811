//! Reads `[instance.NAME]` and its upstreams.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use toml::de::DeValue;

use super::check::checks;
use super::{InstanceFile, UpstreamFile};
use crate::limits::{INSTANCES_PER_NODE_MAX, UPSTREAMS_MAX};
use crate::name::{InstanceId, ServiceName};
use crate::tomltext::{Keys, Table, Value, Walk};

const INSTANCE: Keys = Keys {
    known: &["service", "port", "address", "unit", "user", "meta", "upstreams", "check"],
    later: &["drain", "ports", "protocol", "tags", "weight"],
};
const UPSTREAM: Keys =
    Keys { known: &["service", "listen"], later: &["datacenter", "dc", "subset"] };

const UPSTREAM_TEXT: &str = "\"db\" or { service = \"db\", listen = \"127.0.0.1:9001\" }";
const UNIT_TEXT: &str =
    "a unit such as \"web.service\", or its path such as \"/system.slice/web.service\"";
const USER_TEXT: &str = "a user's name such as \"web\"";

/// Reads the tables below `instance`, in the order of the text.
pub(super) fn instances(walk: &mut Walk<'_>, value: &Value<'_>) -> Vec<InstanceFile> {
    let expected = "a table for each instance, written [instance.NAME]";
    let Some(tables) = walk.table("instance", value, expected) else { return Vec::new() };
    if tables.entries.len() > INSTANCES_PER_NODE_MAX {
        let found = tables.entries.len();
        let message =
            format!("file has {found} instances, expected at most {INSTANCES_PER_NODE_MAX}");
        walk.error(tables.span.clone(), message);
    }
    let mut ordered: Vec<_> = tables.iter().collect();
    ordered.sort_by_key(|(_, _, value)| value.span().start);
    let mut instances = Vec::with_capacity(ordered.len());
    let mut listens = Listens::default();
    for (name, span, value) in ordered {
        let what = format!("instance.{name}");
        let table = walk.table(&what, value, &format!("a table, written [{what}]"));
        let id: Option<InstanceId> = walk.accept(span, name.parse());
        let Some(table) = table else { continue };
        instances.extend(instance(walk, &what, &table, id, &mut listens));
    }
    instances
}

fn instance(
    walk: &mut Walk<'_>, what: &str, table: &Table<'_, '_>, id: Option<InstanceId>,
    listens: &mut Listens,
) -> Option<InstanceFile> {
    walk.keys(table, &INSTANCE);
    let service: Option<ServiceName> = required(walk, what, table, "service", "\"web\"")
        .and_then(|v| walk.parsed("service", v, "a service's name such as \"web\""));
    let port = required(walk, what, table, "port", "8080")
        .and_then(|v| walk.integer("port", v, 1..=u32::from(u16::MAX)))
        .and_then(|port| u16::try_from(port).ok());
    let address = table.get("address").and_then(|v| address(walk, v));
    let unit = table.get("unit").and_then(|v| text(walk, "unit", v, UNIT_TEXT, is_unit));
    let user = table.get("user").and_then(|v| text(walk, "user", v, USER_TEXT, is_user));
    let meta = table.get("meta").map(|v| walk.meta(v)).unwrap_or_default();
    let upstreams = table.get("upstreams").map(|v| upstreams(walk, v, listens));
    let checks = table.get("check").map(|v| checks(walk, what, v)).unwrap_or_default();
    Some(InstanceFile {
        id: id?,
        service: service?,
        port: port?,
        address: address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        unit,
        user,
        meta,
        upstreams: upstreams.unwrap_or_default(),
        checks,
        origin: walk.origin(&table.span),
    })
}

fn required<'a, 't>(
    walk: &mut Walk<'_>, what: &str, table: &Table<'a, 't>, key: &str, example: &str,
) -> Option<&'a Value<'t>> {
    let value = table.get(key);
    if value.is_none() {
        let message = format!("{what} has no {key}, expected such as {key} = {example}");
        walk.missing(table.span.clone(), message);
    }
    value
}

fn address(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<IpAddr> {
    let expected = "an address of this host such as \"127.0.0.1\"";
    let text = walk.string("address", value, expected)?;
    match text.parse::<IpAddr>() {
        Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() && !broadcast(ip) => Some(ip),
        Ok(_) | Err(_) => walk.mismatch("address", value, expected),
    }
}

fn broadcast(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

fn text(
    walk: &mut Walk<'_>, what: &str, value: &Value<'_>, expected: &str, good: impl Fn(&str) -> bool,
) -> Option<String> {
    let text = walk.string(what, value, expected)?;
    if good(text) { Some(text.to_owned()) } else { walk.mismatch(what, value, expected) }
}

/// A unit's name (systemd.unit(5)), or an absolute cgroup path of such names.
fn is_unit(text: &str) -> bool {
    let name = |name: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
        let kind = [".service", ".scope", ".slice"].iter().find_map(|k| name.strip_suffix(k));
        name.len() <= 255 && name.bytes().all(inner) && kind.is_some_and(|stem| !stem.is_empty())
    };
    match text.strip_prefix('/') {
        Some(path) => text.len() <= 4096 && path.split('/').all(name),
        None => name(text),
    }
}

/// A user's name as useradd(8) takes it, with dots and upper case, or a numeric id.
fn is_user(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    (1..=32).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with(['-', '.'])
}

/// Which upstream took a listen address, over the whole file.
#[derive(Default)]
struct Listens(BTreeMap<SocketAddr, u32>);

fn upstreams(walk: &mut Walk<'_>, value: &Value<'_>, listens: &mut Listens) -> Vec<UpstreamFile> {
    let DeValue::Array(items) = value.get_ref() else {
        let expected = format!("a list of {UPSTREAM_TEXT}");
        return walk.mismatch("upstreams", value, &expected).unwrap_or_default();
    };
    if items.len() > UPSTREAMS_MAX {
        let found = items.len();
        let message = format!("upstreams has {found} values, expected at most {UPSTREAMS_MAX}");
        walk.error(value.span(), message);
        return Vec::new();
    }
    let mut upstreams: Vec<UpstreamFile> = Vec::with_capacity(items.len());
    for item in items.iter() {
        let Some(upstream) = upstream(walk, item, listens) else { continue };
        if upstreams.iter().any(|other| other.service == upstream.service) {
            let message = format!("upstream {} is given twice", upstream.service);
            walk.error(item.span(), message);
        }
        upstreams.push(upstream);
    }
    upstreams
}

fn upstream(walk: &mut Walk<'_>, value: &Value<'_>, listens: &mut Listens) -> Option<UpstreamFile> {
    if let DeValue::String(name) = value.get_ref() {
        let service = walk.accept(value.span(), name.parse())?;
        return Some(UpstreamFile { service, listen: None });
    }
    let table = walk.table("upstream", value, UPSTREAM_TEXT)?;
    walk.keys(&table, &UPSTREAM);
    let service = required(walk, "upstream", &table, "service", "\"db\"")
        .and_then(|v| walk.parsed("service", v, "a service's name such as \"db\""));
    let listen = table.get("listen").and_then(|v| listen(walk, v, listens));
    Some(UpstreamFile { service: service?, listen })
}

fn listen(walk: &mut Walk<'_>, value: &Value<'_>, listens: &mut Listens) -> Option<SocketAddr> {
    let expected = "a loopback address and port such as \"127.0.0.1:9001\"";
    let text = walk.string("listen", value, expected)?;
    let address = match text.parse::<SocketAddr>() {
        // Anew, without the scope that the text of an IPv6 address may hold.
        Ok(found) if found.ip().is_loopback() && found.port() != 0 => {
            SocketAddr::new(found.ip(), found.port())
        }
        Ok(_) | Err(_) => return walk.mismatch("listen", value, expected),
    };
    let span: Range<usize> = value.span();
    let line = walk.origin(&span).line;
    match listens.0.get(&address) {
        Some(first) => {
            walk.error(
                span,
                format!("listen address {address} is used twice, first at line {first}"),
            );
        }
        None => {
            listens.0.insert(address, line);
        }
    }
    Some(address)
}
