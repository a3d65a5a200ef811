//! The server's settings: `/etc/mesh/meshd.toml`, overruled by flags and `MESHD_*`.
//!
//! Every setting is one line of [`KEYS`]; the file reader and the command line are both built from
//! it, so that none can be settable in one place and not in the other.

mod file;
mod read;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesh_core::hostfile::Diagnostic;
use mesh_core::name::ServerName;
use mesh_net::telemetry::LogFormat;

use crate::raft::Timing;

pub use file::Settings;
pub(crate) use read::is_host_port;

/// What a server goes by, fixed for the life of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This server's name.
    pub name: ServerName,
    /// Where log, checkpoints and keys are kept (0700).
    pub data_dir: PathBuf,
    /// The API's listener.
    pub api: SocketAddr,
    /// Where agents and operators reach it, as `host:port`.
    pub api_address: String,
    /// The Raft port's listener.
    pub raft: SocketAddr,
    /// Where members reach it, as `host:port`.
    pub raft_address: String,
    /// Where the key-encryption key lies.
    pub kek: KekSource,
    /// How far servers are from each other.
    pub profile: Timing,
    /// Log entries between two checkpoints (100 to 10,000,000).
    pub checkpoint_every: u64,
    /// How often agents heartbeat.
    pub heartbeat: Duration,
    /// After how long without a heartbeat a node's lease expires; at least twice `heartbeat`.
    pub lease: Duration,
    /// Bounds.
    pub limits: Limits,
    /// What is logged, such as `info` or `info,meshd=debug`.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
}

/// Where the key-encryption key lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KekSource {
    /// In a file, outside the data directory.
    File(PathBuf),
    /// In the systemd credential `kek` (`LoadCredential=` or `LoadCredentialEncrypted=`).
    Credential,
}

/// Bounds of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections to the API open at once (16 to 1,000,000).
    pub connections: usize,
    /// Blocking queries waiting at once (1 to 1,000,000).
    pub watches: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 16_384, watches: 4_096 }
    }
}

impl Config {
    /// The settings of a server with these two and defaults for the rest; `host` is where others
    /// reach it.
    pub fn new(name: ServerName, data_dir: PathBuf, host: &str) -> Self {
        Self {
            name,
            data_dir,
            api: SocketAddr::from(([0, 0, 0, 0], API_PORT)),
            api_address: format!("{host}:{API_PORT}"),
            raft: SocketAddr::from(([0, 0, 0, 0], RAFT_PORT)),
            raft_address: format!("{host}:{RAFT_PORT}"),
            kek: KekSource::File(PathBuf::from("/etc/mesh/kek")),
            profile: Timing::default(),
            checkpoint_every: 10_000,
            heartbeat: Duration::from_secs(3),
            lease: Duration::from_secs(10),
            limits: Limits::default(),
            log: LOG.to_owned(),
            log_format: LogFormat::default(),
        }
    }

    /// The config that `settings` give; `host` is the host's name, taken for what is not set.
    ///
    /// # Errors
    /// All that is wrong, or missing and without a default.
    pub fn resolve(settings: &Settings, host: &str) -> Result<Self, ConfigError> {
        read::config(settings, host)
    }
}

/// What one setting holds in the file; flags are always text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// As in the file; `limits.watches` stands in the table `[limits]`.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// An example, as it stands in the file.
    pub(crate) example: &'static str,
    /// For `--help`.
    pub(crate) help: &'static str,
}

const fn key(name: &'static str, kind: Kind, example: &'static str, help: &'static str) -> Key {
    Key { name, kind, example, help }
}

/// Every setting.
pub(crate) const KEYS: [Key; 15] = [
    key("name", Kind::Text, "\"ctl-1\"", "Name of this server [default: the host's name]"),
    key("data_dir", Kind::Text, "\"/var/lib/meshd\"", "Where log, state and keys are kept"),
    key("api", Kind::Text, "\"0.0.0.0:7300\"", "Listener of the API"),
    key("api_address", Kind::Text, "\"ctl-1:7300\"", "Where agents and operators reach the API"),
    key("raft", Kind::Text, "\"0.0.0.0:7301\"", "Listener for the other servers"),
    key("raft_address", Kind::Text, "\"ctl-1:7301\"", "Where the other servers reach it"),
    key(
        "kek_file",
        Kind::Text,
        "\"/etc/mesh/kek\"",
        "File of the key-encryption key, or \"credential\" for systemd's",
    ),
    key("profile", Kind::Text, "\"lan\"", "How far servers are from each other: lan or wan"),
    key("checkpoint_every", Kind::Number, "10000", "Log entries between two checkpoints"),
    key("heartbeat", Kind::Text, "\"3s\"", "How often agents heartbeat"),
    key("lease", Kind::Text, "\"10s\"", "After how long without a heartbeat a node is gone"),
    key("log", Kind::Text, "\"info\"", "What is logged"),
    key("log_format", Kind::Text, "\"text\"", "How it is logged: text or json"),
    key("limits.connections", Kind::Number, "16384", "API connections open at once"),
    key("limits.watches", Kind::Number, "4096", "Blocking queries waiting at once"),
];

/// Why there is no config: all that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct ConfigError(pub Vec<Wrong>);

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// In the file, at a place.
    InFile(Diagnostic),
    /// In a flag or an environment variable.
    InFlag {
        /// The setting.
        key: &'static str,
        /// What was found and what is expected.
        message: String,
    },
    /// Nowhere given, and there is no default.
    Missing(String),
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InFile(diagnostic) => write!(f, "{diagnostic}"),
            Self::InFlag { key, message } => {
                write!(f, "--{} or {}: {message}", flag_name(key), env_name(key))
            }
            Self::Missing(message) => f.write_str(message),
        }
    }
}

/// The flag of a setting: `data_dir` is `--data-dir`.
pub(crate) fn flag_name(key: &str) -> String {
    key.replace(['_', '.'], "-")
}

/// The environment variable of a setting: `data_dir` is `MESHD_DATA_DIR`.
pub(crate) fn env_name(key: &str) -> String {
    format!("MESHD_{}", key.replace('.', "_").to_uppercase())
}

fn lines(wrong: &[Wrong]) -> String {
    wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// openraft says much that only its developers can read.
const LOG: &str = "info,openraft=warn";
const API_PORT: u16 = 7300;
const RAFT_PORT: u16 = 7301;

#[cfg(test)]
mod tests;
