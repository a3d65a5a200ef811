//! Commands that set up and use this host.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Subcommand, ValueEnum};
use mesh_core::identity::TrustDomain;
use mesh_core::name::{Datacenter, InstanceId, NodeName, ServerName};

use super::{Service, pair};

/// `mesh init`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example, on the first server:\n  \
mesh init --api-address ctl-1:7300 --raft-address ctl-1:7301\n  \
systemctl enable --now meshd")]
pub struct InitArgs {
    /// What meshd goes by.
    #[command(flatten)]
    pub server: ServerSettings,
    /// The namespace of all identities [default: random, such as 4be0643f1d98.mesh.internal]
    #[arg(long, env = "MESH_INIT_TRUST_DOMAIN")]
    pub trust_domain: Option<TrustDomain>,
    /// The datacenter
    #[arg(long, env = "MESH_INIT_DATACENTER", default_value = "dc1")]
    pub datacenter: Datacenter,
    /// What happens to calls that no rule allows
    #[arg(long, env = "MESH_INIT_ACCESS", value_enum, default_value = "enforce")]
    pub access: Access,
    /// Where the first admin token goes (0600); ca.pem and cli.toml go beside it
    #[arg(long, env = "MESH_INIT_TOKEN_OUT", default_value = "/etc/mesh/admin.token")]
    pub token_out: PathBuf,
}

/// Settings of meshd that `init` and `server join` write down, for meshd to find.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server settings")]
pub struct ServerSettings {
    /// meshd's settings file: read if it is there, else written from these flags
    #[arg(long, env = "MESH_SERVER_CONFIG", default_value = "/etc/mesh/meshd.toml")]
    pub config: PathBuf,
    /// The name of this server [default: the host's name]
    #[arg(long, env = "MESH_SERVER_NAME")]
    pub name: Option<ServerName>,
    /// Where agents and operators reach its API
    #[arg(long, env = "MESH_SERVER_API_ADDRESS", value_name = "HOST:PORT")]
    pub api_address: Option<String>,
    /// Where the other servers reach it
    #[arg(long, env = "MESH_SERVER_RAFT_ADDRESS", value_name = "HOST:PORT")]
    pub raft_address: Option<String>,
    /// The API's listener [default: 0.0.0.0:7300]
    #[arg(long, env = "MESH_SERVER_API", value_name = "IP:PORT")]
    pub api: Option<SocketAddr>,
    /// The listener for the other servers [default: 0.0.0.0:7301]
    #[arg(long, env = "MESH_SERVER_RAFT", value_name = "IP:PORT")]
    pub raft: Option<SocketAddr>,
    /// Where log, state and keys are kept [default: /var/lib/meshd]
    #[arg(long, env = "MESH_SERVER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the key-encryption key lies (0600) [default: /etc/mesh/kek]
    #[arg(long, env = "MESH_SERVER_KEK_FILE", value_name = "FILE")]
    pub kek_file: Option<PathBuf>,
}

/// What happens to calls that no rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Access {
    /// They are denied
    Enforce,
    /// They pass, and are logged
    Audit,
}

/// `mesh join`. The token comes by `--token-file` or `--token`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example, with a token made by `mesh token create --node web-7 --service web`:\n  \
mesh join ctl-1:7300 --token-file join.token\n  \
systemctl enable --now mesh-agent")]
pub struct JoinArgs {
    /// Control servers, as host:port
    #[arg(required = true, value_delimiter = ',', value_name = "SERVER")]
    pub servers: Vec<String>,
    /// The name of this node [default: the host's name]
    #[arg(long, env = "MESH_JOIN_NODE")]
    pub node: Option<NodeName>,
    /// Where other agents dial this host [default: its address towards the servers]
    #[arg(long, env = "MESH_JOIN_ADDRESS")]
    pub address: Option<IpAddr>,
    /// The agent's settings file to write
    #[arg(long, env = "MESH_JOIN_CONFIG", default_value = "/etc/mesh/agent.toml")]
    pub config: PathBuf,
    /// Where the agent finds the token (0600)
    #[arg(long, env = "MESH_JOIN_TOKEN_OUT", default_value = "/etc/mesh/join.token")]
    pub token_out: PathBuf,
    /// Replace a settings file that is there
    #[arg(long, env = "MESH_JOIN_FORCE", value_parser = FalseyValueParser::new())]
    pub force: bool,
}

