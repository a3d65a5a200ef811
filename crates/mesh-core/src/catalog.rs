//! The catalog: nodes, what they may host, and the instances they registered.
//!
//! State kind: *replicated*. Heartbeats are *ephemeral*: only changes of [`Liveness`] reach the log.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::name::{InstanceId, NodeName, ServiceName};
use crate::policy::Meta;
use crate::revision::Revision;
use crate::time::UnixMillis;

/// A host with an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Where its agent is dialled by other agents.
    pub address: IpAddr,
    /// The agent's inbound mTLS port, 7443 by default.
    pub port: u16,
    /// Which services it may host.
    pub policy: NodePolicy,
    /// SHA-256 of the public key (SPKI, DER) it enrolled with: its credential from then on.
    pub key: KeyHash,
    /// When it enrolled.
    pub enrolled_at: UnixMillis,
    /// Whether its lease is alive.
    pub liveness: Liveness,
    /// When it was last seen, to the nearest ten seconds.
    pub last_seen: UnixMillis,
    /// The last change of anything above but `last_seen`, or of its instances.
    pub modified: Revision,
}

/// SHA-256 of a public key (SPKI in DER), as 64 hex digits in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyHash(pub [u8; 32]);

/// A text that is not 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("hash has {0} characters or others than 0-9 a-f, expected 64 hex digits")]
pub struct InvalidHash(usize);

impl FromStr for KeyHash {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let invalid = || InvalidHash(text.chars().count());
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let mut out = [0; 32];
        if text.len() != 64 {
            return Err(invalid());
        }
        for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let (high, low) = (digit(pair[0]), digit(pair[1]));
            *byte = high.zip(low).map(|(h, l)| h << 4 | l).ok_or_else(invalid)?;
        }
        Ok(Self(out))
    }
}

impl TryFrom<String> for KeyHash {
    type Error = InvalidHash;

    fn try_from(text: String) -> Result<Self, InvalidHash> {
        text.parse()
    }
}

impl From<KeyHash> for String {
    fn from(hash: KeyHash) -> Self {
        hash.to_string()
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Whether a node's lease is alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// It heartbeats.
    #[default]
    Alive,
    /// Many expired at once: used after healthy ones, until that is understood.
    Suspect,
    /// Its lease expired: its instances are not endpoints.
    Gone,
}

/// Which services a node may host; issuance has the same bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePolicy {
    /// Any of these. Empty allows none.
    pub services: Vec<ServiceGlob>,
}

impl NodePolicy {
    /// Whether a node with this policy may host `service`.
    pub fn allows(&self, service: &ServiceName) -> bool {
        self.services.iter().any(|glob| glob.matches(service))
    }
}

/// `web`, `batch-*` or `*`: a service name, or a prefix of one followed by `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceGlob(String);

/// A text that is not a service glob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "service pattern is {0:?}, expected a service name, a prefix such as \"batch-*\", or \"*\""
)]
pub struct InvalidGlob(String);

impl ServiceGlob {
    /// Whether `service` is meant.
    pub fn matches(&self, service: &ServiceName) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => service.as_str().starts_with(prefix),
            None => service.as_str() == self.0,
        }
    }
}

impl FromStr for ServiceGlob {
    type Err = InvalidGlob;

    fn from_str(text: &str) -> Result<Self, InvalidGlob> {
        let prefix = text.strip_suffix('*');
        let ok = match prefix {
            Some("") => true,
            // a prefix may end with '-', which a name may not: check it with a letter behind it
            Some(prefix) => format!("{prefix}x").parse::<ServiceName>().is_ok(),
            None => text.parse::<ServiceName>().is_ok(),
        };
        if ok { Ok(Self(text.to_owned())) } else { Err(InvalidGlob(text.to_owned())) }
    }
}

impl TryFrom<String> for ServiceGlob {
    type Error = InvalidGlob;

    fn try_from(text: String) -> Result<Self, InvalidGlob> {
        text.parse()
    }
}

