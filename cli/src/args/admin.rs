//! Commands about servers, tokens, nodes, revocation and backups.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use mesh_core::catalog::{KeyHash, ServiceGlob};
use mesh_core::identity::SpiffeId;
use mesh_core::name::{NodeName, ServerName, TokenId};

use super::ServerSettings;
use crate::times::parse_duration;

/// `mesh server`.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// List the servers
    #[command(visible_alias = "ls")]
    List,
    /// Make this host a server of a mesh that runs, by a join token
    #[cfg(feature = "dev")]
    Join(Box<ServerJoinArgs>),
    /// Take a server out of the cluster
    #[command(visible_alias = "rm")]
    Remove {
        /// The server
        server: ServerName,
    },
    /// Hand leadership over
    Transfer(ServerTransferArgs),
}

/// `mesh server join`. The token comes by `--token-file` or `--token`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example, with a token made by `mesh token create --server ctl-2`:\n  \
mesh server join ctl-1:7300 --token-file join.token --api-address ctl-2:7300 --raft-address ctl-2:7301\n  \
systemctl enable --now meshd")]
pub struct ServerJoinArgs {
    /// A server that runs, as host:port
    pub member: String,
    /// What meshd goes by.
    #[command(flatten)]
    pub server: ServerSettings,
}

/// `mesh server transfer`.
#[derive(Clone, Debug, Args)]
pub struct ServerTransferArgs {
    /// The new leader; without, the leader chooses
    #[arg(long, env = "MESH_SERVER_TRANSFER_TO")]
    pub to: Option<ServerName>,
}

/// `mesh token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; it is printed once
    Create(TokenCreateArgs),
    /// List the tokens, without their secrets
    #[command(visible_alias = "ls")]
    List,
    /// Forget a token
    #[command(visible_alias = "rm")]
    Delete {
        /// Its id
        id: TokenId,
    },
}

/// `mesh token create`.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("purpose").args(["node", "any_node", "server", "any_server", "role"]))]
#[command(after_help = "\
Examples:\n  \
mesh token create --node web-7 --service web --service 'batch-*'\n  \
mesh token create --server ctl-2 --ttl 10m\n  \
mesh token create --role viewer --ttl 30d --out viewer.token")]
pub struct TokenCreateArgs {
    /// Lets this node join
    #[arg(long, env = "MESH_TOKEN_CREATE_NODE")]
    pub node: Option<NodeName>,
    /// Lets a node of any free name join
    #[arg(long, env = "MESH_TOKEN_CREATE_ANY_NODE", value_parser = FalseyValueParser::new())]
    pub any_node: bool,
    /// Lets this server join
    #[arg(long, env = "MESH_TOKEN_CREATE_SERVER")]
    pub server: Option<ServerName>,
    /// Lets a server of any free name join
    #[arg(long, env = "MESH_TOKEN_CREATE_ANY_SERVER", value_parser = FalseyValueParser::new())]
    pub any_server: bool,
    /// Lets a person or program use the API
    #[arg(long, env = "MESH_TOKEN_CREATE_ROLE", value_enum)]
    pub role: Option<RoleName>,
    /// A service that the node may host or the operator may write, such as web or 'batch-*'
    #[arg(long, env = "MESH_TOKEN_CREATE_SERVICE", value_delimiter = ',')]
    pub service: Vec<ServiceGlob>,
    /// Its life, such as 10m, 1h or 30d
    #[arg(long, env = "MESH_TOKEN_CREATE_TTL", default_value = "1h", value_parser = parse_duration)]
    pub ttl: Duration,
    /// A note for people
    #[arg(long, env = "MESH_TOKEN_CREATE_NOTE", default_value = "")]
    pub note: String,
    /// Writes the token to this file (0600) rather than to standard output
    #[arg(long, env = "MESH_TOKEN_CREATE_OUT", value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Everything
    Admin,
    /// Reads all, writes policy of the services given
    Operator,
    /// Reads all
    Viewer,
    /// Reads metrics
    Metrics,
}

/// `mesh node`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List the nodes
    #[command(visible_alias = "ls")]
    List,
    /// Show a node and its instances
    Show {
        /// The node
        node: NodeName,
    },
    /// Set which services a node may host
    Policy(NodePolicyArgs),
    /// Forget a node and refuse its key
    #[command(visible_alias = "rm")]
    Remove {
        /// The node
        node: NodeName,
    },
}

/// `mesh node policy`.
#[derive(Clone, Debug, Args)]
pub struct NodePolicyArgs {
    /// The node
    pub node: NodeName,
    /// A service it may host, such as web, 'batch-*' or '*'; replaces what it had
    #[arg(long, env = "MESH_NODE_POLICY_SERVICE", value_delimiter = ',', required = true)]
    pub service: Vec<ServiceGlob>,
}

/// `mesh revoke`.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["identity", "key", "serial"]))]
pub struct RevokeArgs {
    /// Every certificate of this identity
    #[arg(env = "MESH_REVOKE_IDENTITY", value_name = "SPIFFE-ID")]
    pub identity: Option<SpiffeId>,
    /// Every certificate of this public key: its SHA-256 in hex
    #[arg(long, env = "MESH_REVOKE_KEY", value_name = "SHA-256")]
    pub key: Option<KeyHash>,
    /// The certificate with this serial in hex
    #[arg(long, env = "MESH_REVOKE_SERIAL")]
    pub serial: Option<String>,
    /// Why, for people
    #[arg(long, env = "MESH_REVOKE_REASON", default_value = "")]
    pub reason: String,
}

/// `mesh snapshot`.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Save the whole state to a file
    Save {
        /// The file, - for standard output
        file: PathBuf,
    },
    /// Replace the whole state by a backup, in a new epoch
    Restore {
        /// The file, - for standard input
        file: PathBuf,
        /// Do not ask
        #[arg(long, env = "MESH_SNAPSHOT_RESTORE_YES", value_parser = FalseyValueParser::new())]
        yes: bool,
    },
    /// Say what a backup holds, and whether it is whole
    Inspect {
        /// The file, - for standard input
        file: PathBuf,
    },
}