/// `mesh service`.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Declare an instance of a service on this host
    Add(ServiceAddArgs),
    /// List what this host declares
    #[command(visible_alias = "ls")]
    List(SocketArgs),
    /// Take back an instance declared by `mesh service add`
    #[command(visible_alias = "rm")]
    Remove {
        /// The instance
        name: InstanceId,
        /// Where the agent listens.
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Show a service of the mesh: instances and policy
    Show {
        /// The service
        service: Service,
    },
}

/// Where the agent of this host listens.
#[derive(Clone, Debug, Args)]
pub struct SocketArgs {
    /// The agent's socket
    #[arg(long, env = "MESH_AGENT_SOCKET", default_value = "/run/mesh/agent.sock")]
    pub socket: PathBuf,
}

/// `mesh service add`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:\n  \
mesh service add web --port 8080 --check http:/health --upstream orders=127.0.0.1:9001\n  \
mesh service add -f web.toml")]
pub struct ServiceAddArgs {
    /// The service
    #[arg(required_unless_present = "file", requires = "port")]
    pub service: Option<Service>,
    /// The port it listens on
    #[arg(long, env = "MESH_SERVICE_ADD_PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// The instance's name, unique on this host [default: the service's]
    #[arg(long, env = "MESH_SERVICE_ADD_NAME")]
    pub name: Option<InstanceId>,
    /// The address it listens on [default: 127.0.0.1]
    #[arg(long, env = "MESH_SERVICE_ADD_ADDRESS")]
    pub address: Option<IpAddr>,
    /// The systemd unit it runs in
    #[arg(long, env = "MESH_SERVICE_ADD_UNIT")]
    pub unit: Option<String>,
    /// The user it runs as
    #[arg(long, env = "MESH_SERVICE_ADD_USER")]
    pub user: Option<String>,
    /// A fact to select by, such as version=2
    #[arg(long, env = "MESH_SERVICE_ADD_META", value_delimiter = ',', value_parser = pair, value_name = "NAME=VALUE")]
    pub meta: Vec<(String, String)>,
    /// A service it calls, and perhaps the loopback address on which it finds it
    #[arg(long, env = "MESH_SERVICE_ADD_UPSTREAM", value_delimiter = ',', value_parser = upstream, value_name = "SERVICE[=IP:PORT]")]
    pub upstream: Vec<(Service, Option<SocketAddr>)>,
    /// How to tell that it works: http:/PATH or tcp
    #[arg(long, env = "MESH_SERVICE_ADD_CHECK", value_parser = check, value_name = "CHECK")]
    pub check: Vec<Check>,
    /// A host file instead of the flags, - for standard input
    #[arg(long, short, env = "MESH_SERVICE_ADD_FILE", conflicts_with_all = ["service", "port", "address", "unit", "user", "meta", "upstream", "check"])]
    pub file: Option<PathBuf>,
    /// Where the agent listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// One of `--check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A GET of this path.
    Http(String),
    /// A connection opens.
    Tcp,
}

fn check(text: &str) -> Result<Check, String> {
    match text.split_once(':') {
        None if text == "tcp" => Ok(Check::Tcp),
        Some(("http", path)) if path.starts_with('/') => Ok(Check::Http(path.to_owned())),
        Some(_) | None => Err(format!("check is {text:?}, expected http:/PATH or tcp")),
    }
}

fn upstream(text: &str) -> Result<(Service, Option<SocketAddr>), String> {
    let (service, listen) = match text.split_once('=') {
        None => (text, None),
        Some((service, listen)) => (service, Some(listen)),
    };
    let service = service.parse().map_err(|why| format!("{why}"))?;
    let listen = listen.map(str::parse).transpose();
    let listen = listen.map_err(|_| format!("{text:?} has no IP:PORT after '='"))?;
    Ok((service, listen))
}
