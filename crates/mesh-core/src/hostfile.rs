//! Host files: what a host's `services.d/*.toml` declare about the instances on that host.
//!
//! Desired state, local to the host. Policy (`[service.NAME]`, `[[allow.NAME]]`) has no place
//! here; it belongs to the whole mesh (see [`crate::policy`]).

mod check;
mod instance;
mod print;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::name::{InstanceId, ServiceName};
use crate::policy::{Meta, Origin};
use crate::tomltext::{Keys, Table, Walk, from_bytes};

pub use crate::tomltext::Diagnostic;
pub use print::print;

/// `[instance.NAME]`: one copy of a service on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceFile {
    /// The instance's name, unique on its host.
    pub id: InstanceId,
    /// The service it is a copy of.
    pub service: ServiceName,
    /// The port it listens on, from 1.
    pub port: u16,
    /// The address it listens on; 127.0.0.1 unless given.
    pub address: IpAddr,
    /// The systemd unit it runs in: a unit's name such as `web.service`, or its full cgroup path.
    pub unit: Option<String>,
    /// The user it runs as.
    pub user: Option<String>,
    /// Facts that subsets select by.
    pub meta: Meta,
    /// The services it calls.
    pub upstreams: Vec<UpstreamFile>,
    /// How to tell whether it works.
    pub checks: Vec<CheckFile>,
    /// Where it stands.
    pub origin: Origin,
}

/// One of `upstreams`: a service that the instance calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamFile {
    /// The service called.
    pub service: ServiceName,
    /// The loopback address on which the agent takes its calls; `None` leaves it to DNS.
    pub listen: Option<SocketAddr>,
}

/// `[[instance.NAME.check]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckFile {
    /// What is tried.
    pub kind: CheckKind,
    /// Time from one try to the next, in milliseconds (100 to 3,600,000; 5,000 unless given).
    pub interval_ms: u64,
    /// Longest time for a try, in milliseconds (1 to the interval; 2,000 unless given).
    pub timeout_ms: u64,
    /// Good tries in a row until a failing instance passes (1 to 100; 2 unless given).
    pub rise: u32,
    /// Bad tries in a row until a passing instance fails (1 to 100; 3 unless given).
    pub fall: u32,
}

/// What a check tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum CheckKind {
    /// A GET of this path (and query) on the instance's address answers 2xx.
    Http(String),
    /// A connection to the instance's address opens.
    Tcp,
    /// This command, by absolute path, exits with 0.
    Exec(Vec<String>),
}

const TOP: Keys = Keys { known: &["instance"], later: &[] };

/// Reads the host file `name`.
///
/// The same instance in two files is for the caller to find.
///
/// # Errors
/// All that is wrong, at most [`DIAGNOSTICS_MAX`](crate::limits::DIAGNOSTICS_MAX) diagnostics in
/// the order of the text.
pub fn parse(name: &str, text: &str) -> Result<Vec<InstanceFile>, Vec<Diagnostic>> {
    Walk::read(name, text, read)
}

/// [`parse`], of bytes that may not be UTF-8.
///
/// # Errors
/// As [`parse`], and if `bytes` are not UTF-8.
pub fn parse_bytes(name: &str, bytes: &[u8]) -> Result<Vec<InstanceFile>, Vec<Diagnostic>> {
    from_bytes(name, bytes, parse)
}

fn read(walk: &mut Walk<'_>, root: &Table<'_, '_>) -> Vec<InstanceFile> {
    let mut instances = Vec::new();
    for (key, span, value) in root.iter() {
        match key {
            "instance" => instances = instance::instances(walk, value),
            "service" | "allow" | "deny" | "limit" => {
                let message = format!("{key} tables belong in policy, not in a host's file");
                let hint = "move them to a policy file and run \"mesh apply\"";
                walk.error_with_hint(span, message, Some(hint.to_owned()));
            }
            _ => walk.unknown(key, span, &TOP),
        }
    }
    instances
}

#[cfg(test)]
mod tests;
