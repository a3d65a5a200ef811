//! [`Call`]: one request, read: who, the segment of the path, the query and the body.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Query as Pairs;
use axum::http::request::Parts;
use axum::http::{Uri, Version};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use mesh_core::api::{Body as Kinds, RouteId, RouteSpec};
use mesh_core::limits::{
    API_BODY_BYTES_MAX, POLICY_APPLY_BYTES_MAX, RESTORE_BYTES_MAX, WAIT_SECONDS_MAX,
};
use mesh_core::revision::Revision;
use mesh_core::trust::Principal;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::Peer;
use super::error::{Failure, Kind};
use crate::limits::api::{BODY_WAIT, JOIN_BYTES_MAX, RESTORE_WAIT};
use crate::server::Server;

/// One request of somebody who may make it.
pub(super) struct Call {
    pub(super) server: Arc<Server>,
    pub(super) spec: &'static RouteSpec,
    pub(super) by: Principal,
    pub(super) peer: Option<Peer>,
    pub(super) version: Version,
    pub(super) query: Query,
    /// What stands for `{name}` in the path.
    segment: Option<String>,
    body: Bytes,
}

/// The query's parameters; each route knows some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// Wait for something newer.
    pub(super) index: Option<Revision>,
    /// For so long.
    pub(super) wait: Option<Duration>,
    /// Also from a server that is cut off.
    pub(super) stale: bool,
    /// Everything that was written before.
    pub(super) consistent: bool,
    /// Only instances that may be used.
    pub(super) passing: bool,
    /// An object of policy.
    pub(super) id: Option<String>,
}

impl Call {
    /// Reads all of a request but the body of a stream, which is handed back unread.
    pub(super) async fn read(
        server: &Arc<Server>, spec: &'static RouteSpec, by: Principal, head: &Parts, body: Body,
    ) -> Result<(Self, Option<Body>), Failure> {
        let query = Query::read(spec, &head.uri)?;
        let (body, stream) = match spec.request {
            Kinds::None => (Bytes::new(), None),
            Kinds::Stream => (Bytes::new(), Some(body)),
            Kinds::Json(_) | Kinds::Binary => (collect(spec.id, body).await?, None),
        };
        let (server, version) = (Arc::clone(server), head.version);
        let segment = segment(spec.path, head.uri.path());
        let peer = head.extensions.get::<Peer>().cloned();
        Ok((Self { server, spec, by, peer, version, query, segment, body }, stream))
    }

    /// The body as JSON, strictly.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let text = format!("the body is not as expected: {error}");
            Failure { field: quoted(&error.to_string()), ..Failure::field("", text) }
        })
    }

    /// The body as bytes.
    pub(super) fn bytes(&self) -> Bytes {
        self.body.clone()
    }

    /// The name in the path.
    pub(super) fn name<T>(&self) -> Result<T, Failure>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        let text = self.segment.as_deref().unwrap_or("");
        text.parse().map_err(|error| Failure::field("path", format!("{error}")))
    }
}

impl Query {
    fn read(spec: &RouteSpec, uri: &Uri) -> Result<Self, Failure> {
        let pairs = Pairs::<Vec<(String, String)>>::try_from_uri(uri);
        let Pairs(pairs) = pairs.map_err(|error| Failure::field("query", error.to_string()))?;
        let mut query = Self::default();
        for (name, value) in pairs {
            if !known(spec).contains(&name.as_str()) {
                let known = known(spec).join(", ");
                let text = format!("unknown parameter {name:?}, expected one of: {known}");
                return Err(Failure::field(&name, text));
            }
            let wrong = |expected: &str| {
                Failure::field(&name, format!("{name} is {value:?}, expected {expected}"))
            };
            match name.as_str() {
                "index" => {
                    let index = value.parse().map_err(|_| wrong("EPOCH.INDEX such as 1.42"))?;
                    query.index = Some(index);
                }
                "wait" => {
                    let wait = wait(&value).ok_or_else(|| wrong("at most 600s, such as 30s"))?;
                    query.wait = Some(wait);
                }
                "id" => query.id = Some(value),
                flag => {
                    let on = on(&value).ok_or_else(|| wrong("true or false"))?;
                    match flag {
                        "stale" => query.stale = on,
                        "consistent" => query.consistent = on,
                        _ => query.passing = on,
                    }
                }
            }
        }
        if query.stale && query.consistent {
            let text = "stale and consistent exclude each other, expected one of them";
            return Err(Failure::field("consistent", text));
        }
        Ok(query)
    }
}

/// The parameters that a route knows.
pub(super) fn known(spec: &RouteSpec) -> Vec<&'static str> {
    let mut known = match spec.watch {
        true => vec!["index", "wait", "stale", "consistent"],
        false => Vec::new(),
    };
    known.extend((spec.id == RouteId::Agents).then_some("stale"));
    known.extend((spec.id == RouteId::Health).then_some("passing"));
    known.extend((spec.id == RouteId::PolicyObject).then_some("id"));
    known
}

