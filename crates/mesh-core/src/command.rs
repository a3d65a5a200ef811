//! [`Command`]: the alphabet of the Raft log, the *ground* state.
//!
//! Every kind carries its version in its name (`EnrolNode1`). A version in use never gains a
//! field: a new field is a new variant, proposed only when every voter reports the feature level
//! that knows it. Decoding is strict, and an undecodable command stops the node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::catalog::{
    CheckStatus, Health, InstanceSpec, InvalidInstance, KeyHash, Liveness, NodePolicy,
};
use crate::identity::TrustDomain;
use crate::name::{Datacenter, InstanceId, NodeName, ServerName, TokenId};
use crate::policy::{AccessMode, PolicyFile};
use crate::revision::Revision;
use crate::time::UnixMillis;
use crate::trust::{self, CertAuthority, Principal, Revocation, Token};

/// The feature level this version of the mesh speaks.
pub const FEATURE_LEVEL: u32 = 1;

/// One entry of the log: who wants what, and when the proposer's clock says it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Stamped by the leader; `apply` never lets the state's clock fall.
    pub at: UnixMillis,
    /// On whose behalf.
    pub by: Principal,
    /// What.
    pub kind: CommandKind,
}

/// What a command does, with its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum CommandKind {
    /// The first command of a mesh; refused afterwards.
    InitMesh1(Box<InitMesh1>),
    /// Keeps a new token.
    CreateToken1(Token),
    /// Forgets a token.
    DeleteToken1(TokenId),
    /// Takes a node in, using up its join token.
    EnrolNode1(EnrolNode1),
    /// Takes a server in, using up its join token; membership itself is Raft's.
    EnrolServer1(EnrolServer1),
    /// Forgets a server.
    RemoveServer1(ServerName),
    /// Where a node's agent listens.
    SetNodeAddress1(SetNodeAddress1),
    /// What a node may host. Instances that it may host no more are removed.
    SetNodePolicy1 {
        /// The node.
        node: NodeName,
        /// Its new policy.
        policy: NodePolicy,
    },
    /// Forgets a node with its instances, and denies its key.
    RemoveNode1(NodeName),
    /// The difference between what a node hosts and what it had registered.
    SyncInstances1(SyncInstances1),
    /// Changes of health, nothing else.
    SetHealth1(SetHealth1),
    /// Leases that expired or came back, and coarse last-seen times.
    SetLiveness1(SetLiveness1),
    /// Puts policy files in force, as a new version.
    ApplyPolicy1(ApplyPolicy1),
    /// Adds to the deny list.
    Revoke1(Revocation),
    /// Replaces the whole state by a backup, in a higher epoch.
    Restore1(Restore1),
    /// What the servers can all speak.
    SetFeatureLevel1(u32),
    /// What one server can speak, after its software changed.
    SetServerLevel1(SetServerLevel1),
}

impl CommandKind {
    /// The feature level that every server must speak before this kind may enter the log.
    pub fn level(&self) -> u32 {
        match self {
            Self::InitMesh1(_)
            | Self::CreateToken1(_)
            | Self::DeleteToken1(_)
            | Self::EnrolNode1(_)
            | Self::EnrolServer1(_)
            | Self::RemoveServer1(_)
            | Self::SetNodeAddress1(_)
            | Self::SetNodePolicy1 { .. }
            | Self::RemoveNode1(_)
            | Self::SyncInstances1(_)
            | Self::SetHealth1(_)
            | Self::SetLiveness1(_)
            | Self::ApplyPolicy1(_)
            | Self::Revoke1(_)
            | Self::Restore1(_)
            | Self::SetFeatureLevel1(_)
            | Self::SetServerLevel1(_) => 1,
        }
    }
}

/// See [`CommandKind::SetServerLevel1`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetServerLevel1 {
    /// The server.
    pub server: ServerName,
    /// The highest feature level it speaks.
    pub level: u32,
}

/// See [`CommandKind::InitMesh1`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitMesh1 {
    /// The mesh's trust domain, for good.
    pub trust_domain: TrustDomain,
    /// The datacenter, for good.
    pub datacenter: Datacenter,
    /// What happens to calls that no rule allows.
    pub access: AccessMode,
    /// The CA, with sealed keys.
    pub ca: CertAuthority,
    /// The first admin token.
    pub token: Token,
    /// The first server.
    pub server: ServerRecord,
}

