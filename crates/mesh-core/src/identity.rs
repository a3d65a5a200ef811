//! Identities: SPIFFE IDs of services, nodes, servers and of the CA's roles.
//!
//! The shapes (design of the names; SPIFFE-ID §2):
//! `spiffe://<td>/ns/<ns>/dc/<dc>/svc/<service>`, `spiffe://<td>/dc/<dc>/node/<node>`,
//! `spiffe://<td>/dc/<dc>/server/<name>`, `spiffe://<td>/ca/<role>`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{Datacenter, InvalidName, NodeName, ServerName, ServiceName};

/// The namespace every service is in, for now.
pub const NAMESPACE: &str = "default";

/// A SPIFFE trust domain, such as `corp.example`.
///
/// Holds 1 to 255 bytes of `[a-z0-9._-]` (SPIFFE-ID §2.1); no other value can exist.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(std::sync::Arc<str>);

/// Why a text is not a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTrustDomain {
    /// Empty or too long.
    #[error("trust domain has {len} bytes, expected 1 to {max}", max = TrustDomain::LEN_MAX)]
    Length {
        /// Bytes found.
        len: usize,
    },
    /// A character outside the alphabet.
    #[error("trust domain has {found:?} at byte {at}, expected a-z, 0-9, '.', '_' or '-'")]
    Char {
        /// The character found.
        found: char,
        /// Its byte offset.
        at: usize,
    },
}

impl TrustDomain {
    /// The longest trust domain, in bytes.
    pub const LEN_MAX: usize = 255;

    /// The trust domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidTrustDomain;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > Self::LEN_MAX {
            return Err(InvalidTrustDomain::Length { len: text.len() });
        }
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
        match text.char_indices().find(|&(_, c)| !allowed(c)) {
            Some((at, found)) => Err(InvalidTrustDomain::Char { found, at }),
            None => Ok(Self(text.into())),
        }
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = InvalidTrustDomain;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0.as_ref().to_owned()
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// What a CA intermediate may issue for; it stands in the intermediate's URI SAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaRole {
    /// Issues to control servers.
    Server,
    /// Issues to nodes (agents).
    Node,
    /// Issues to services.
    Service,
}

impl CaRole {
    /// Every role, in order.
    pub const ALL: [Self; 3] = [Self::Server, Self::Node, Self::Service];

    /// The role as it stands in a URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Node => "node",
            Self::Service => "service",
        }
    }
}

/// Whom a SPIFFE ID names, within its trust domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// `/ns/<ns>/dc/<dc>/svc/<service>`; the namespace is [`NAMESPACE`].
    Service {
        /// Where the service runs.
        dc: Datacenter,
        /// The service.
        service: ServiceName,
    },
    /// `/dc/<dc>/node/<node>`.
    Node {
        /// Where the node stands.
        dc: Datacenter,
        /// The node.
        node: NodeName,
    },
    /// `/dc/<dc>/server/<name>`.
    Server {
        /// Where the server stands.
        dc: Datacenter,
        /// The server.
        server: ServerName,
    },
    /// `/ca/<role>`: an intermediate of the mesh CA.
    Ca(CaRole),
}

/// An identity: whom a certificate speaks for.
///
/// No other shape than those of [`Subject`] can exist.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    /// The namespace of the identity.
    pub trust_domain: TrustDomain,
    /// Whom it names there.
    pub subject: Subject,
}

/// Why a text is not one of the mesh's SPIFFE IDs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpiffeId {
    /// Longer than a SPIFFE ID may be (SPIFFE-ID §2.3).
    #[error("SPIFFE ID has {len} bytes, expected at most {max}", max = SpiffeId::LEN_MAX)]
    Length {
        /// Bytes found.
        len: usize,
    },
    /// Not `spiffe://`.
    #[error("SPIFFE ID {0:?} does not start with \"spiffe://\"")]
    Scheme(String),
    /// The trust domain is none.
    #[error("SPIFFE ID {text:?}: {source}")]
    TrustDomain {
        /// The whole text.
        text: String,
        /// Why.
        source: InvalidTrustDomain,
    },
    /// The path has none of the known shapes.
    #[error(
        "SPIFFE ID {0:?} has an unknown path, expected /ns/default/dc/DC/svc/SERVICE, /dc/DC/node/NODE, /dc/DC/server/NAME or /ca/ROLE"
    )]
    Path(String),
    /// A name in the path is none.
    #[error("SPIFFE ID {text:?}: {source}")]
    Name {
        /// The whole text.
        text: String,
        /// Why.
        source: InvalidName,
    },
}