/// `?stale` and `?stale=true` are the same.
fn on(value: &str) -> Option<bool> {
    match value {
        "" | "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// `1500ms`, `30s`, `5m`, or seconds.
fn wait(value: &str) -> Option<Duration> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("", 1000)];
    let (digits, unit) =
        units.iter().find_map(|(unit, ms)| Some((value.strip_suffix(unit)?, *ms)))?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = plain.then(|| digits.parse().ok()).flatten()?;
    let wait = Duration::from_millis(number.checked_mul(unit)?);
    (wait <= Duration::from_secs(WAIT_SECONDS_MAX)).then_some(wait)
}

/// The part of `path` that stands for `{name}` in `pattern`.
fn segment(pattern: &str, path: &str) -> Option<String> {
    let mut pairs = pattern.split('/').zip(path.split('/'));
    pairs.find(|(pattern, _)| pattern.starts_with('{')).map(|(_, found)| found.to_owned())
}

/// Bytes that the body of a route may have.
fn body_max(id: RouteId) -> usize {
    if id == RouteId::ApplyPolicy {
        // JSON escapes newlines and quotes: room for that, the texts are measured later.
        POLICY_APPLY_BYTES_MAX * 3 / 2
    } else if id == RouteId::RestoreSnapshot {
        RESTORE_BYTES_MAX
    } else if matches!(id, RouteId::Enrol | RouteId::JoinServer | RouteId::Renew | RouteId::Issue) {
        // Anybody may send the first two: a certificate request and some names.
        JOIN_BYTES_MAX
    } else {
        API_BODY_BYTES_MAX
    }
}

async fn collect(id: RouteId, body: Body) -> Result<Bytes, Failure> {
    let max = body_max(id);
    let limit = if id == RouteId::RestoreSnapshot { RESTORE_WAIT } else { BODY_WAIT };
    let collected = timeout(limit, Limited::new(body, max).collect()).await.map_err(|_| {
        Failure::new(Kind::Slow, "slow_body", format!("no whole body within {limit:?}"))
    })?;
    let collected = collected.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            let text = format!("the body has over {max} bytes, expected at most {max}");
            return Failure::new(Kind::TooLarge, "too_large", text);
        }
        Failure::new(Kind::Invalid, "broken_body", format!("the body broke off: {error}"))
    })?;
    Ok(collected.to_bytes())
}

/// The first thing that an error names in backquotes: the field.
fn quoted(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('`')?;
    let (field, _) = rest.split_once('`')?;
    Some(field.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use mesh_core::api::ROUTES;
    use mesh_core::trust::Permission;

    use super::*;

    fn query(id: RouteId, text: &str) -> Result<Query, Failure> {
        let spec = ROUTES.iter().find(|route| route.id == id).unwrap();
        Query::read(spec, &format!("/x?{text}").parse().unwrap())
    }

    #[test]
    fn queries_are_strict() {
        let read = query(RouteId::Health, "index=1.4&wait=1500ms&stale&passing=true").unwrap();
        assert_eq!(read.index, Some(Revision::new(1, 4)));
        assert_eq!(read.wait, Some(Duration::from_millis(1500)));
        assert!(read.stale && read.passing && !read.consistent);
        let id = query(RouteId::PolicyObject, "id=allow.orders%2Freaders").unwrap().id;
        assert_eq!(id.as_deref(), Some("allow.orders/readers"));
        let bad = [
            "index=1",
            "index=-1",
            "wait=601s",
            "wait=-1",
            "wait=",
            "wait=x",
            "passing=maybe",
            "stale&consistent",
            "more=1",
            "wait=99999999999999999999m",
            "index=%FF",
        ];
        for text in bad {
            let failure = query(RouteId::Health, text).unwrap_err();
            assert_eq!(failure.kind, Kind::Invalid, "{text}");
        }
        assert!(query(RouteId::Status, "stale").is_err());
    }

    #[test]
    fn waits_have_units() {
        for (text, ms) in [("30", 30_000), ("30s", 30_000), ("5m", 300_000), ("7ms", 7)] {
            assert_eq!(wait(text), Some(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn strangers_may_not_send_much() {
        let open = ROUTES.iter().filter(|route| route.permission == Permission::Public);
        for route in open.filter(|route| route.request != Kinds::None) {
            assert!(body_max(route.id) <= 64 << 10, "{}", route.path);
        }
    }

    #[test]
    fn the_segment_is_found() {
        let name = segment("/v1/nodes/{node}/policy", "/v1/nodes/web-7/policy");
        assert_eq!(name.as_deref(), Some("web-7"));
        assert_eq!(segment("/v1/nodes", "/v1/nodes"), None);
    }
}
