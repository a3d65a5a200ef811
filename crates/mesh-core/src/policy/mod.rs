//! Policy: what users declare for the whole mesh, in TOML files.
//!
//! State kind: *replicated* ([`PolicyObject`] is part of `MeshState`). Text is parsed at the edge
//! ([`text`]), never in `apply`, so that a new parser cannot part replicas.

mod matcher;
mod rule;
mod service;

pub mod text;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use matcher::{HeaderMatch, HttpMatch, InvalidMatch, Method, PathMatch};
pub use rule::{Mode, Rule, RuleId, RuleKind, Source};
pub use service::{AccessMode, Protocol, Route, RouteMatch, ServicePolicy, Subset, Target};

use crate::name::ServiceName;

/// Where an object stands: the file as applied, and the line of its header, counted from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The name of the policy file, such as `orders.toml`.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One object of policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum PolicyObject {
    /// `[service.NAME]`.
    Service(ServicePolicy),
    /// `[[allow.NAME]]` or `[[deny.NAME]]`.
    Rule(Rule),
}

impl PolicyObject {
    /// The service the object is about.
    pub fn service(&self) -> &ServiceName {
        match self {
            Self::Service(policy) => &policy.service,
            Self::Rule(rule) => &rule.id.service,
        }
    }

    /// Where the object stands.
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Service(policy) => &policy.origin,
            Self::Rule(rule) => &rule.origin,
        }
    }

    /// The object's id: `service.NAME`, or the rule's id such as `allow.NAME/readers`.
    pub fn id(&self) -> String {
        match self {
            Self::Service(policy) => format!("service.{}", policy.service),
            Self::Rule(rule) => rule.id.to_string(),
        }
    }
}

/// One policy file, parsed: its objects in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// The file's name, relative to what was applied, such as `orders.toml`.
    pub name: String,
    /// The text as the user wrote it.
    pub text: String,
    /// What the text declares.
    pub objects: Vec<PolicyObject>,
}

/// Free-form facts of an instance or subset, such as `version = "2"`.
pub type Meta = BTreeMap<String, String>;
