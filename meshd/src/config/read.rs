//! From settings as given to a [`Config`]: typed values, and all that is wrong at once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesh_core::name::ServerName;

use super::{Config, ConfigError, KEYS, KekSource, Limits, Settings, Wrong};
use crate::raft::Timing;

pub(super) fn config(settings: &Settings, host: &str) -> Result<Config, ConfigError> {
    let mut reader = Reader { settings, wrong: Vec::new() };
    let config = reader.config(host);
    match config {
        Some(config) if reader.wrong.is_empty() => Ok(config),
        Some(_) | None => Err(ConfigError(reader.wrong)),
    }
}

/// Reads typed values out of settings and collects what is wrong.
struct Reader<'a> {
    settings: &'a Settings,
    wrong: Vec<Wrong>,
}

impl Reader<'_> {
    /// `None` if something without a default is wrong.
    fn config(&mut self, host: &str) -> Option<Config> {
        let name = self.name(host);
        let data_dir = self.path("data_dir").unwrap_or_else(|| "/var/lib/meshd".into());
        let mut config = Config::new(name?, data_dir, host);
        let bind = "an address and port such as";
        config.api = self.value("api", bind, |t| t.parse().ok()).unwrap_or(config.api);
        config.raft = self.value("raft", bind, |t| t.parse().ok()).unwrap_or(config.raft);
        config.api_address = self.advertised("api_address", config.api, host);
        config.raft_address = self.advertised("raft_address", config.raft, host);
        config.kek = match self.settings.text("kek_file") {
            Some("credential") => KekSource::Credential,
            Some(_) | None => self.path("kek_file").map_or(config.kek, KekSource::File),
        };
        let lan_or_wan = "\"lan\" or \"wan\" such as";
        config.profile = self.value("profile", lan_or_wan, profile).unwrap_or_default();
        let entries = "a number from 100 to 10000000 such as";
        config.checkpoint_every = self
            .value("checkpoint_every", entries, |t| within(t, 100, 10_000_000))
            .map_or(config.checkpoint_every, |n| n as u64);
        self.lease(&mut config);
        config.limits = self.limits();
        if let Some(log) = self.settings.text("log") {
            config.log = log.to_owned();
        }
        let format = "\"text\" or \"json\" such as";
        config.log_format =
            self.value("log_format", format, |t| t.parse().ok()).unwrap_or_default();
        Some(config)
    }

    fn name(&mut self, host: &str) -> Option<ServerName> {
        if let Some(text) = self.settings.text("name") {
            return match text.parse() {
                Ok(name) => Some(name),
                Err(why) => self.refuse("name", format!("{why}")),
            };
        }
        // A host named `ctl-1.corp.example` is the server `ctl-1`.
        let name = host.split('.').next().unwrap_or("").to_lowercase().parse().ok();
        if name.is_none() {
            let text = format!("name is not set, and the host's name {host:?} is no server name");
            self.wrong.push(Wrong::Missing(text));
        }
        name
    }

    /// Where others reach `listener`: as set, or its own address if that is one, or the host's name.
    fn advertised(&mut self, key: &'static str, listener: SocketAddr, host: &str) -> String {
        let expected = "host:port as others reach it, such as";
        let text = |text: &str| is_host_port(text).then(|| text.to_owned());
        if let Some(set) = self.value(key, expected, text) {
            return set;
        }
        match listener.ip().is_unspecified() {
            true => format!("{host}:{}", listener.port()),
            false => listener.to_string(),
        }
    }

    fn lease(&mut self, config: &mut Config) {
        let time = "a time from \"100ms\" to \"300s\" such as";
        config.heartbeat = self.value("heartbeat", time, duration).unwrap_or(config.heartbeat);
        config.lease = self.value("lease", time, duration).unwrap_or(config.lease);
        if config.lease < config.heartbeat * 2 {
            let (lease, heartbeat) = (config.lease, config.heartbeat);
            let text =
                format!("lease is {lease:?}, expected at least twice the heartbeat {heartbeat:?}");
            self.refuse::<()>("lease", text);
        }
    }

    fn limits(&mut self) -> Limits {
        let usual = Limits::default();
        let many = "a number from 16 to 1000000 such as";
        let connections = self.value("limits.connections", many, |t| within(t, 16, 1_000_000));
        let some = "a number from 1 to 1000000 such as";
        let watches = self.value("limits.watches", some, |t| within(t, 1, 1_000_000));
        Limits {
            connections: connections.unwrap_or(usual.connections),
            watches: watches.unwrap_or(usual.watches),
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

fn profile(text: &str) -> Option<Timing> {
    match text {
        "lan" => Some(Timing::Lan),
        "wan" => Some(Timing::Wan),
        _ => None,
    }
}

fn within(text: &str, least: usize, most: usize) -> Option<usize> {
    text.parse().ok().filter(|number| (least..=most).contains(number))
}

fn duration(text: &str) -> Option<Duration> {
    let number = |digits: &str| digits.parse::<u64>().ok();
    let found = match text.strip_suffix("ms") {
        Some(digits) => Duration::from_millis(number(digits)?),
        None => Duration::from_secs(number(text.strip_suffix('s')?)?),
    };
    (Duration::from_millis(100)..=Duration::from_secs(300)).contains(&found).then_some(found)
}

/// Whether `text` is `host:port` with a port that can be dialled.
pub(crate) fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-[]:".contains(&b);
    !host.is_empty()
        && text.len() <= 300
        && host.bytes().all(plain)
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}
