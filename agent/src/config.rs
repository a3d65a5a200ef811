//! The agent's settings: `/etc/mesh/agent.toml`, overruled by flags and `MESH_AGENT_*`.
//!
//! Every setting is one line of [`KEYS`]; the file reader and the command line are both built
//! from it, so that none can be settable in one place and not in the other.

mod file;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use mesh_core::hostfile::Diagnostic;
use mesh_core::name::NodeName;

pub use file::Settings;
pub use mesh_net::telemetry::LogFormat;

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
        let mut reader = Reader { settings, wrong: Vec::new() };
        let config = reader.config(host);
        match config {
            Some(config) if reader.wrong.is_empty() => Ok(config),
            Some(_) | None => Err(ConfigError(reader.wrong)),
        }
    }
}

/// What one setting holds in the file; flags are always text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    List,
    Number,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// As in the file; `limits.drain` stands in the table `[limits]`.
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
pub(crate) const KEYS: [Key; 18] = [
    key("node", Kind::Text, "\"web-7\"", "Name of this node [default: the host's name]"),
    key("servers", Kind::List, "[\"ctl-1:7300\"]", "Control servers, as host:port"),
    key("token_file", Kind::Text, "\"/etc/mesh/join.token\"", "File with the join token"),
    key("data_dir", Kind::Text, "\"/var/lib/mesh-agent\"", "Where keys and the cache are kept"),
    key("services_dir", Kind::Text, "\"/etc/mesh/services.d\"", "Where services are declared"),
    key("address", Kind::Text, "\"10.0.0.7\"", "Where other agents dial this one"),
    key("inbound", Kind::Text, "\"0.0.0.0:7443\"", "Listener for calls from other agents"),
    key("http", Kind::Text, "\"127.0.0.1:7380\"", "Loopback listener by Host; \"\" is off"),
    key("admin", Kind::Text, "\"127.0.0.1:7302\"", "Loopback listener for status; \"\" is off"),
    key("socket", Kind::Text, "\"/run/mesh/agent.sock\"", "Socket for the CLI; \"\" is off"),
    key("local_callers", Kind::Text, "\"deny\"", "Callers that are no service: deny or node"),
    key("zone", Kind::Text, "\"mesh\"", "DNS zone of the mesh's names"),
    key("cgroup_root", Kind::Text, "\"/sys/fs/cgroup\"", "Where cgroup v2 is mounted"),
    key("access_log", Kind::Text, "\"failed\"", "Which calls are logged: off, failed or all"),
    key("log", Kind::Text, "\"info\"", "What is logged"),
    key("log_format", Kind::Text, "\"text\"", "How it is logged: text or json"),
    key("limits.connections", Kind::Number, "8192", "Connections open at once"),
    key("limits.drain", Kind::Text, "\"5s\"", "Longest drain when the agent stops"),
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

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InFile(diagnostic) => write!(f, "{diagnostic}"),
            Self::InFlag { key, message } => {
                write!(f, "--{} or {}: {message}", flag_name(key), env_name(key))
            }
            Self::Missing(message) => f.write_str(message),
        }
    }
}

/// The flag of a setting: `token_file` is `--token-file`.
pub(crate) fn flag_name(key: &str) -> String {
    key.replace(['_', '.'], "-")
}

/// The environment variable of a setting: `token_file` is `MESH_AGENT_TOKEN_FILE`.
pub(crate) fn env_name(key: &str) -> String {
    format!("MESH_AGENT_{}", key.replace('.', "_").to_uppercase())
}

fn lines(wrong: &[Wrong]) -> String {
    wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads typed values out of settings and collects what is wrong.
struct Reader<'a> {
    settings: &'a Settings,
    wrong: Vec<Wrong>,
}

