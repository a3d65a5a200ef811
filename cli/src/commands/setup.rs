//! `mesh init` and `mesh server join`: make this host a control server.

use std::io::Write;
use std::path::{Path, PathBuf};

use mesh_core::policy::AccessMode;
use mesh_net::files::write_atomic;
use mesh_net::telemetry::Chain;
use mesh_net::token::TokenKind;
use meshd::config::{Config, KekSource};
use meshd::init::InitOptions;
use meshd::join::JoinOptions;

use crate::args::{Access, InitArgs, ServerJoinArgs, ServerSettings};
use crate::context::{Context, host_name};
use crate::error::CliError;

/// Makes a new mesh, of which this host is the first server.
pub(super) async fn init(context: &Context, args: InitArgs) -> Result<(), CliError> {
    let planned = Planned::new(&args.server)?;
    let api_address = planned.config.api_address.clone();
    let options = InitOptions {
        config: planned.config.clone(),
        trust_domain: args.trust_domain,
        datacenter: args.datacenter,
        access: match args.access {
            Access::Enforce => AccessMode::Enforce,
            Access::Audit => AccessMode::Audit,
        },
        token_out: args.token_out.clone(),
    };
    make_parents(&planned.config, &[&args.token_out, &args.server.config])?;
    let made = meshd::init::init(options).await.map_err(|why| refused(&why))?;
    planned.write()?;
    let settings = write_cli_settings(&args.token_out, &api_address)?;
    let value = serde_json::json!({
        "server": planned.config.name,
        "trust_domain": made.trust_domain,
        "ca_sha256": made.ca_sha256,
        "ca_file": made.ca_file,
        "config": args.server.config,
        "token_file": made.token_file,
        "settings": settings,
    });
    context.output.show(&value, || {
        format!(
            "{} is the first server of {}\nadmin token: {}\nCA: {}\n\
             next: systemctl enable --now meshd\n\
             then: mesh status{}",
            planned.config.name,
            made.trust_domain,
            made.token_file.display(),
            made.ca_file.display(),
            settings_flag(settings.as_deref()),
        )
    })
}

/// Takes this host into a cluster that runs.
pub(super) async fn join(context: &Context, args: ServerJoinArgs) -> Result<(), CliError> {
    let token = context.join_token(TokenKind::JoinServer)?;
    let planned = Planned::new(&args.server)?;
    let token_file = args.server.config.with_file_name("server-join.token");
    make_parents(&planned.config, &[&token_file])?;
    let text = token.to_text();
    write_atomic(&token_file, text.as_bytes()).map_err(|why| refused(&why))?;
    let config = planned.config.clone();
    let options = JoinOptions { config, token_file: token_file.clone(), server: args.member };
    let joined = meshd::join::join(options).await.map_err(|why| refused(&why));
    // Used or not, it is of no more use here; whoever has the token can try again with it.
    let _ = std::fs::remove_file(&token_file);
    let joined = joined?;
    planned.write()?;
    let name = &planned.config.name;
    let value = serde_json::json!({
        "server": name,
        "id": joined.id,
        "trust_domain": joined.trust_domain,
        "servers": joined.servers,
        "config": args.server.config,
    });
    context.output.show(&value, || {
        let others = joined.servers.iter().filter(|other| other.as_str() != name.as_str());
        let others = others.map(String::as_str).collect::<Vec<_>>().join(", ");
        format!(
            "{name} is a member of {}, beside {others}\nnext: systemctl enable --now meshd",
            joined.trust_domain
        )
    })
}

/// The settings of the server, and the file to write if there was none.
#[derive(Debug)]
struct Planned {
    config: Config,
    missing: Option<(PathBuf, String)>,
}

