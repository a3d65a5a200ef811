//! The command line: every command, flag and environment variable.
//!
//! Every flag has an environment variable, `MESH_<COMMAND>_<FLAG>`; a test walks the tree.

mod admin;
mod host;
pub(crate) mod pages;
mod policy;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use mesh_core::name::ServiceName;
use mesh_core::revision::Revision;

use crate::times::parse_duration;

pub use admin::{
    NodeCommand, NodePolicyArgs, RevokeArgs, RoleName, ServerCommand, ServerJoinArgs,
    ServerTransferArgs, SnapshotCommand, TokenCommand, TokenCreateArgs,
};
pub use host::{
    Access, Check, InitArgs, JoinArgs, ServerSettings, ServiceAddArgs, ServiceCommand, SocketArgs,
};
pub use policy::{ApplyArgs, DeleteArgs, GetArgs, WhyArgs};

/// Operates a service mesh of virtual and physical machines
#[derive(Debug, Parser)]
#[command(name = "mesh", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
Exit codes: 0 done or yes, 1 no or refused, 2 wrong usage, 3 no server or agent reachable.\n\
Every flag has an environment variable; --help of a command names them.")]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Servers to ask, in turn
    #[arg(long, global = true, env = "MESH_ADDR", value_name = "HOST:PORT", value_delimiter = ',')]
    pub addr: Vec<String>,
    /// Token to show; a file is safer, since others see arguments
    #[arg(long, global = true, env = "MESH_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File with the token to show, - for standard input
    #[arg(long, global = true, env = "MESH_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// CA certificates of the mesh in PEM; without, the token says which CA to trust
    #[arg(long, global = true, env = "MESH_CACERT", value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// How to print answers
    #[arg(long, short, global = true, env = "MESH_OUTPUT", value_enum, default_value = "table")]
    pub output: Format,
    /// Longest time for one command's requests, such as 10s
    #[arg(long, global = true, env = "MESH_TIMEOUT", default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Ask for the newest state, at the price of a round between servers
    #[arg(long, global = true, env = "MESH_CONSISTENT", value_parser = FalseyValueParser::new(), conflicts_with = "stale")]
    pub consistent: bool,
    /// Take any server's answer, also without a leader
    #[arg(long, global = true, env = "MESH_STALE", value_parser = FalseyValueParser::new())]
    pub stale: bool,
    /// File with addr, cacert and token_file to use where nothing else says
    #[arg(long, global = true, env = "MESH_SETTINGS", value_name = "FILE")]
    pub settings: Option<PathBuf>,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: the API's own answer.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new mesh: its first server, its CA and its first admin token
    #[cfg(feature = "dev")]
    Init(Box<InitArgs>),
    /// Set this host up as a node: write the agent's settings and token
    Join(JoinArgs),
    /// Control servers: list, join, remove, transfer
    #[command(subcommand, visible_alias = "servers")]
    Server(ServerCommand),
    /// Tokens: create, list, delete
    #[command(subcommand)]
    Token(TokenCommand),
    /// Services of this host: add, list, remove
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Nodes: list, show, policy, remove
    #[command(subcommand)]
    Node(NodeCommand),
    /// List the tokens
    Tokens,
    /// List the nodes
    Nodes,
    /// List the services of the mesh
    Services,
    /// List servers and nodes, and whether they live
    Members,
    /// Put policy files in force
    Apply(ApplyArgs),
    /// Check policy and host files without a server
    Lint {
        /// Files or directories, - for standard input
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// List the objects of policy, or print one
    Get(GetArgs),
    /// Take objects or files of policy out of force
    Delete(DeleteArgs),
    /// Say whether a call would pass, and why
    Why(WhyArgs),
    /// Say whether the mesh is well: agents, certificates, servers, exposed ports
    Status,
    /// Wait until the agents have a revision
    Wait(WaitArgs),
    /// Refuse an identity, a key or a certificate from now on
    Revoke(RevokeArgs),
    /// Backups of the whole state: save, restore, inspect
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Run a whole mesh in this process, on loopback
    #[cfg(feature = "dev")]
    Dev(DevArgs),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages
    Man {
        /// The directory to write to
        dir: PathBuf,
    },
    /// Print the version
    Version,
}

/// Reads a command line.
///
/// # Errors
/// The exit code: 2 for wrong usage, which is said on standard error; 0 after help or version.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, u8> {
    let read = || {
        let matches = Cli::command().try_get_matches_from(words)?;
        let mut cli = Cli::from_arg_matches(&matches)?;
        prefer_flag(&matches, &mut cli.global);
        Ok(cli)
    };
    read().map_err(|shown: clap::Error| {
        // If help cannot be printed there is nobody to tell.
        let _ = shown.print();
        u8::try_from(shown.exit_code()).unwrap_or(2)
    })
}

/// A token named by a flag counts more than one that lies in the environment in the other form.
fn prefer_flag(matches: &ArgMatches, global: &mut GlobalArgs) {
    let by_flag = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    match (by_flag("token"), by_flag("token_file")) {
        (true, false) => global.token_file = None,
        (false, true) => global.token = None,
        (true, true) | (false, false) => {}
    }
}

/// `mesh wait`.
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// The revision, as printed by a write; without, the newest one
    #[arg(long, env = "MESH_WAIT_REVISION", value_name = "EPOCH.INDEX")]
    pub revision: Option<Revision>,
    /// Longest wait
    #[arg(long = "for", env = "MESH_WAIT_FOR", default_value = "60s", value_parser = parse_duration)]
    pub limit: Duration,
}

/// `mesh dev`.
#[cfg(feature = "dev")]
#[derive(Clone, Debug, Args)]
pub struct DevArgs {
    /// Control servers, 1, 3 or 5
    #[arg(long, env = "MESH_DEV_SERVERS", default_value = "1", value_parser = servers_of_dev)]
    pub servers: u8,
    /// Prove that it works (register, call, deny, lose the leader) and exit with 0 or 1
    #[arg(long, env = "MESH_DEV_CHECK", value_parser = FalseyValueParser::new())]
    pub check: bool,
    /// Keep keys, logs and policy files in this directory
    #[arg(long = "keep", env = "MESH_DEV_KEEP", value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[cfg(feature = "dev")]
fn servers_of_dev(text: &str) -> Result<u8, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err(format!("{text:?} servers, expected 1, 3 or 5")),
    }
}

/// `name=value`.
fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} has no '=', expected NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// The same service name everywhere in the help.
type Service = ServiceName;

#[cfg(test)]
mod tests;