/// A control server as known to the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerRecord {
    /// Its name.
    pub name: ServerName,
    /// Its Raft node id: never used twice.
    pub id: u64,
    /// Where agents and operators reach its API, as `host:port`.
    pub api_address: String,
    /// Where members reach its Raft port, as `host:port`.
    pub raft_address: String,
    /// SHA-256 of its public key.
    pub key: KeyHash,
    /// The highest feature level it speaks.
    pub feature_level: u32,
}

/// See [`CommandKind::EnrolNode1`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolNode1 {
    /// The join token.
    pub token: TokenId,
    /// SHA-256 of the secret presented.
    pub secret: KeyHash,
    /// The name wanted.
    pub node: NodeName,
    /// SHA-256 of the node's public key.
    pub key: KeyHash,
    /// Where its agent listens.
    pub address: std::net::IpAddr,
    /// The agent's inbound port.
    pub port: u16,
}

/// See [`CommandKind::EnrolServer1`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolServer1 {
    /// The join token.
    pub token: TokenId,
    /// SHA-256 of the secret presented.
    pub secret: KeyHash,
    /// The name wanted.
    pub name: ServerName,
    /// See [`ServerRecord::api_address`].
    pub api_address: String,
    /// See [`ServerRecord::raft_address`].
    pub raft_address: String,
    /// SHA-256 of the server's public key.
    pub key: KeyHash,
    /// The highest feature level it speaks.
    pub feature_level: u32,
}

/// See [`CommandKind::SetNodeAddress1`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetNodeAddress1 {
    /// The node.
    pub node: NodeName,
    /// Where its agent listens.
    pub address: std::net::IpAddr,
    /// The agent's inbound port.
    pub port: u16,
}

/// See [`CommandKind::SyncInstances1`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncInstances1 {
    /// The node.
    pub node: NodeName,
    /// New or changed.
    pub upsert: Vec<InstanceSpec>,
    /// Gone; unknown ones are ignored.
    pub remove: Vec<InstanceId>,
}

/// See [`CommandKind::SetHealth1`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetHealth1 {
    /// The node.
    pub node: NodeName,
    /// By instance; unknown ones are ignored.
    pub changes: BTreeMap<InstanceId, HealthChange>,
}

/// An instance's new health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthChange {
    /// Folded from the checks.
    pub health: Health,
    /// Each check's outcome.
    pub checks: BTreeMap<String, CheckStatus>,
}

/// See [`CommandKind::SetLiveness1`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLiveness1 {
    /// By node; unknown ones are ignored.
    pub nodes: BTreeMap<NodeName, Liveness>,
    /// Coarse last-seen times, by node; unknown ones are ignored.
    pub seen: BTreeMap<NodeName, UnixMillis>,
}

/// See [`CommandKind::ApplyPolicy1`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyPolicy1 {
    /// Refuse unless this is the version in force.
    pub expected: Option<u64>,
    /// Each replaces the file of its name.
    pub files: Vec<PolicyFile>,
    /// Files to remove.
    pub remove: Vec<String>,
    /// For people.
    pub message: String,
}

/// See [`CommandKind::Restore1`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore1 {
    /// Above any epoch that was seen.
    pub epoch: u64,
    /// The backup.
    pub state: Box<crate::state::MeshState>,
}