impl Planned {
    fn new(server: &ServerSettings) -> Result<Self, CliError> {
        let path = &server.config;
        let (text, there) = match std::fs::read_to_string(path) {
            Ok(text) => (text, true),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => (String::new(), false),
            Err(why) => return Err(CliError::file("read", path, why)),
        };
        let wrong = |why: &dyn std::fmt::Display| CliError::Usage(why.to_string());
        let mut settings =
            Config::settings(&path.display().to_string(), &text).map_err(|why| wrong(&why))?;
        let mut lines =
            vec!["# Written by `mesh`; see `meshd --help` for every setting.".to_owned()];
        for (key, value) in given(server) {
            if there && value.is_some() {
                return Err(CliError::Usage(format!(
                    "{} exists, so --{} must stand in it, not among the flags",
                    path.display(),
                    key.replace('_', "-")
                )));
            }
            if let Some(value) = value {
                lines.push(format!("{key} = {}", toml::Value::from(value.as_str())));
                settings.set(key, value);
            }
        }
        // What is not set is made of the host's name, which may be no name.
        let host = host_name::<mesh_core::name::ServerName>("--name");
        let host = match (&server.name, host) {
            (_, Ok(host)) => host.to_string(),
            (Some(name), Err(_)) => name.to_string(),
            (None, Err(_)) => String::new(),
        };
        let config = Config::resolve(&settings, &host).map_err(|why| wrong(&why))?;
        let missing = (!there).then(|| (path.clone(), lines.join("\n") + "\n"));
        Ok(Self { config, missing })
    }

    /// Writes the settings file if there was none, so that meshd goes by the same.
    fn write(&self) -> Result<(), CliError> {
        match &self.missing {
            Some((path, text)) => write_public(path, text),
            None => Ok(()),
        }
    }
}

fn given(server: &ServerSettings) -> [(&'static str, Option<String>); 7] {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    [
        ("name", server.name.as_ref().map(ToString::to_string)),
        ("api", server.api.map(|address| address.to_string())),
        ("api_address", server.api_address.clone()),
        ("raft", server.raft.map(|address| address.to_string())),
        ("raft_address", server.raft_address.clone()),
        ("data_dir", path(&server.data_dir)),
        ("kek_file", path(&server.kek_file)),
    ]
}

/// Writes `cli.toml` beside the admin token, unless there is one; says where it is.
fn write_cli_settings(token: &Path, api_address: &str) -> Result<Option<PathBuf>, CliError> {
    let path = token.with_file_name("cli.toml");
    if path.exists() {
        return Ok(None);
    }
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let text = format!(
        "# Written by `mesh init`: what `mesh` goes by on this host.\naddr = [{}]\ntoken_file = {}\n",
        quoted(api_address),
        quoted(&token.display().to_string()),
    );
    write_public(&path, &text)?;
    Ok(Some(path))
}

fn settings_flag(settings: Option<&Path>) -> String {
    match settings {
        Some(path) if path != Path::new(crate::context::SETTINGS_FILE) => {
            format!(" --settings {}", path.display())
        }
        Some(_) | None => String::new(),
    }
}

/// Writes a file that all may read: it holds no secret.
fn write_public(path: &Path, text: &str) -> Result<(), CliError> {
    make_parent(path)?;
    let wrong = |why| CliError::file("write", path, why);
    let mut file = std::fs::File::create(path).map_err(wrong)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)
}

/// Makes the directories that files go to, before anything is done that cannot be undone.
fn make_parents(config: &Config, paths: &[&Path]) -> Result<(), CliError> {
    if let KekSource::File(path) = &config.kek {
        make_parent(path)?;
    }
    paths.iter().try_for_each(|path| make_parent(path))
}

fn make_parent(path: &Path) -> Result<(), CliError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    std::fs::create_dir_all(parent).map_err(|why| CliError::file("make", parent, why))
}

fn refused(why: &(dyn std::error::Error + 'static)) -> CliError {
    CliError::Refused(Chain(why).to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn planned(words: &[&str]) -> Result<Planned, CliError> {
        let cli = Cli::try_parse_from(["mesh", "init"].iter().chain(words)).unwrap();
        let Command::Init(args) = cli.command else { panic!() };
        Planned::new(&args.server)
    }

    #[test]
    fn flags_become_the_settings_file_that_meshd_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meshd.toml");
        let at = path.to_str().unwrap();
        let words = [
            "--config",
            at,
            "--name",
            "ctl-1",
            "--api-address",
            "ctl-1:7300",
            "--raft",
            "127.0.0.1:9",
        ];
        let first = planned(&words).unwrap();
        assert_eq!(first.config.api_address, "ctl-1:7300");
        first.write().unwrap();
        let again = planned(&["--config", at]).unwrap();
        assert_eq!(again.config.name, first.config.name);
        assert_eq!(again.config.raft, first.config.raft);
        let both = planned(&words).unwrap_err().to_string();
        assert!(both.contains("exists, so --name must stand in it"), "{both}");
    }
}