impl From<ServiceGlob> for String {
    fn from(glob: ServiceGlob) -> Self {
        glob.0
    }
}

impl fmt::Display for ServiceGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an agent registers of one local instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceSpec {
    /// Unique on its node.
    pub id: InstanceId,
    /// The service it is a copy of.
    pub service: ServiceName,
    /// The port it listens on at its node; callers never dial it.
    pub port: u16,
    /// Facts that subsets select by.
    pub meta: Meta,
    /// Services it calls.
    pub upstreams: Vec<ServiceName>,
    /// The outcome of its checks.
    pub health: Health,
    /// Each check's outcome, by the check's name.
    pub checks: BTreeMap<String, CheckStatus>,
}

/// A registered instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Where it runs.
    pub node: NodeName,
    /// What its agent says of it.
    pub spec: InstanceSpec,
    /// The last change.
    pub modified: Revision,
}

/// Whether an instance may be used, folded from its checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Every check passes, or there is none.
    Passing,
    /// A check fails, or none has answered yet.
    #[default]
    Critical,
    /// It is being taken out of service: no new calls.
    Draining,
}

impl Health {
    /// The health as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Critical => "critical",
            Self::Draining => "draining",
        }
    }
}

/// The last outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckStatus {
    /// Whether it passes.
    pub passing: bool,
    /// What it said at the last change, at most 256 bytes.
    pub output: String,
}

/// Why an instance cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum InvalidInstance {
    /// The port is 0.
    #[error("instance {0}: port is 0, expected 1 to 65535")]
    Port(InstanceId),
    /// Too much of something.
    #[error("instance {instance}: {what} is {found}, expected at most {max}")]
    TooLarge {
        /// The instance.
        instance: InstanceId,
        /// What is too large.
        what: String,
        /// How large.
        found: usize,
        /// How large it may be.
        max: usize,
    },
}

impl InstanceSpec {
    /// Checks the bounds of everything in the spec.
    ///
    /// # Errors
    /// [`InvalidInstance`], the first one found.
    pub fn check(&self) -> Result<(), InvalidInstance> {
        if self.port == 0 {
            return Err(InvalidInstance::Port(self.id.clone()));
        }
        let longest = self.meta.iter().map(|(k, v)| k.len().max(v.len())).max().unwrap_or(0);
        let output = self.checks.iter().map(|(k, v)| k.len().max(v.output.len())).max();
        let bounds = [
            ("number of meta keys", self.meta.len(), limits::META_KEYS_MAX),
            ("length of meta", longest, limits::META_BYTES_MAX),
            ("number of upstreams", self.upstreams.len(), limits::UPSTREAMS_MAX),
            ("number of checks", self.checks.len(), limits::META_KEYS_MAX),
            ("length of a check's output", output.unwrap_or(0), limits::CHECK_OUTPUT_BYTES_MAX),
        ];
        for (what, found, max) in bounds {
            if found > max {
                let (instance, what) = (self.id.clone(), what.to_owned());
                return Err(InvalidInstance::TooLarge { instance, what, found, max });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_names_and_prefixes() {
        let cases = [
            ("web", "web", true),
            ("web", "web-2", false),
            ("batch-*", "batch-7", true),
            ("batch-*", "batch", false),
            ("batch*", "batch", true),
            ("*", "anything", true),
        ];
        for (glob, service, want) in cases {
            let glob: ServiceGlob = glob.parse().unwrap();
            assert_eq!(glob.matches(&service.parse().unwrap()), want, "{glob} on {service}");
        }
        for bad in ["", "**", "*web", "we*b", "Web", "web.*", "-*"] {
            assert!(bad.parse::<ServiceGlob>().is_err(), "accepted {bad:?}");
        }
    }

    #[test]
    fn hashes_parse_what_they_print() {
        let hash = KeyHash([0xa5; 32]);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        let text = hash.to_string();
        for bad in [&text[1..], "", &text.to_uppercase(), &format!("{text}0")] {
            assert!(bad.parse::<KeyHash>().is_err(), "accepted {bad:?}");
        }
    }
}
