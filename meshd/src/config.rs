//! The server's settings: `/etc/mesh/meshd.toml`, overruled by flags and `MESHD_*`.
//!
//! Every setting is one line of [`SETTINGS`].

mod read;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesh_core::name::ServerName;
use mesh_net::settings::{Key, Kind, Table};
use mesh_net::telemetry::LogFormat;

use crate::raft::Timing;

pub use mesh_net::settings::{Settings, SettingsError as ConfigError, Wrong};

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
    /// Bytes of log entries between two checkpoints (1 MiB to 1 GiB).
    pub checkpoint_bytes: usize,
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
            checkpoint_bytes: 32 << 20,
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

    /// Reads `text`, the settings file `name`.
    ///
    /// # Errors
    /// As [`Settings::parse`].
    pub fn settings(name: &str, text: &str) -> Result<Settings, ConfigError> {
        Settings::parse(&SETTINGS, name, text)
    }
}

/// Every setting.
pub(crate) static SETTINGS: Table = Table { env: "MESHD", keys: &KEYS };

const KEYS: [Key; 16] = [
    Key::new("name", Kind::Text, "\"ctl-1\"", "Name of this server [default: the host's name]"),
    Key::new("data_dir", Kind::Text, "\"/var/lib/meshd\"", "Where log, state and keys are kept"),
    Key::new("api", Kind::Text, "\"0.0.0.0:7300\"", "Listener of the API"),
    Key::new(
        "api_address",
        Kind::Text,
        "\"ctl-1:7300\"",
        "Where agents and operators reach the API",
    ),
    Key::new("raft", Kind::Text, "\"0.0.0.0:7301\"", "Listener for the other servers"),
    Key::new("raft_address", Kind::Text, "\"ctl-1:7301\"", "Where the other servers reach it"),
    Key::new(
        "kek_file",
        Kind::Text,
        "\"/etc/mesh/kek\"",
        "File of the key-encryption key, or \"credential\" for systemd's",
    ),
    Key::new("profile", Kind::Text, "\"lan\"", "How far servers are from each other: lan or wan"),
    Key::new("checkpoint_every", Kind::Number, "10000", "Log entries between two checkpoints"),
    Key::new(
        "checkpoint_bytes",
        Kind::Number,
        "33554432",
        "Bytes of log entries between two checkpoints",
    ),
    Key::new("heartbeat", Kind::Text, "\"3s\"", "How often agents heartbeat"),
    Key::new("lease", Kind::Text, "\"10s\"", "After how long without a heartbeat a node is gone"),
    Key::new("log", Kind::Text, "\"info\"", "What is logged"),
    Key::new("log_format", Kind::Text, "\"text\"", "How it is logged: text or json"),
    Key::new("limits.connections", Kind::Number, "16384", "API connections open at once"),
    Key::new("limits.watches", Kind::Number, "4096", "Blocking queries waiting at once"),
];

/// openraft says much that only its developers can read.
const LOG: &str = "info,openraft=warn";
const API_PORT: u16 = 7300;
const RAFT_PORT: u16 = 7301;

#[cfg(test)]
mod tests;
