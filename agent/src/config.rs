//! The agent's settings: `/etc/mesh/agent.toml`, overruled by flags and `MESH_AGENT_*`.
//!
//! Every setting is one line of [`SETTINGS`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use mesh_core::name::NodeName;

use mesh_net::settings::{self, Key, Kind, Table};

pub use mesh_net::settings::{Settings, SettingsError as ConfigError, Wrong};
pub use mesh_net::telemetry::LogFormat;

use crate::limits::proxy::WORKERS_MAX;
pub use crate::proxy::{AccessLog, LocalCallers};

/// What the agent goes by, fixed for the life of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node's name.
    pub node: NodeName,
    /// API addresses of control servers, as `host:port`. Never empty.
    pub servers: Vec<String>,
    /// The join token, read once, at the first start.
    pub token_file: Option<PathBuf>,
    /// Where keys, certificates and the cache are kept (0700).
    pub data_dir: PathBuf,
    /// Where the host's services are declared.
    pub services_dir: PathBuf,
    /// Where other agents dial this one; `None`: the address of this host towards the servers.
    pub address: Option<IpAddr>,
    /// The listener for calls from other agents (mTLS).
    pub inbound: SocketAddr,
    /// The loopback listener that routes by `Host`.
    pub http: Option<SocketAddr>,
    /// The loopback listener for metrics and status.
    pub admin: Option<SocketAddr>,
    /// The socket of the command line.
    pub socket: Option<PathBuf>,
    /// What a local caller that is no service may do.
    pub local_callers: LocalCallers,
    /// The DNS zone whose names local callers may put into `Host`, such as `orders.mesh`.
    pub zone: String,
    /// Where cgroup v2 is mounted; `None` looks for it.
    pub cgroup_root: Option<PathBuf>,
    /// Threads that carry calls (1 to 64).
    pub workers: usize,
    /// Bounds.
    pub limits: Limits,
    /// Which calls are logged.
    pub access_log: AccessLog,
    /// What is logged, such as `info` or `info,mesh_agent=debug`.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
}

/// Bounds of one agent, across its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once, in and out together (16 to 1,000,000).
    pub connections: usize,
    /// Longest drain when the agent stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 8_192, drain: Duration::from_secs(5) }
    }
}

impl Config {
    /// The settings of an agent with these three and defaults for the rest.
    pub fn new(node: NodeName, servers: Vec<String>, data_dir: PathBuf) -> Self {
        Self {
            node,
            servers,
            token_file: None,
            data_dir,
            services_dir: PathBuf::from("/etc/mesh/services.d"),
            address: None,
            inbound: SocketAddr::from(([0, 0, 0, 0], 7443)),
            http: Some(SocketAddr::from(([127, 0, 0, 1], 7380))),
            admin: Some(SocketAddr::from(([127, 0, 0, 1], 7302))),
            socket: Some(PathBuf::from("/run/mesh/agent.sock")),
            local_callers: LocalCallers::default(),
            zone: "mesh".to_owned(),
            cgroup_root: None,
            workers: available_parallelism().map_or(1, usize::from).min(WORKERS_MAX),
            limits: Limits::default(),
            access_log: AccessLog::default(),
            log: "info".to_owned(),
            log_format: LogFormat::default(),
        }
    }

