//! Trust: the CA's certificates and sealed keys, tokens, roles and the deny list.
//!
//! State kind: *replicated*. Private keys are here only sealed, under a key that never enters the
//! state, the log or a backup.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::catalog::{KeyHash, NodePolicy};
use crate::identity::{CaRole, SpiffeId, TrustDomain};
use crate::name::{NodeName, ServerName, ServiceName, TokenId};
use crate::time::UnixMillis;

/// A certificate in DER. Public.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CertDer(#[serde(with = "bytes")] pub Vec<u8>);

impl std::fmt::Debug for CertDer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CertDer({} bytes, {:016x})", self.0.len(), crate::hash::fnv1a(&self.0))
    }
}

/// A private key encrypted under the cluster's key-encryption key. Its form is the CA's affair.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealedKey(#[serde(with = "bytes")] pub Vec<u8>);

impl std::fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedKey({} bytes)", self.0.len())
    }
}

/// Bytes as one MessagePack `bin`; in JSON as an array of numbers.
pub mod bytes {
    use std::fmt;

    use serde::de::{Error, SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};

    /// Writes `bytes` as one value.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    /// Reads what [`serialize`] wrote.
    ///
    /// # Errors
    /// Those of the deserializer.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_byte_buf(Bytes)
    }

    struct Bytes;

    impl<'de> Visitor<'de> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = seq.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }
}

/// The CA: one root, and below it one intermediate per role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertAuthority {
    /// The trust anchor.
    pub root: CertDer,
    /// The root's key, sealed.
    pub root_key: SealedKey,
    /// One issuer per role.
    pub intermediates: BTreeMap<CaRole, Intermediate>,
}

/// An issuing certificate of one role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intermediate {
    /// Signed by the root; its URI SAN is `spiffe://<td>/ca/<role>`.
    pub cert: CertDer,
    /// Its key, sealed.
    pub key: SealedKey,
}

/// What everyone verifies against: the roots trusted now, and whom not to trust although they
/// verify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The namespace the roots vouch for.
    pub trust_domain: TrustDomain,
    /// Trust anchors. Never empty.
    pub roots: Vec<CertDer>,
    /// The deny list.
    pub revoked: Vec<Revocation>,
}

/// One entry of the deny list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// What is refused.
    pub what: Revoked,
    /// From when.
    pub at: UnixMillis,
    /// Why, for people.
    pub reason: String,
}

/// What a deny-list entry refuses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Revoked {
    /// Every certificate of this identity.
    Identity(SpiffeId),
    /// Every certificate with this public key.
    Key(KeyHash),
    /// The certificate with this serial (big-endian, no leading zero byte), as hex.
    Serial(String),
}

/// What a token's bearer may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum TokenGrant {
    /// Enrols one node, once.
    JoinNode {
        /// The node that may use it; `None`: any name not taken.
        node: Option<NodeName>,
        /// The node policy that the node gets.
        policy: NodePolicy,
    },
    /// Adds one server, once.
    JoinServer {
        /// The server that may use it; `None`: any name not taken.
        server: Option<ServerName>,
    },
    /// Uses the API, until it ends.
    Api {
        /// With these rights.
        role: Role,
    },
}

/// What a person may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Role {
    /// Everything.
    Admin,
    /// Reads everything but secrets; writes policy of these services.
    Operator {
        /// Which services.
        services: Vec<crate::catalog::ServiceGlob>,
    },
    /// Reads everything but secrets.
    Viewer,
    /// Reads metrics.
    Metrics,
}

/// A token as kept: never its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Its public id.
    pub id: TokenId,
    /// SHA-256 of its secret.
    pub secret: KeyHash,
    /// What it may do.
    pub grant: TokenGrant,
    /// From then on it is refused. `None` never ends: the first admin token only.
    pub expires_at: Option<UnixMillis>,
    /// When and by whom a single-use token was used.
    pub used: Option<TokenUse>,
    /// For people.
    pub note: String,
}

/// The one use of a single-use token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenUse {
    /// When.
    pub at: UnixMillis,
    /// The key that enrolled by it: the same key may repeat the request, and gets the same answer.
    pub key: KeyHash,
}

