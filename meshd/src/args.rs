//! The command line of `meshd`: one flag and one environment variable for each setting.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command};
use mesh_core::policy::AccessMode;

use crate::config::{Config, ConfigError, SETTINGS};
use crate::init::InitOptions;
use crate::join::JoinOptions;

/// Where settings are read from unless `--config` says otherwise.
pub const CONFIG_FILE: &str = "/etc/mesh/meshd.toml";

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// Serve.
    Run(Config),
    /// Make a new mesh, of which this is the first server.
    Init(InitOptions),
    /// Become a further server of a mesh.
    Join(JoinOptions),
}

/// Why the command line says nothing to do.
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
    /// A flag of `init` or `join`.
    #[error("--{flag}: {why}")]
    Flag {
        /// Which.
        flag: &'static str,
        /// What was found and what is expected.
        why: String,
    },
}

/// The command, for parsing, help and manual pages.
pub fn command() -> Command {
    let about = "The control server of the mesh: catalog, policy, certificates";
    with_settings(Command::new("meshd"))
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .subcommand(init_command())
        .subcommand(join_command())
}

fn init_command() -> Command {
    with_settings(Command::new("init"))
        .about("Make a new mesh, of which this is the first server")
        .arg(text("trust-domain").help("Namespace of all identities [default: random]"))
        .arg(text("datacenter").default_value("dc1").help("Name of this datacenter"))
        .arg(
            text("access")
                .value_parser(["enforce", "audit"])
                .default_value("enforce")
                .help("What happens to calls that no rule allows"),
        )
        .arg(
            text("token-out")
                .default_value("/etc/mesh/admin.token")
                .help("Where to write the first admin token (0600); ca.pem goes beside it"),
        )
}

fn join_command() -> Command {
    with_settings(Command::new("join"))
        .about("Become a further server of a mesh")
        .arg(text("token-file").required(true).help("File with the join token"))
        .arg(text("server").required(true).help("API of a server of the mesh, as host:port"))
}

fn text(name: &'static str) -> Arg {
    let env = format!("MESHD_{}", name.replace('-', "_").to_uppercase());
    Arg::new(name).long(name).env(env).value_name(name.to_uppercase())
}

fn with_settings(command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .env("MESHD_CONFIG")
        .value_name("FILE")
        .help(format!("Settings file [default: {CONFIG_FILE}]"));
    SETTINGS.keys.iter().fold(command.arg(config), |command, key| {
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
/// # Errors
/// [`ArgsError`]; for [`ArgsError::Usage`] the caller prints and exits as clap says.
pub fn read(args: impl IntoIterator<Item = OsString>, host: &str) -> Result<Action, ArgsError> {
    let matches = command().try_get_matches_from(args)?;
    match matches.subcommand() {
        Some(("init", matches)) => Ok(Action::Init(init_options(matches, host)?)),
        Some(("join", matches)) => {
            let config = settings(matches, host)?;
            let token_file = PathBuf::from(given(matches, "token-file"));
            Ok(Action::Join(JoinOptions { config, token_file, server: given(matches, "server") }))
        }
        Some(_) | None => Ok(Action::Run(settings(&matches, host)?)),
    }
}

fn init_options(matches: &ArgMatches, host: &str) -> Result<InitOptions, ArgsError> {
    let config = settings(matches, host)?;
    let flag = |flag, why: String| ArgsError::Flag { flag, why };
    let trust_domain = matches.get_one::<String>("trust-domain");
    let trust_domain = trust_domain.map(|text| text.parse()).transpose();
    let access = match given(matches, "access").as_str() {
        "audit" => AccessMode::Audit,
        _ => AccessMode::Enforce,
    };
    let datacenter = given(matches, "datacenter").parse();
    Ok(InitOptions {
        config,
        trust_domain: trust_domain.map_err(|e| flag("trust-domain", format!("{e}")))?,
        datacenter: datacenter.map_err(|e| flag("datacenter", format!("{e}")))?,
        access,
        token_out: PathBuf::from(given(matches, "token-out")),
    })
}

fn given(matches: &ArgMatches, name: &str) -> String {
    matches.get_one::<String>(name).cloned().unwrap_or_default()
}

/// The default settings file may be missing, one that was asked for may not.
fn settings(matches: &ArgMatches, host: &str) -> Result<Config, ArgsError> {
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
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

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
        let path = dir.path().join("meshd.toml");
        std::fs::write(&path, "name = \"one\"\ndata_dir = \"/a\"\n").unwrap();
        let words = ["meshd", "--config", path.to_str().unwrap(), "--name", "two"];
        let Action::Run(config) = read(args(&words), "host").unwrap() else { panic!("no run") };
        assert_eq!((config.name.as_str(), config.data_dir.to_str()), ("two", Some("/a")));
        let words = ["meshd", "init", "--config", path.to_str().unwrap(), "--access", "audit"];
        let Action::Init(options) = read(args(&words), "host").unwrap() else { panic!("no init") };
        assert_eq!(options.access, AccessMode::Audit);
        assert_eq!(options.config.name.as_str(), "one");
    }

    #[test]
    fn a_file_asked_for_must_exist() {
        let found = read(args(&["meshd", "--config", "/nowhere/meshd.toml"]), "host");
        assert!(matches!(found, Err(ArgsError::File { .. })), "{found:?}");
    }
}
