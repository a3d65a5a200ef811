//! Request and answer bodies. Strict: unknown fields are errors on the server's side.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::catalog::{Instance, InstanceSpec, Node, NodePolicy};
use crate::identity::{SpiffeId, TrustDomain};
use crate::name::{Datacenter, InstanceId, NodeName, ServerName, ServiceName, TokenId};
use crate::policy::{AccessMode, Origin, Protocol};
use crate::resource::Endpoint;
use crate::revision::Revision;
use crate::stream::Heartbeat1;
use crate::time::UnixMillis;
use crate::trust::{Revoked, Role};

/// The body of every answer that is not 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// Stable, such as `not_found`; docs/api.md lists them.
    pub code: String,
    /// For people: what was found, what was expected, what to do.
    pub message: String,
    /// What in the request is wrong, if one thing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The same id stands in the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// The answer to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The state from which the write can be read.
    pub revision: Revision,
}

/// `GET /v1/ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Whether this server has caught up and can serve.
    pub ready: bool,
    /// Why not, if not.
    pub reason: Option<String>,
}

/// `GET /v1/bundle`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleAnswer {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The datacenter of the server.
    pub datacenter: Datacenter,
    /// The trust anchors as PEM.
    pub roots_pem: String,
    /// SHA-256 of each anchor in DER, as hex, in the same order.
    pub fingerprints: Vec<String>,
    /// The state it was read from.
    pub revision: Revision,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Who answers.
    pub server: ServerName,
    /// Its Raft id.
    pub id: u64,
    /// The leader it knows.
    pub leader: Option<ServerName>,
    /// Its Raft term.
    pub term: u64,
    /// Its Raft role: `leader`, `follower`, `candidate` or `learner`.
    pub role: String,
    /// The state it serves from.
    pub revision: Revision,
    /// The last log index applied.
    pub applied_index: u64,
    /// SHA-256 of the state, as hex: equal on all servers at one revision.
    pub state_hash: String,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The datacenter.
    pub datacenter: Datacenter,
    /// What happens to calls that no rule allows.
    pub access: AccessMode,
    /// The policy version in force.
    pub policy_version: u64,
    /// What the servers can all speak.
    pub feature_level: u32,
    /// Software version.
    pub version: String,
    /// Counts of nodes, services and instances.
    pub nodes: u64,
    /// See `nodes`.
    pub services: u64,
    /// See `nodes`.
    pub instances: u64,
}

/// One of `GET /v1/servers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// Its name.
    pub name: ServerName,
    /// Its Raft id.
    pub id: u64,
    /// Its API, as `host:port`.
    pub api_address: String,
    /// Its Raft port, as `host:port`.
    pub raft_address: String,
    /// Whether it votes.
    pub voter: bool,
    /// Whether it leads, as far as the answering server knows.
    pub leader: bool,
    /// The highest feature level it speaks.
    pub feature_level: u32,
}

/// `POST /v1/servers/join`: sent over TLS pinned to the CA named in the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinServerRequest {
    /// The join token's id.
    pub token: TokenId,
    /// The join token's secret, as hex.
    pub secret: String,
    /// The name wanted.
    pub name: ServerName,
    /// Where its API will be reached.
    pub api_address: String,
    /// Where its Raft port will be reached.
    pub raft_address: String,
    /// A certificate request (PKCS#10 in PEM) by its new key.
    pub csr_pem: String,
    /// An X25519 public key, as hex, to which the key-encryption key is wrapped.
    pub wrap_key: String,
    /// The highest feature level it speaks.
    pub feature_level: u32,
}

/// The answer: everything a server needs to start as a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinServerAnswer {
    /// Its Raft id.
    pub id: u64,
    /// Its certificate and the intermediate, as PEM.
    pub chain_pem: String,
    /// The bundle.
    pub roots_pem: String,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The datacenter.
    pub datacenter: Datacenter,
    /// The key-encryption key, sealed to `wrap_key`, as hex: ephemeral key, nonce, ciphertext.
    pub wrapped_kek: String,
    /// The members.
    pub servers: Vec<ServerInfo>,
    /// The state afterwards.
    pub revision: Revision,
}

/// `POST /v1/servers/transfer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    /// The new leader; `None` lets the leader choose.
    pub to: Option<ServerName>,
}

/// What a new token is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum TokenPurpose {
    /// Enrols one node.
    Node {
        /// The only node that may use it; `None`: any name not taken.
        name: Option<NodeName>,
        /// The node policy that the node gets.
        policy: NodePolicy,
    },
    /// Adds one server.
    Server {
        /// The only server that may use it; `None`: any name not taken.
        name: Option<ServerName>,
    },
    /// Uses the API.
    Api {
        /// With these rights.
        role: Role,
    },
}

/// `POST /v1/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTokenRequest {
    /// What it is for.
    pub purpose: TokenPurpose,
    /// Its life, in seconds (1 to 31,536,000).
    pub ttl_seconds: u64,
    /// For people, at most 256 bytes.
    pub note: String,
}

/// The answer: the only place where the secret is ever shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTokenAnswer {
    /// The token's public id.
    pub id: TokenId,
    /// The whole token, to hand to its bearer.
    pub token: String,
    /// When it ends.
    pub expires_at: UnixMillis,
    /// The state afterwards.
    pub revision: Revision,
}

/// One of `GET /v1/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Its public id.
    pub id: TokenId,
    /// What it is for.
    pub purpose: TokenPurpose,
    /// When it ends; `None` never.
    pub expires_at: Option<UnixMillis>,
    /// When it was used, if it was.
    pub used_at: Option<UnixMillis>,
    /// For people.
    pub note: String,
}