/// Who asks: derived from a certificate or a token at the edge, never claimed by the asker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Principal {
    /// Nobody known.
    Anonymous,
    /// The mesh itself: a server acting on its own account.
    Server(ServerName),
    /// An agent with a valid certificate.
    Node(NodeName),
    /// An agent whose certificate expired: may renew and nothing else.
    ExpiredNode(NodeName),
    /// A local service that asks through its own certificate.
    Service(ServiceName),
    /// A person or tool with an API token.
    Token {
        /// Which token.
        id: TokenId,
        /// Its rights at the time of asking.
        role: Role,
    },
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Server(name) => write!(f, "server:{name}"),
            Self::Node(name) => write!(f, "node:{name}"),
            Self::ExpiredNode(name) => write!(f, "node:{name} (expired)"),
            Self::Service(name) => write!(f, "service:{name}"),
            Self::Token { id, .. } => write!(f, "token:{id}"),
        }
    }
}

/// What an API route needs of its caller. Every route declares one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Nothing: public facts, or the request carries its own proof (a join token).
    Public,
    /// Reading the catalog, policy and status.
    Read,
    /// Reading metrics.
    Metrics,
    /// Writing policy of a service; the service is checked by the handler with [`may_write`].
    WritePolicy,
    /// Everything else an operator does: tokens, nodes, servers, backups.
    Admin,
    /// An agent acting for its own node.
    Node,
    /// An agent renewing, also with an expired certificate.
    Renew,
}

impl Permission {
    /// Every permission, in order.
    pub const ALL: [Self; 7] = [
        Self::Public,
        Self::Read,
        Self::Metrics,
        Self::WritePolicy,
        Self::Admin,
        Self::Node,
        Self::Renew,
    ];
}

/// Whether `principal` has `permission`. Fails closed: what is not listed is refused.
pub fn permits(principal: &Principal, permission: Permission) -> bool {
    use Permission as P;
    let granted: &[P] = match principal {
        Principal::Anonymous | Principal::Service(_) => &[P::Public],
        Principal::Server(_) => &[P::Public, P::Read, P::Metrics],
        Principal::Node(_) => &[P::Public, P::Node, P::Renew],
        Principal::ExpiredNode(_) => &[P::Public, P::Renew],
        Principal::Token { role, .. } => match role {
            Role::Admin => &[P::Public, P::Read, P::Metrics, P::WritePolicy, P::Admin],
            Role::Operator { .. } => &[P::Public, P::Read, P::Metrics, P::WritePolicy],
            Role::Viewer => &[P::Public, P::Read, P::Metrics],
            Role::Metrics => &[P::Public, P::Metrics],
        },
    };
    granted.contains(&permission)
}

/// Whether `principal` may write policy about `service`.
pub fn may_write(principal: &Principal, service: &ServiceName) -> bool {
    match principal {
        Principal::Token { role: Role::Admin, .. } => true,
        Principal::Token { role: Role::Operator { services }, .. } => {
            services.iter().any(|glob| glob.matches(service))
        }
        Principal::Token { role: Role::Viewer | Role::Metrics, .. }
        | Principal::Anonymous
        | Principal::Server(_)
        | Principal::Node(_)
        | Principal::ExpiredNode(_)
        | Principal::Service(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_node_may_only_renew() {
        let expired = Principal::ExpiredNode("web-7".parse().unwrap());
        for permission in Permission::ALL {
            let want = matches!(permission, Permission::Public | Permission::Renew);
            assert_eq!(permits(&expired, permission), want, "{permission:?}");
        }
    }

    #[test]
    fn operators_write_only_their_services() {
        let role = Role::Operator { services: vec!["pay-*".parse().unwrap()] };
        let operator = Principal::Token { id: "t1".parse().unwrap(), role };
        assert!(may_write(&operator, &"pay-eu".parse().unwrap()));
        assert!(!may_write(&operator, &"orders".parse().unwrap()));
        assert!(!permits(&operator, Permission::Admin));
    }
}