/// What a command did, the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Outcome {
    /// Done, or nothing to do; the state is at `revision` afterwards.
    Done(Revision),
    /// A server was taken in under this Raft id.
    Server {
        /// The state's revision afterwards.
        revision: Revision,
        /// The server's Raft id.
        id: u64,
    },
    /// Policy is at `version` now.
    Policy {
        /// The state's revision afterwards.
        revision: Revision,
        /// The version in force.
        version: u64,
    },
    /// Nothing changed, and why.
    Rejected(Rejected),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Rejected {
    /// The mesh has been initialised.
    #[error("the mesh is initialised already, trust domain {0}")]
    Initialised(TrustDomain),
    /// It has not.
    #[error("the mesh is not initialised, run `mesh init` on its first server")]
    NotInitialised,
    /// No such thing.
    #[error("{what} {name:?} does not exist")]
    NotFound {
        /// What kind of thing.
        what: String,
        /// Its name.
        name: String,
    },
    /// The name is in use.
    #[error("{what} {name:?} exists already")]
    Exists {
        /// What kind of thing.
        what: String,
        /// Its name.
        name: String,
    },
    /// The token's id or secret is not known. One message for both, on purpose.
    #[error("the token is not valid, ask an operator for a new one (`mesh token create`)")]
    TokenInvalid,
    /// Too late.
    #[error("the token expired at {0}, ask an operator for a new one (`mesh token create`)")]
    TokenExpired(UnixMillis),
    /// Used up.
    #[error(
        "the token was used at {0} already, ask an operator for a new one (`mesh token create`)"
    )]
    TokenUsed(UnixMillis),
    /// For something or somebody else.
    #[error("the token is for {expected}, found {found}")]
    TokenScope {
        /// What it is for.
        expected: String,
        /// What was asked.
        found: String,
    },
    /// The node's policy does not allow the service.
    #[error(
        "node {node} may not host service {service}: its node policy allows {allowed}; an operator can change it (`mesh node policy {node} --service {service}`)"
    )]
    NodePolicy {
        /// The node.
        node: NodeName,
        /// The service.
        service: String,
        /// What the policy allows.
        allowed: String,
    },
    /// The instance breaks a bound.
    #[error(transparent)]
    Instance(#[from] InvalidInstance),
    /// Somebody else wrote first.
    #[error(
        "policy is at version {now}, expected {expected}; look at the difference and apply again"
    )]
    Conflict {
        /// The version in force.
        now: u64,
        /// The version expected.
        expected: u64,
    },
    /// The whole set of policy files does not fit together.
    #[error("{}", .0.join("\n"))]
    Policy(Vec<String>),
    /// A bound of the state.
    #[error("{what} would be {found}, expected at most {max}")]
    TooMany {
        /// Of what.
        what: String,
        /// How many.
        found: u64,
        /// How many there may be.
        max: u64,
    },
    /// A restore into an epoch that is not higher, or of another mesh.
    #[error("the backup cannot be restored: {0}")]
    Restore(String),
    /// The proposer may not.
    #[error("{by} may not do this")]
    Forbidden {
        /// Who asked.
        by: String,
    },
    /// Feature levels only rise, and a server must speak the one in force.
    #[error("feature level {found} does not do, the mesh speaks {now} already")]
    FeatureLevel {
        /// The level in force.
        now: u32,
        /// The level asked.
        found: u32,
    },
    /// A server could not read what would be written.
    #[error("server {server} speaks feature level {speaks}, expected {level}; upgrade it first")]
    ServerBehind {
        /// The server.
        server: ServerName,
        /// The level it speaks.
        speaks: u32,
        /// The level wanted.
        level: u32,
    },
}

impl Outcome {
    /// The revision after a command that did something, or why it did nothing.
    ///
    /// # Errors
    /// [`Rejected`] as it is.
    pub fn revision(self) -> Result<Revision, Rejected> {
        match self {
            Self::Done(revision)
            | Self::Server { revision, .. }
            | Self::Policy { revision, .. } => Ok(revision),
            Self::Rejected(why) => Err(why),
        }
    }
}

/// Whether the principal that a server authenticated may propose this kind at all; `apply` checks
/// it again on every replica, so that a bug at one edge is not a hole.
pub fn may_propose(by: &Principal, kind: &CommandKind) -> bool {
    use trust::Permission::{Admin, Public, WritePolicy};
    let own = |node: &NodeName| matches!(by, Principal::Node(n) if n == node);
    let server = matches!(by, Principal::Server(_));
    match kind {
        CommandKind::InitMesh1(_)
        | CommandKind::SetLiveness1(_)
        | CommandKind::SetFeatureLevel1(_) => server,
        CommandKind::SetServerLevel1(set) => {
            matches!(by, Principal::Server(name) if *name == set.server)
        }
        CommandKind::EnrolNode1(_) | CommandKind::EnrolServer1(_) => trust::permits(by, Public),
        CommandKind::CreateToken1(_)
        | CommandKind::DeleteToken1(_)
        | CommandKind::SetNodePolicy1 { .. }
        | CommandKind::RemoveNode1(_)
        | CommandKind::Revoke1(_)
        | CommandKind::Restore1(_) => trust::permits(by, Admin),
        CommandKind::RemoveServer1(_) => server || trust::permits(by, Admin),
        CommandKind::SetNodeAddress1(set) => own(&set.node),
        CommandKind::SyncInstances1(sync) => own(&sync.node),
        CommandKind::SetHealth1(set) => own(&set.node) || server,
        CommandKind::ApplyPolicy1(apply) => {
            let services = || apply.files.iter().flat_map(|f| &f.objects);
            trust::permits(by, WritePolicy) && services().all(|o| trust::may_write(by, o.service()))
        }
    }
}
