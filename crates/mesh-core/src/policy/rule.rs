//! `[[allow.NAME]]` and `[[deny.NAME]]`: who may call a service.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{HttpMatch, Origin};
use crate::identity::SpiffeId;
use crate::name::{Datacenter, NodeName, RuleName, ServiceName};

/// Whether a rule grants or refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleKind {
    /// Adds access.
    Allow,
    /// Takes access away; wins over any allow.
    Deny,
}

impl RuleKind {
    /// The kind as written in policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// The stable id of a rule: `allow.orders/readers`.
///
/// An unnamed rule's name is `h-` and eight hex digits of a hash of its normalised content, so the
/// id does not move with the line and two equal rules have one id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleId {
    /// Grants or refuses.
    pub kind: RuleKind,
    /// The service called.
    pub service: ServiceName,
    /// The rule's name within the service.
    pub name: RuleName,
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}/{}", self.kind.as_str(), self.service, self.name)
    }
}

/// A text that is not a rule id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule id is {0:?}, expected allow.SERVICE/NAME or deny.SERVICE/NAME")]
pub struct InvalidRuleId(String);

impl FromStr for RuleId {
    type Err = InvalidRuleId;

    fn from_str(text: &str) -> Result<Self, InvalidRuleId> {
        let parse = || {
            let (kind, rest) = text.split_once('.')?;
            let kind = match kind {
                "allow" => RuleKind::Allow,
                "deny" => RuleKind::Deny,
                _ => return None,
            };
            let (service, name) = rest.split_once('/')?;
            Some(Self { kind, service: service.parse().ok()?, name: name.parse().ok()? })
        };
        parse().ok_or_else(|| InvalidRuleId(text.to_owned()))
    }
}

impl TryFrom<String> for RuleId {
    type Error = InvalidRuleId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RuleId> for String {
    fn from(id: RuleId) -> Self {
        id.to_string()
    }
}

/// Who a rule is about, as written in `from`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Source {
    /// `*`: every service and node of this trust domain; in a deny, everyone.
    Any,
    /// `web` (in any datacenter) or `web@dc2`.
    Service {
        /// The calling service.
        service: ServiceName,
        /// Only from there.
        dc: Option<Datacenter>,
    },
    /// `node:web-7`.
    Node(NodeName),
    /// `spiffe://...`, compared byte for byte.
    Spiffe(SpiffeId),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Service { service, dc: None } => write!(f, "{service}"),
            Self::Service { service, dc: Some(dc) } => write!(f, "{service}@{dc}"),
            Self::Node(node) => write!(f, "node:{node}"),
            Self::Spiffe(id) => write!(f, "{id}"),
        }
    }
}

/// Whether a rule acts or only counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The rule acts.
    #[default]
    Enforce,
    /// The rule changes no verdict; what it would do is counted.
    Audit,
}

/// One allow or deny rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its stable id.
    pub id: RuleId,
    /// Whether the user named it; an unnamed rule prints without a name.
    pub named: bool,
    /// Any of these callers. Never empty.
    pub from: Vec<Source>,
    /// Any of these requests; empty is every request and every connection.
    pub http: Vec<HttpMatch>,
    /// Acts or only counts.
    pub mode: Mode,
    /// Where it stands.
    pub origin: Origin,
}
