//! `[service.NAME]`: what everyone who calls the service needs to know.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{HeaderMatch, Meta, Method, Origin, PathMatch};
use crate::name::{ServiceName, SubsetName};

/// The protocol a service speaks. Undeclared services are opaque TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Opaque bytes.
    #[default]
    Tcp,
    /// HTTP/1.1.
    Http,
    /// HTTP/2.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
}

impl Protocol {
    /// Every protocol, in order.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Http, Self::Http2, Self::Grpc];

    /// The protocol as written in policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
        }
    }

    /// Whether requests can be told apart, so that HTTP rules and routes can match.
    pub fn is_http(self) -> bool {
        match self {
            Self::Tcp => false,
            Self::Http | Self::Http2 | Self::Grpc => true,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to a call that no rule allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessMode {
    /// It is denied.
    #[default]
    Enforce,
    /// It passes, and is logged and counted as a would-be denial.
    Audit,
}

impl AccessMode {
    /// The mode as written in policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
        }
    }
}

/// `[service.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicePolicy {
    /// The service.
    pub service: ServiceName,
    /// What it speaks; `None` is undeclared: opaque TCP.
    pub protocol: Option<Protocol>,
    /// Longest time for one request, in milliseconds (1 to 3,600,000).
    pub timeout_ms: Option<u64>,
    /// Longest time to connect to an instance, in milliseconds (1 to 60,000).
    pub connect_timeout_ms: Option<u64>,
    /// Overrides the mesh's default.
    pub access: Option<AccessMode>,
    /// Named groups of instances.
    pub subsets: BTreeMap<SubsetName, Subset>,
    /// First match wins, top down; no match goes to all instances.
    pub routes: Vec<Route>,
    /// Where it stands.
    pub origin: Origin,
}

/// `[service.NAME.subset.SUBSET]`: the instances whose meta holds all these pairs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subset {
    /// Every pair must be in the instance's meta. Never empty.
    pub meta: Meta,
}

/// `[[service.NAME.route]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Which requests; all parts must match.
    pub matches: RouteMatch,
    /// Where they go, by weight. Never empty; weights sum to at least 1.
    pub to: Vec<Target>,
    /// Overrides the service's timeout, in milliseconds (1 to 3,600,000).
    pub timeout_ms: Option<u64>,
    /// Where it stands.
    pub origin: Origin,
}

/// Which requests a route takes. The default takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteMatch {
    /// The canonical path.
    pub path: PathMatch,
    /// Any of these methods; empty is any method.
    pub methods: Vec<Method>,
    /// All of these headers.
    pub headers: Vec<HeaderMatch>,
}

/// One destination of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Another service; `None` is the service itself.
    pub service: Option<ServiceName>,
    /// A subset of the target service; `None` is all its instances.
    pub subset: Option<SubsetName>,
    /// Share of the route's requests, 0 to 1,000,000.
    pub weight: u32,
}