impl SpiffeId {
    /// The longest SPIFFE ID, in bytes (SPIFFE-ID §2.3).
    pub const LEN_MAX: usize = 2048;

    /// The identity of `service` in `dc`.
    pub fn service(trust_domain: &TrustDomain, dc: &Datacenter, service: &ServiceName) -> Self {
        let subject = Subject::Service { dc: dc.clone(), service: service.clone() };
        Self { trust_domain: trust_domain.clone(), subject }
    }

    /// The identity of `node` in `dc`.
    pub fn node(trust_domain: &TrustDomain, dc: &Datacenter, node: &NodeName) -> Self {
        let subject = Subject::Node { dc: dc.clone(), node: node.clone() };
        Self { trust_domain: trust_domain.clone(), subject }
    }

    /// The identity of the control server `server` in `dc`.
    pub fn server(trust_domain: &TrustDomain, dc: &Datacenter, server: &ServerName) -> Self {
        let subject = Subject::Server { dc: dc.clone(), server: server.clone() };
        Self { trust_domain: trust_domain.clone(), subject }
    }

    /// The identity of the intermediate that issues for `role`.
    pub fn ca(trust_domain: &TrustDomain, role: CaRole) -> Self {
        Self { trust_domain: trust_domain.clone(), subject: Subject::Ca(role) }
    }

    /// Which intermediate may vouch for this identity; none may vouch for an intermediate.
    pub fn issuer_role(&self) -> Option<CaRole> {
        match self.subject {
            Subject::Service { .. } => Some(CaRole::Service),
            Subject::Node { .. } => Some(CaRole::Node),
            Subject::Server { .. } => Some(CaRole::Server),
            Subject::Ca(_) => None,
        }
    }

    /// The service this identity names, if it names one.
    pub fn as_service(&self) -> Option<(&Datacenter, &ServiceName)> {
        match &self.subject {
            Subject::Service { dc, service } => Some((dc, service)),
            Subject::Node { .. } | Subject::Server { .. } | Subject::Ca(_) => None,
        }
    }

    /// The node this identity names, if it names one.
    pub fn as_node(&self) -> Option<&NodeName> {
        match &self.subject {
            Subject::Node { node, .. } => Some(node),
            Subject::Service { .. } | Subject::Server { .. } | Subject::Ca(_) => None,
        }
    }

