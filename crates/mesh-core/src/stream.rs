//! The agents' stream: one bidirectional exchange of length-prefixed messages.
//!
//! A frame is `length u32 | kind u16 | version u16 | body`, big-endian; `length` counts what
//! follows it. Bodies are MessagePack maps, written by `mesh-net`. A kind's version never gains a
//! field; an unknown kind or version ends the stream, with an error that names it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::command::HealthChange;
use crate::limits::STREAM_MESSAGE_BYTES_MAX;
use crate::name::{InstanceId, NodeName, ServerName};
use crate::resource::{Resource, ResourceKey};
use crate::revision::Revision;
use crate::time::UnixMillis;

/// Bytes before a frame's body.
pub const HEADER_BYTES: usize = 8;

/// What a frame is, with its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// The kind's number.
    pub kind: u16,
    /// The kind's version.
    pub version: u16,
}

macro_rules! messages {
    ($(#[$doc:meta])* $enum:ident { $($(#[$vdoc:meta])* $name:ident($body:ty) = ($kind:literal, $version:literal);)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $enum { $($(#[$vdoc])* $name($body),)* }

        impl $enum {
            /// The kind and version that announce this message.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$name(_) => Kind { kind: $kind, version: $version },)* }
            }

            /// Every kind and version this process reads.
            pub const KINDS: &'static [Kind] = &[$(Kind { kind: $kind, version: $version },)*];

            /// Decodes `body` as what `kind` announces, with `decode` for each body type.
            ///
            /// # Errors
            /// [`FrameError::Unknown`] for a kind or version this process does not read, else
            /// those of the decoder.
            pub fn decode<D: Decode>(kind: Kind, body: &[u8], decoder: &D) -> Result<Self, FrameError> {
                match (kind.kind, kind.version) {
                    $(($kind, $version) => decoder.decode(body).map(Self::$name).map_err(|why| {
                        FrameError::Body { kind: kind.kind, version: kind.version, why }
                    }),)*
                    (kind, version) => Err(FrameError::Unknown { kind, version }),
                }
            }

            /// Encodes the body with `encoder`.
            ///
            /// # Errors
            /// Those of the encoder.
            pub fn encode<E: Encode>(&self, encoder: &E) -> Result<Vec<u8>, String> {
                match self { $(Self::$name(body) => encoder.encode(body),)* }
            }
        }
    };
}

/// Reads message bodies; `mesh-net` implements it with MessagePack.
pub trait Decode {
    /// Reads `body` strictly: unknown fields and trailing bytes are errors.
    ///
    /// # Errors
    /// What is wrong, for the log.
    fn decode<T: for<'de> Deserialize<'de>>(&self, body: &[u8]) -> Result<T, String>;
}

/// Writes message bodies; `mesh-net` implements it with MessagePack.
pub trait Encode {
    /// Writes `body`.
    ///
    /// # Errors
    /// What is wrong, for the log.
    fn encode<T: Serialize>(&self, body: &T) -> Result<Vec<u8>, String>;
}

/// Why a frame cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Larger than any message may be.
    #[error("message has {found} bytes, expected 4 to {max}", max = STREAM_MESSAGE_BYTES_MAX)]
    Length {
        /// Bytes announced.
        found: usize,
    },
    /// Not read by this process.
    #[error("message kind {kind} version {version} is unknown")]
    Unknown {
        /// The kind.
        kind: u16,
        /// The version.
        version: u16,
    },
    /// The body is not what the kind announces.
    #[error("message kind {kind} version {version}: {why}")]
    Body {
        /// The kind.
        kind: u16,
        /// The version.
        version: u16,
        /// What is wrong.
        why: String,
    },
}

/// The header of a frame with a body of `body_len` bytes.
///
/// # Errors
/// [`FrameError::Length`] if the body is too large.
pub fn header(kind: Kind, body_len: usize) -> Result<[u8; HEADER_BYTES], FrameError> {
    let found = body_len + 4;
    let length = u32::try_from(found).ok().filter(|_| found <= STREAM_MESSAGE_BYTES_MAX);
    let length = length.ok_or(FrameError::Length { found })?.to_be_bytes();
    let (k, v) = (kind.kind.to_be_bytes(), kind.version.to_be_bytes());
    Ok([length[0], length[1], length[2], length[3], k[0], k[1], v[0], v[1]])
}

/// The kind and body length that `header` announces.
///
/// # Errors
/// [`FrameError::Length`] if the length is out of bounds.
pub fn parse_header(header: [u8; HEADER_BYTES]) -> Result<(Kind, usize), FrameError> {
    let [a, b, c, d, k0, k1, v0, v1] = header;
    let found = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(4..=STREAM_MESSAGE_BYTES_MAX).contains(&found) {
        return Err(FrameError::Length { found });
    }
    let kind = Kind { kind: u16::from_be_bytes([k0, k1]), version: u16::from_be_bytes([v0, v1]) };
    Ok((kind, found - 4))
}