impl Reader<'_> {
    /// `None` if something without a default is wrong.
    fn config(&mut self, host: &str) -> Option<Config> {
        let node = self.node(host);
        let servers = self.servers();
        let data_dir = self.path("data_dir").unwrap_or_else(|| "/var/lib/mesh-agent".into());
        let mut config = Config::new(node?, servers?, data_dir);
        config.token_file = self.path("token_file");
        config.services_dir = self.path("services_dir").unwrap_or(config.services_dir);
        config.address = self.value("address", "an address of this host such as", advertised);
        let bind = "an address and port such as";
        config.inbound = self.value("inbound", bind, parsed).unwrap_or(config.inbound);
        let bind = "a loopback address and port, or \"\" for none, such as";
        config.http = self.value("http", bind, loopback).unwrap_or(config.http);
        config.admin = self.value("admin", bind, loopback).unwrap_or(config.admin);
        config.socket = match self.settings.text("socket") {
            Some("") => None,
            Some(_) => self.path("socket"),
            None => config.socket,
        };
        let callers = |text: &str| match text {
            "deny" => Some(LocalCallers::Deny),
            "node" => Some(LocalCallers::Node),
            _ => None,
        };
        config.local_callers = self
            .value("local_callers", "\"deny\" or \"node\" such as", callers)
            .unwrap_or_default();
        config.zone = self.value("zone", "a DNS name such as", zone).unwrap_or(config.zone);
        config.cgroup_root = self.path("cgroup_root");
        config.limits = self.limits();
        let calls = |text: &str| match text {
            "off" => Some(AccessLog::Off),
            "failed" => Some(AccessLog::Failed),
            "all" => Some(AccessLog::All),
            _ => None,
        };
        let which = "\"off\", \"failed\" or \"all\" such as";
        config.access_log = self.value("access_log", which, calls).unwrap_or_default();
        config.log = self.settings.text("log").unwrap_or("info").to_owned();
        config.log_format =
            self.value("log_format", "\"text\" or \"json\" such as", parsed).unwrap_or_default();
        Some(config)
    }

    fn node(&mut self, host: &str) -> Option<NodeName> {
        if let Some(text) = self.settings.text("node") {
            return match text.parse() {
                Ok(node) => Some(node),
                Err(why) => self.refuse("node", format!("{why}")),
            };
        }
        // A host named `web-7.corp.example` is the node `web-7`.
        let label = host.split('.').next().unwrap_or("").to_lowercase();
        let node = label.parse().ok();
        if node.is_none() {
            let message = format!("node is not set, and the host's name {host:?} is no node name");
            self.wrong.push(Wrong::Missing(message));
        }
        node
    }

    fn servers(&mut self) -> Option<Vec<String>> {
        let Some(text) = self.settings.text("servers") else {
            let message = "servers is not set, expected such as servers = [\"ctl-1:7300\"]";
            self.wrong.push(Wrong::Missing(message.to_owned()));
            return None;
        };
        let all: Vec<String> = text.split(',').map(|s| s.trim().to_owned()).collect();
        match all.iter().find(|server| !is_host_port(server)) {
            None => Some(all),
            Some(bad) => {
                let message =
                    format!("server is {bad:?}, expected host:port such as \"ctl-1:7300\"");
                self.refuse("servers", message)
            }
        }
    }

    fn limits(&mut self) -> Limits {
        let usual = Limits::default();
        let many = "a number from 16 to 1000000 such as";
        let connections = self.value("limits.connections", many, |t| within(t, 16, 1_000_000));
        let time = "a time from \"0s\" to \"300s\" such as";
        let drain = self.value("limits.drain", time, seconds);
        Limits {
            connections: connections.unwrap_or(usual.connections),
            drain: drain.unwrap_or(usual.drain),
        }
    }

    fn path(&mut self, name: &'static str) -> Option<PathBuf> {
        let absolute = |text: &str| text.starts_with('/').then(|| PathBuf::from(text));
        self.value(name, "an absolute path such as", absolute)
    }

    fn value<T>(
        &mut self, name: &'static str, expected: &str, read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.settings.text(name)?;
        if let Some(value) = read(text) {
            return Some(value);
        }
        let example = KEYS.iter().find(|key| key.name == name).map_or("", |key| key.example);
        self.refuse(name, format!("{name} is {text:?}, expected {expected} {example}"))
    }

    fn refuse<T>(&mut self, name: &'static str, message: String) -> Option<T> {
        self.wrong.push(self.settings.wrong(name, message));
        None
    }
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
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

fn within(text: &str, least: usize, most: usize) -> Option<usize> {
    text.parse().ok().filter(|number| (least..=most).contains(number))
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds = text.strip_suffix('s')?.parse().ok().filter(|seconds| *seconds <= 300)?;
    Some(Duration::from_secs(seconds))
}

fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-[]:".contains(&b);
    !host.is_empty() && host.bytes().all(plain) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
mod tests;