    /// The control server this identity names, if it names one.
    pub fn as_server(&self) -> Option<&ServerName> {
        match &self.subject {
            Subject::Server { server, .. } => Some(server),
            Subject::Service { .. } | Subject::Node { .. } | Subject::Ca(_) => None,
        }
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        if text.len() > Self::LEN_MAX {
            return Err(InvalidSpiffeId::Length { len: text.len() });
        }
        let rest = text
            .strip_prefix("spiffe://")
            .ok_or_else(|| InvalidSpiffeId::Scheme(text.to_owned()))?;
        let unknown = || InvalidSpiffeId::Path(text.to_owned());
        let (domain, path) = rest.split_once('/').ok_or_else(unknown)?;
        let trust_domain = domain
            .parse()
            .map_err(|source| InvalidSpiffeId::TrustDomain { text: text.to_owned(), source })?;
        let name = |source| InvalidSpiffeId::Name { text: text.to_owned(), source };
        let segments: Vec<&str> = path.split('/').collect();
        let subject = match segments[..] {
            ["ns", NAMESPACE, "dc", dc, "svc", service] => Subject::Service {
                dc: dc.parse().map_err(name)?,
                service: service.parse().map_err(name)?,
            },
            ["dc", dc, "node", node] => {
                Subject::Node { dc: dc.parse().map_err(name)?, node: node.parse().map_err(name)? }
            }
            ["dc", dc, "server", server] => Subject::Server {
                dc: dc.parse().map_err(name)?,
                server: server.parse().map_err(name)?,
            },
            ["ca", role] => Subject::Ca(
                CaRole::ALL.into_iter().find(|r| r.as_str() == role).ok_or_else(unknown)?,
            ),
            _ => return Err(unknown()),
        };
        Ok(Self { trust_domain, subject })
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = InvalidSpiffeId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}", self.trust_domain)?;
        match &self.subject {
            Subject::Service { dc, service } => write!(f, "/ns/{NAMESPACE}/dc/{dc}/svc/{service}"),
            Subject::Node { dc, node } => write!(f, "/dc/{dc}/node/{node}"),
            Subject::Server { dc, server } => write!(f, "/dc/{dc}/server/{server}"),
            Subject::Ca(role) => write!(f, "/ca/{}", role.as_str()),
        }
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The TLS server name by which a caller asks an agent for `service`:
/// `<service>.<ns>.<dc>.<td>`.
pub fn server_name(trust_domain: &TrustDomain, dc: &Datacenter, service: &ServiceName) -> String {
    format!("{service}.{NAMESPACE}.{dc}.{trust_domain}")
}

/// The service and datacenter that a TLS server name asks for, if it is of this trust domain.
pub fn parse_server_name(
    trust_domain: &TrustDomain, text: &str,
) -> Option<(ServiceName, Datacenter)> {
    let rest = text.strip_suffix(trust_domain.as_str())?.strip_suffix('.')?;
    let mut parts = rest.split('.');
    let (service, ns, dc) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || ns != NAMESPACE {
        return None;
    }
    Some((service.parse().ok()?, dc.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_domain_parses_only_its_alphabet() {
        let long = "a".repeat(256);
        let cases: &[(&str, &str, Result<(), InvalidTrustDomain>)] = &[
            ("dotted", "corp.example", Ok(())),
            ("longest", &long[..255], Ok(())),
            ("empty", "", Err(InvalidTrustDomain::Length { len: 0 })),
            ("too long", &long, Err(InvalidTrustDomain::Length { len: 256 })),
            ("upper case", "Corp", Err(InvalidTrustDomain::Char { found: 'C', at: 0 })),
            ("port", "corp:80", Err(InvalidTrustDomain::Char { found: ':', at: 4 })),
        ];
        for (name, text, want) in cases {
            let got = text.parse::<TrustDomain>();
            assert_eq!(got.as_ref().map(|_| ()).map_err(Clone::clone), *want, "case: {name}");
        }
    }

    #[test]
    fn spiffe_ids_have_four_shapes() {
        let good = [
            "spiffe://td/ns/default/dc/dc1/svc/orders",
            "spiffe://td/dc/dc1/node/web-7",
            "spiffe://td/dc/dc1/server/ctl-1",
            "spiffe://td/ca/node",
        ];
        for text in good {
            assert_eq!(text.parse::<SpiffeId>().map(|id| id.to_string()), Ok(text.to_owned()));
        }
        let bad = [
            "",
            "http://td/ca/node",
            "SPIFFE://td/ca/node",
            "spiffe://td",
            "spiffe://td/",
            "spiffe:///ca/node",
            "spiffe://td:80/ca/node",
            "spiffe://u@td/ca/node",
            "spiffe://td/ca/root",
            "spiffe://td/ca/node/",
            "spiffe://td//ca/node",
            "spiffe://td/ns/other/dc/dc1/svc/orders",
            "spiffe://td/ns/default/dc/dc1/svc/../x",
            "spiffe://td/ns/default/dc/dc1/svc/Orders",
            "spiffe://td/ns/default/dc/dc1/svc/orders?x",
            "spiffe://td/ns/default/dc/dc1/svc/orders#x",
            "spiffe://td/ns/default/dc/dc1/svc/%6frders",
            "spiffe://td/dc/dc1/node/web-7/x",
        ];
        for text in bad {
            assert!(text.parse::<SpiffeId>().is_err(), "accepted {text:?}");
        }
    }

    #[test]
    fn server_names_round_trip_within_their_trust_domain() {
        let td: TrustDomain = "abc.mesh.internal".parse().unwrap();
        let (dc, service) = ("dc1".parse().unwrap(), "orders".parse().unwrap());
        let name = server_name(&td, &dc, &service);
        assert_eq!(name, "orders.default.dc1.abc.mesh.internal");
        assert_eq!(parse_server_name(&td, &name), Some((service, dc)));
        for other in ["orders.other.dc1.abc.mesh.internal", "orders.default.dc1.x", "x", ""] {
            assert_eq!(parse_server_name(&td, other), None, "{other}");
        }
    }
}