messages! {
    /// Server to agent.
    ToAgent {
        /// First message.
        Hello(ServerHello1) = (1, 1);
        /// The next `resources` messages are [`ToAgent::Resource`]s of one revision.
        Batch(Batch1) = (2, 1);
        /// One resource of the batch.
        Resource(Resource) = (3, 1);
        /// The server ends the stream and says why; the agent tries another server.
        Goodbye(Goodbye1) = (4, 1);
        /// The servers are others than the hello, or the last such message, said.
        Servers(Servers1) = (5, 1);
    }
}

messages! {
    /// Agent to server.
    ToServer {
        /// First message.
        Hello(AgentHello1) = (65, 1);
        /// Subscribes to more, or to less.
        Subscribe(Subscribe1) = (66, 1);
        /// Everything up to this revision is in force.
        Ack(Ack1) = (67, 1);
        /// A batch could not be put in force; the agent keeps what it had.
        Nack(Nack1) = (68, 1);
        /// The agent lives.
        Heartbeat(Heartbeat1) = (69, 1);
        /// The health of instances changed.
        Health(HealthReport1) = (70, 1);
    }
}

/// See [`ToAgent::Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerHello1 {
    /// Who answers.
    pub server: ServerName,
    /// The state it serves from.
    pub revision: Revision,
    /// How often to heartbeat, in milliseconds.
    pub heartbeat_ms: u64,
    /// After how long without one the lease expires, in milliseconds.
    pub lease_ms: u64,
    /// API addresses of all servers, as `host:port`, to reconnect to.
    pub servers: Vec<String>,
}

/// See [`ToAgent::Batch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch1 {
    /// The state the batch brings the agent to.
    pub revision: Revision,
    /// Whether it replaces everything the agent holds (a higher epoch), or adds to it.
    pub full: bool,
    /// How many resources follow.
    pub resources: u32,
}

/// See [`ToAgent::Goodbye`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goodbye1 {
    /// For the log.
    pub reason: String,
}

/// See [`ToAgent::Servers`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Servers1 {
    /// API addresses of all servers, as `host:port`, to reconnect to.
    pub servers: Vec<String>,
}

/// See [`ToServer::Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentHello1 {
    /// Who calls; must be the node of the certificate.
    pub node: NodeName,
    /// Rises with each process of the agent, so that an old and a new one can overlap.
    pub generation: u64,
    /// The agent's software version.
    pub version: String,
    /// What it has in force.
    pub applied: Revision,
    /// What it wants, and the revision it holds of each; [`Revision::ZERO`] for none.
    pub subscriptions: Vec<(ResourceKey, Revision)>,
}

/// See [`ToServer::Subscribe`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe1 {
    /// More of these.
    pub add: Vec<ResourceKey>,
    /// No more of these.
    pub remove: Vec<ResourceKey>,
}

/// See [`ToServer::Ack`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ack1 {
    /// In force.
    pub revision: Revision,
}

/// See [`ToServer::Nack`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nack1 {
    /// Refused.
    pub revision: Revision,
    /// Why.
    pub error: String,
}

/// See [`ToServer::Heartbeat`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat1 {
    /// In force.
    pub applied: Revision,
    /// Leaf certificates held: identity and end of life.
    pub leaves: BTreeMap<String, UnixMillis>,
    /// Ports of protected services that can be reached around the agent.
    pub exposed: Vec<ExposedPort>,
    /// Caught by checks that the agent makes of its own host, for people.
    pub warnings: Vec<String>,
}

/// A service's own port that answers without the agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExposedPort {
    /// The instance.
    pub instance: InstanceId,
    /// The address that answers.
    pub address: SocketAddr,
}

/// See [`ToServer::Health`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthReport1 {
    /// By instance.
    pub changes: BTreeMap<InstanceId, HealthChange>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_their_bounds() {
        let kind = Kind { kind: 2, version: 1 };
        assert_eq!(header(kind, 5).and_then(parse_header), Ok((kind, 5)));
        let max = STREAM_MESSAGE_BYTES_MAX - 4;
        assert!(header(kind, max).is_ok());
        assert!(header(kind, max + 1).is_err());
        assert!(parse_header([0, 0, 0, 3, 0, 1, 0, 1]).is_err());
        assert!(parse_header([255; 8]).is_err());
    }

    #[test]
    fn kinds_are_unique() {
        let all: Vec<_> = ToAgent::KINDS.iter().chain(ToServer::KINDS).collect();
        let unique: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), unique.len());
    }
}
