//! The command line of `mesh-agent`: one flag and one environment variable for each setting.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, Command};

use crate::config::{Config, ConfigError, SETTINGS};

/// Where settings are read from unless `--config` says otherwise.
pub const CONFIG_FILE: &str = "/etc/mesh/agent.toml";

/// Why the command line gives no config.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArgsError {
    /// The command line itself, or a request for help.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The settings file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What the settings say.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// The command, for parsing, help and manual pages.
pub fn command() -> Command {
    let config = Arg::new("config")
        .long("config")
        .env("MESH_AGENT_CONFIG")
        .value_name("FILE")
        .help(format!("Settings file [default: {CONFIG_FILE}]"));
    let command = Command::new("mesh-agent")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The agent of a host: registers its services, holds their identities, proxies them")
        .arg(config);
    SETTINGS.keys.iter().fold(command, |command, key| {
        let arg = Arg::new(key.name)
            .long(key.flag())
            .env(SETTINGS.env(key))
            .value_name(key.flag().to_uppercase())
            .help(key.help);
        command.arg(arg)
    })
}

/// Reads the command line, the environment and the settings file; `host` is the host's name.
///
/// The default file may be missing, one that was asked for may not.
///
/// # Errors
/// [`ArgsError`]; for [`ArgsError::Usage`] the caller prints and exits as clap says.
pub fn read(args: impl IntoIterator<Item = OsString>, host: &str) -> Result<Config, ArgsError> {
    let matches = command().try_get_matches_from(args)?;
    let asked = matches.get_one::<String>("config");
    let path = PathBuf::from(asked.map_or(CONFIG_FILE, String::as_str));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound && asked.is_none() => String::new(),
        Err(source) => return Err(ArgsError::File { path, source }),
    };
    let mut settings = Config::settings(&path.display().to_string(), &text)?;
    for key in SETTINGS.keys {
        if let Some(text) = matches.get_one::<String>(key.name) {
            settings.set(key.name, text.clone());
        }
    }
    Ok(Config::resolve(&settings, host)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use super::*;

    fn args(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_command_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn flags_overrule_the_file_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "servers = [\"a:1\"]\nnode = \"one\"\n").unwrap();
        let words = [
            "mesh-agent",
            "--config",
            path.to_str().unwrap(),
            "--node",
            "two",
            "--limits-drain",
            "1s",
        ];
        let config = read(args(&words), "host").unwrap();
        assert_eq!(config.node.as_str(), "two");
        assert_eq!(config.servers, ["a:1"]);
        assert_eq!(config.limits.drain.as_secs(), 1);
    }

    #[test]
    fn a_file_asked_for_must_exist() {
        let found = read(args(&["mesh-agent", "--config", "/nowhere/agent.toml"]), "host");
        assert!(matches!(found, Err(ArgsError::File { .. })), "{found:?}");
    }
}
