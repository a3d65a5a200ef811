//! From settings as given to a [`Config`]: typed values, and all that is wrong at once.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_net::settings::{self, Settings, is_host_port};

use super::{Config, ConfigError, KekSource, Limits};
use crate::raft::Timing;

pub(super) fn config(given: &Settings, host: &str) -> Result<Config, ConfigError> {
    let mut reader = Reader(settings::Reader::new(given));
    let config = reader.config(host);
    reader.0.finish(config)
}

struct Reader<'a>(settings::Reader<'a>);

impl Reader<'_> {
    /// `None` if something without a default is wrong.
    fn config(&mut self, host: &str) -> Option<Config> {
        let name = self.0.name_or_host("name", host, "server name");
        let data_dir = self.0.path("data_dir").unwrap_or_else(|| "/var/lib/meshd".into());
        let mut config = Config::new(name?, data_dir, host);
        let bind = "an address and port such as";
        config.api = self.0.parsed("api", bind).unwrap_or(config.api);
        config.raft = self.0.parsed("raft", bind).unwrap_or(config.raft);
        config.api_address = self.advertised("api_address", config.api, host);
        config.raft_address = self.advertised("raft_address", config.raft, host);
        config.kek = match self.0.text("kek_file") {
            Some("credential") => KekSource::Credential,
            Some(_) | None => self.0.path("kek_file").map_or(config.kek, KekSource::File),
        };
        let lan_or_wan = "\"lan\" or \"wan\" such as";
        config.profile = self.0.value("profile", lan_or_wan, profile).unwrap_or_default();
        let entries = "a number from 100 to 10000000 such as";
        config.checkpoint_every = self
            .0
            .value("checkpoint_every", entries, |t| within(t, 100, 10_000_000))
            .map_or(config.checkpoint_every, |n| n as u64);
        let bytes = "a number from 1048576 to 1073741824 such as";
        config.checkpoint_bytes = self
            .0
            .value("checkpoint_bytes", bytes, |t| within(t, 1 << 20, 1 << 30))
            .unwrap_or(config.checkpoint_bytes);
        self.lease(&mut config);
        config.limits = self.limits();
        if let Some(log) = self.0.text("log") {
            config.log = log.to_owned();
        }
        let format = "\"text\" or \"json\" such as";
        config.log_format = self.0.parsed("log_format", format).unwrap_or_default();
        Some(config)
    }

    /// Where others reach `listener`: as set, or its own address if that is one, or the host's name.
    fn advertised(&mut self, key: &'static str, listener: SocketAddr, host: &str) -> String {
        let expected = "host:port as others reach it, such as";
        let text = |text: &str| is_host_port(text).then(|| text.to_owned());
        if let Some(set) = self.0.value(key, expected, text) {
            return set;
        }
        match listener.ip().is_unspecified() {
            true => format!("{host}:{}", listener.port()),
            false => listener.to_string(),
        }
    }

    fn lease(&mut self, config: &mut Config) {
        let time = "a time from \"100ms\" to \"300s\" such as";
        config.heartbeat = self.0.value("heartbeat", time, duration).unwrap_or(config.heartbeat);
        config.lease = self.0.value("lease", time, duration).unwrap_or(config.lease);
        if config.lease < config.heartbeat * 2 {
            let (lease, heartbeat) = (config.lease, config.heartbeat);
            let text =
                format!("lease is {lease:?}, expected at least twice the heartbeat {heartbeat:?}");
            self.0.refuse::<()>("lease", text);
        }
    }

    fn limits(&mut self) -> Limits {
        let usual = Limits::default();
        let many = "a number from 16 to 1000000 such as";
        let connections = self.0.value("limits.connections", many, |t| within(t, 16, 1_000_000));
        let some = "a number from 1 to 1000000 such as";
        let watches = self.0.value("limits.watches", some, |t| within(t, 1, 1_000_000));
        Limits {
            connections: connections.unwrap_or(usual.connections),
            watches: watches.unwrap_or(usual.watches),
        }
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
    settings::within(text, least..=most)
}

fn duration(text: &str) -> Option<Duration> {
    settings::duration(text, Duration::from_millis(100)..=Duration::from_secs(300))
}