    /// The config that `settings` give; `host` is the host's name, taken as `node` if it is one.
    ///
    /// # Errors
    /// All that is wrong, or missing and without a default.
    pub fn resolve(settings: &Settings, host: &str) -> Result<Self, ConfigError> {
        let mut reader = Reader(settings::Reader::new(settings));
        let config = reader.config(host);
        reader.0.finish(config)
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
pub(crate) static SETTINGS: Table = Table { env: "MESH_AGENT", keys: &KEYS };

const KEYS: [Key; 19] = [
    Key::new("node", Kind::Text, "\"web-7\"", "Name of this node [default: the host's name]"),
    Key::new("servers", Kind::List, "[\"ctl-1:7300\"]", "Control servers, as host:port"),
    Key::new("token_file", Kind::Text, "\"/etc/mesh/join.token\"", "File with the join token"),
    Key::new(
        "data_dir",
        Kind::Text,
        "\"/var/lib/mesh-agent\"",
        "Where keys and the cache are kept",
    ),
    Key::new("services_dir", Kind::Text, "\"/etc/mesh/services.d\"", "Where services are declared"),
    Key::new("address", Kind::Text, "\"10.0.0.7\"", "Where other agents dial this one"),
    Key::new("inbound", Kind::Text, "\"0.0.0.0:7443\"", "Listener for calls from other agents"),
    Key::new("http", Kind::Text, "\"127.0.0.1:7380\"", "Loopback listener by Host; \"\" is off"),
    Key::new(
        "admin",
        Kind::Text,
        "\"127.0.0.1:7302\"",
        "Loopback listener for status; \"\" is off",
    ),
    Key::new("socket", Kind::Text, "\"/run/mesh/agent.sock\"", "Socket for the CLI; \"\" is off"),
    Key::new("local_callers", Kind::Text, "\"deny\"", "Callers that are no service: deny or node"),
    Key::new("zone", Kind::Text, "\"mesh\"", "DNS zone of the mesh's names"),
    Key::new("cgroup_root", Kind::Text, "\"/sys/fs/cgroup\"", "Where cgroup v2 is mounted"),
    Key::new("workers", Kind::Number, "2", "Threads that carry calls [default: one per core]"),
    Key::new("access_log", Kind::Text, "\"failed\"", "Which calls are logged: off, failed or all"),
    Key::new("log", Kind::Text, "\"info\"", "What is logged"),
    Key::new("log_format", Kind::Text, "\"text\"", "How it is logged: text or json"),
    Key::new("limits.connections", Kind::Number, "8192", "Connections open at once"),
    Key::new("limits.drain", Kind::Text, "\"5s\"", "Longest drain when the agent stops"),
];

struct Reader<'a>(settings::Reader<'a>);

impl Reader<'_> {
    /// `None` if something without a default is wrong.
    fn config(&mut self, host: &str) -> Option<Config> {
        let node = self.0.name_or_host("node", host, "node name");
        let servers = self.servers();
        let data_dir = self.0.path("data_dir").unwrap_or_else(|| "/var/lib/mesh-agent".into());
        let mut config = Config::new(node?, servers?, data_dir);
        config.token_file = self.0.path("token_file");
        config.services_dir = self.0.path("services_dir").unwrap_or(config.services_dir);
        config.address = self.0.value("address", "an address of this host such as", advertised);
        let bind = "an address and port such as";
        config.inbound = self.0.parsed("inbound", bind).unwrap_or(config.inbound);
        let bind = "a loopback address and port, or \"\" for none, such as";
        config.http = self.0.value("http", bind, loopback).unwrap_or(config.http);
        config.admin = self.0.value("admin", bind, loopback).unwrap_or(config.admin);
        config.socket = match self.0.text("socket") {
            Some("") => None,
            Some(_) => self.0.path("socket"),
            None => config.socket,
        };
        let callers = |text: &str| match text {
            "deny" => Some(LocalCallers::Deny),
            "node" => Some(LocalCallers::Node),
            _ => None,
        };
        config.local_callers = self
            .0
            .value("local_callers", "\"deny\" or \"node\" such as", callers)
            .unwrap_or_default();
        config.zone = self.0.value("zone", "a DNS name such as", zone).unwrap_or(config.zone);
        config.cgroup_root = self.0.path("cgroup_root");
        let some = "a number from 1 to 64 such as";
        config.workers = self
            .0
            .value("workers", some, |t| settings::within(t, 1..=WORKERS_MAX))
            .unwrap_or(config.workers);
        config.limits = self.limits();
        let calls = |text: &str| match text {
            "off" => Some(AccessLog::Off),
            "failed" => Some(AccessLog::Failed),
            "all" => Some(AccessLog::All),
            _ => None,
        };
        let which = "\"off\", \"failed\" or \"all\" such as";
        config.access_log = self.0.value("access_log", which, calls).unwrap_or_default();
        config.log = self.0.text("log").unwrap_or("info").to_owned();
        config.log_format =
            self.0.parsed("log_format", "\"text\" or \"json\" such as").unwrap_or_default();
        Some(config)
    }

    fn servers(&mut self) -> Option<Vec<String>> {
        let Some(text) = self.0.text("servers") else {
            let message = "servers is not set, expected such as servers = [\"ctl-1:7300\"]";
            self.0.missing(message.to_owned());
            return None;
        };
        let all: Vec<String> = text.split(',').map(|s| s.trim().to_owned()).collect();
        match all.iter().find(|server| !settings::is_host_port(server)) {
            None => Some(all),
            Some(bad) => {
                let message =
                    format!("server is {bad:?}, expected host:port such as \"ctl-1:7300\"");
                self.0.refuse("servers", message)
            }
        }
    }

    fn limits(&mut self) -> Limits {
        let usual = Limits::default();
        let many = "a number from 16 to 1000000 such as";
        let connections =
            self.0.value("limits.connections", many, |t| settings::within(t, 16..=1_000_000));
        let time = "a time from \"0s\" to \"300s\" such as";
        let drain = self.0.value("limits.drain", time, seconds);
        Limits {
            connections: connections.unwrap_or(usual.connections),
            drain: drain.unwrap_or(usual.drain),
        }
    }
}

fn advertised(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast())
}

fn loopback(text: &str) -> Option<Option<SocketAddr>> {
    if text.is_empty() {
        return Some(None);
    }
    let address: SocketAddr = text.parse().ok()?;
    address.ip().is_loopback().then_some(Some(address))
}

fn zone(text: &str) -> Option<String> {
    let label = |label: &str| label.parse::<NodeName>().is_ok();
    (text.len() <= 200 && text.split('.').all(label)).then(|| text.to_owned())
}

fn seconds(text: &str) -> Option<Duration> {
    settings::duration(text, Duration::ZERO..=Duration::from_secs(300))
}

#[cfg(test)]
mod tests;
