//! `mesh join`: sets this host up as a node.

use std::io::Write;
use std::path::Path;

use mesh_core::name::NodeName;
use mesh_net::files::write_atomic;
use mesh_net::telemetry::Chain;
use mesh_net::token::TokenKind;

use crate::args::JoinArgs;
use crate::context::{Context, host_name};
use crate::error::CliError;

/// Writes the agent's settings and its join token; the agent enrols when it starts.
pub(super) fn join(context: &Context, args: JoinArgs) -> Result<(), CliError> {
    let token = context.join_token(TokenKind::JoinNode)?;
    let node: NodeName = match args.node.clone() {
        Some(node) => node,
        None => host_name("--node")?,
    };
    for server in &args.servers {
        check_server(server)?;
    }
    if args.config.exists() && !args.force {
        return Err(CliError::Refused(format!(
            "{} exists already\n  hint: look at it, then replace it by --force",
            args.config.display()
        )));
    }
    let text = token.to_text();
    for path in [&args.token_out, &args.config] {
        make_parent(path)?;
    }
    let failed = |why| CliError::Refused(root_hint(&Chain(&why).to_string()));
    write_atomic(&args.token_out, format!("{}\n", text.as_str()).as_bytes()).map_err(failed)?;
    write_settings(&args.config, &settings(&args, &node))?;
    let value = serde_json::json!({ "node": node, "config": args.config });
    context.output.show(&value, || {
        format!(
            "{} is written: this host is node {node}\nnext: systemctl enable --now mesh-agent",
            args.config.display()
        )
    })
}

fn check_server(server: &str) -> Result<(), CliError> {
    let port = server.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(1..)) => Ok(()),
        Some(_) | None => Err(CliError::Usage(format!(
            "server is {server:?}, expected HOST:PORT such as ctl-1:7300"
        ))),
    }
}

/// The text of the agent's settings file.
fn settings(args: &JoinArgs, node: &NodeName) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let servers: Vec<String> = args.servers.iter().map(|server| quoted(server)).collect();
    let mut lines = vec![
        "# Written by `mesh join`.".to_owned(),
        format!("node = {}", quoted(node.as_str())),
        format!("servers = [{}]", servers.join(", ")),
        format!("token_file = {}", quoted(&args.token_out.display().to_string())),
    ];
    lines.extend(args.address.map(|address| format!("address = {}", quoted(&address.to_string()))));
    lines.join("\n") + "\n"
}

/// Writes a file that all may read: it holds no secret.
fn write_settings(path: &Path, text: &str) -> Result<(), CliError> {
    let wrong = |why| CliError::file("write", path, why);
    let mut file = std::fs::File::create(path).map_err(wrong)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)
}

fn make_parent(path: &Path) -> Result<(), CliError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    std::fs::create_dir_all(parent).map_err(|why| {
        CliError::Refused(root_hint(&format!("cannot make {}: {why}", parent.display())))
    })
}

fn root_hint(text: &str) -> String {
    format!("{text}\n  hint: run this as root, or name other places by --config and --token-out")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;
    use mesh_net::token::JoinToken;

    use super::*;
    use crate::args::{Cli, Command};

    fn run(dir: &Path, kind: TokenKind, more: &[&str]) -> Result<(), CliError> {
        let token = JoinToken { kind, id: "t-1".parse().unwrap(), secret: [1; 32], ca: [2; 32] };
        let text = token.to_text();
        let (config, out) = (dir.join("etc/agent.toml"), dir.join("etc/join.token"));
        let words = [
            "mesh",
            "join",
            "ctl-1:7300,[::1]:7300",
            "--node",
            "web-7",
            "--token",
            &text,
            "--config",
            config.to_str().unwrap(),
            "--token-out",
            out.to_str().unwrap(),
            "-o",
            "json",
        ];
        let cli = Cli::try_parse_from(words.iter().chain(more)).unwrap();
        let Command::Join(args) = cli.command else { panic!() };
        join(&Context::new(cli.global)?, args)
    }

    #[test]
    fn join_writes_what_the_agent_reads() {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), TokenKind::JoinNode, &["--address", "10.0.0.7"]).unwrap();
        let out = dir.path().join("etc/join.token");
        let text = std::fs::read_to_string(dir.path().join("etc/agent.toml")).unwrap();
        let want = format!(
            "# Written by `mesh join`.\nnode = \"web-7\"\nservers = [\"ctl-1:7300\", \
             \"[::1]:7300\"]\ntoken_file = \"{}\"\naddress = \"10.0.0.7\"\n",
            out.display()
        );
        assert_eq!(text, want);
        assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
        let again = run(dir.path(), TokenKind::JoinNode, &[]).unwrap_err();
        assert!(again.to_string().contains("--force"), "{again}");
        run(dir.path(), TokenKind::JoinNode, &["--force"]).unwrap();
    }

    #[test]
    fn another_kind_of_token_is_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let error = run(dir.path(), TokenKind::Api, &[]).unwrap_err();
        assert_eq!(error.exit() as u8, 2);
        assert!(error.to_string().contains("is an API token, expected a join token"), "{error}");
        assert!(!dir.path().join("etc").exists());
    }
}