/// `POST /v1/enrol`: sent over TLS pinned to the CA named in the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The join token's id.
    pub token: TokenId,
    /// The join token's secret, as hex.
    pub secret: String,
    /// The name wanted.
    pub node: NodeName,
    /// Where the agent is dialled by other agents.
    pub address: IpAddr,
    /// The agent's inbound port.
    pub port: u16,
    /// A certificate request (PKCS#10 in PEM) by the node's new key.
    pub csr_pem: String,
}

/// The answer: the node's certificate, and what it verifies others against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolAnswer {
    /// Certificate and intermediate, as PEM.
    pub chain_pem: String,
    /// The bundle, as PEM.
    pub roots_pem: String,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The datacenter.
    pub datacenter: Datacenter,
    /// API addresses of the servers, as `host:port`.
    pub servers: Vec<String>,
    /// The state afterwards.
    pub revision: Revision,
}

/// `POST /v1/renew`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// A certificate request (PKCS#10 in PEM) by the node's enrolled key.
    pub csr_pem: String,
}

/// `POST /v1/issue`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssueRequest {
    /// A service that the calling node hosts.
    pub service: ServiceName,
    /// A certificate request (PKCS#10 in PEM) by a key made for it.
    pub csr_pem: String,
}

/// A new certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafAnswer {
    /// Whom it names.
    pub id: SpiffeId,
    /// Certificate and intermediate, as PEM.
    pub chain_pem: String,
    /// The bundle, as PEM.
    pub roots_pem: String,
    /// When it ends.
    pub expires_at: UnixMillis,
}

/// `PUT /v1/node/instances`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncRequest {
    /// New or changed.
    pub upsert: Vec<InstanceSpec>,
    /// Gone.
    pub remove: Vec<InstanceId>,
}

/// `PUT /v1/node/address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressRequest {
    /// Where the agent is dialled by other agents.
    pub address: IpAddr,
    /// The agent's inbound port.
    pub port: u16,
}

/// `GET /v1/nodes/{node}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAnswer {
    /// The node.
    pub node: Node,
    /// What it registered.
    pub instances: Vec<Instance>,
}

/// One of `GET /v1/agents`: what an agent last reported, as the leader knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The node.
    pub node: NodeName,
    /// Whether a stream is open now.
    pub connected: bool,
    /// The server it is connected to, or was last.
    pub server: Option<ServerName>,
    /// The process generation.
    pub generation: u64,
    /// Software version.
    pub version: String,
    /// When it was last heard of.
    pub seen: UnixMillis,
    /// What it reported.
    pub report: Heartbeat1,
    /// The last refusal of a batch, if the agent refused one since its last acknowledgement.
    pub error: Option<String>,
    /// The newest revision that touches something this agent holds.
    pub wanted: Revision,
}

/// One of `GET /v1/services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSummary {
    /// The service.
    pub service: ServiceName,
    /// What it speaks; `None` is undeclared.
    pub protocol: Option<Protocol>,
    /// What happens to calls that no rule allows.
    pub access: AccessMode,
    /// Instances that may be used.
    pub healthy: u64,
    /// All instances.
    pub instances: u64,
    /// Rules about it.
    pub rules: u64,
    /// The last change.
    pub modified: Revision,
}

/// `GET /v1/services/{service}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAnswer {
    /// In short.
    pub summary: ServiceSummary,
    /// Its identity.
    pub id: SpiffeId,
    /// Its instances as peers reach them.
    pub endpoints: Vec<Endpoint>,
    /// Its instances as registered.
    pub instances: Vec<Instance>,
    /// Its policy as TOML.
    pub policy: String,
}

/// One of `GET /v1/health/{service}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceHealth {
    /// The instance as registered.
    pub instance: Instance,
    /// As peers reach it.
    pub endpoint: Endpoint,
}

/// `GET /v1/policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyList {
    /// The version in force.
    pub version: u64,
    /// The objects, in id order.
    pub objects: Vec<PolicyEntry>,
}

/// One object of policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyEntry {
    /// `service.orders`, `allow.orders/readers`.
    pub id: String,
    /// Where it stands.
    pub origin: Origin,
    /// The version of its file.
    pub version: u64,
    /// In one line.
    pub summary: String,
}

/// `GET /v1/policy/object`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyText {
    /// What was asked.
    pub id: String,
    /// As TOML.
    pub text: String,
    /// The version in force.
    pub version: u64,
}

/// `POST /v1/policy/apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// Refuse unless this is the version in force.
    pub expected: Option<u64>,
    /// The files: name and text.
    pub files: Vec<(String, String)>,
    /// Remove files that are in force and not given here.
    pub prune: bool,
    /// Only check and say what would change.
    pub dry_run: bool,
    /// For people, at most 1,024 bytes.
    pub message: String,
}

/// `POST /v1/policy/delete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteRequest {
    /// Refuse unless this is the version in force.
    pub expected: Option<u64>,
    /// Object ids, or names of files.
    pub ids: Vec<String>,
}

/// What an apply did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyAnswer {
    /// The version in force.
    pub version: u64,
    /// The state from which it can be read.
    pub revision: Revision,
    /// Ids that are new.
    pub added: Vec<String>,
    /// Ids whose content changed.
    pub changed: Vec<String>,
    /// Ids that are gone.
    pub removed: Vec<String>,
    /// Allowed, but perhaps not meant.
    pub warnings: Vec<String>,
}

/// `POST /v1/revocations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// What to refuse.
    pub what: Revoked,
    /// For people.
    pub reason: String,
}
