//! `mesh token`.

use std::path::Path;

use mesh_core::api::{CreateTokenRequest, TokenPurpose};
use mesh_core::catalog::NodePolicy;
use mesh_core::trust::Role;
use mesh_net::clock::now;
use mesh_net::files::write_atomic;
use mesh_net::telemetry::Chain;

use super::written;
use crate::args::{RoleName, TokenCommand, TokenCreateArgs};
use crate::context::Context;
use crate::error::CliError;
use crate::limits::commands::TTL_SECONDS_MAX;
use crate::output::note;
use crate::render;
use crate::times::relative;

/// `mesh token`.
pub(super) async fn run(context: &Context, command: TokenCommand) -> Result<(), CliError> {
    match command {
        TokenCommand::Create(args) => create(context, args).await,
        TokenCommand::List => list(context).await,
        TokenCommand::Delete { id } => {
            let answer = context.client()?.delete_token(&id).await?;
            written(context, answer, &format!("token {id} is deleted"))
        }
    }
}

/// The tokens.
pub(super) async fn list(context: &Context) -> Result<(), CliError> {
    let all = context.client()?.tokens(context.read()).await?.value;
    context.output.show(&all, || render::tokens(&all, now()))
}

async fn create(context: &Context, args: TokenCreateArgs) -> Result<(), CliError> {
    let purpose = purpose(&args)?;
    let what = render::purpose(&purpose);
    let advice = advice(context, &purpose);
    let ttl_seconds = args.ttl.as_secs();
    if !(1..=TTL_SECONDS_MAX).contains(&ttl_seconds) {
        return Err(CliError::Usage(format!("--ttl is {ttl_seconds} s, expected 1s to 365d")));
    }
    if let Some(path) = &args.out {
        writable(path)?;
    }
    let request = CreateTokenRequest { purpose, ttl_seconds, note: args.note };
    // From the asking: an hour asked for is told as an hour.
    let asked = now();
    let answer = context.client()?.create_token(&request).await?;
    let expires = relative(answer.expires_at, asked);
    note(&format!("token {}: {what}; expires {expires}", answer.id));
    match &args.out {
        Some(path) => {
            // The token exists already: if it cannot be kept, say how to take it back.
            write_atomic(path, format!("{}\n", answer.token).as_bytes()).map_err(|why| {
                CliError::Refused(format!(
                    "{}; the token is lost\n  hint: forget it by `mesh token delete {}`",
                    Chain(&why),
                    answer.id
                ))
            })?;
            note(&format!("written to {}", path.display()));
            let value = serde_json::json!({ "id": answer.id, "expires_at": answer.expires_at });
            context.output.show(&value, String::new)?;
        }
        None => context.output.show(&answer, || answer.token.clone())?,
    }
    advice.iter().for_each(|text| note(text));
    Ok(())
}

/// Refuses a place where nothing can be written before a token is made that would be lost.
fn writable(path: &Path) -> Result<(), CliError> {
    let wrong = |why: &str| Err(CliError::file("write", path, why));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        _ if path.is_dir() => wrong("it is a directory"),
        Some(folder) if !folder.is_dir() => wrong("its directory is not there"),
        Some(_) | None => Ok(()),
    }
}

/// What the token is for, by the flags.
fn purpose(args: &TokenCreateArgs) -> Result<TokenPurpose, CliError> {
    let services = args.service.clone();
    let extra = |what: &str| {
        let text = format!("--service is for node tokens and operators, not for {what}");
        if services.is_empty() { Ok(()) } else { Err(CliError::Usage(text)) }
    };
    let missing = |what: &str| {
        let text = format!("{what} needs --service: which services, such as web or 'batch-*'");
        if services.is_empty() { Err(CliError::Usage(text)) } else { Ok(services.clone()) }
    };
    let role = match args.role {
        None => None,
        Some(RoleName::Operator) => Some(Role::Operator { services: missing("an operator")? }),
        Some(RoleName::Admin) => extra("admins").map(|()| Some(Role::Admin))?,
        Some(RoleName::Viewer) => extra("viewers").map(|()| Some(Role::Viewer))?,
        Some(RoleName::Metrics) => extra("metrics").map(|()| Some(Role::Metrics))?,
    };
    if let Some(role) = role {
        return Ok(TokenPurpose::Api { role });
    }
    if args.server.is_some() || args.any_server {
        extra("servers")?;
        return Ok(TokenPurpose::Server { name: args.server.clone() });
    }
    if args.node.is_some() || args.any_node {
        let policy = NodePolicy { services: missing("a node")? };
        return Ok(TokenPurpose::Node { name: args.node.clone(), policy });
    }
    Err(CliError::Usage(
        "what is the token for? expected --node NAME, --server NAME or --role ROLE".to_owned(),
    ))
}

/// What to do with the token, for people.
fn advice(context: &Context, purpose: &TokenPurpose) -> Option<String> {
    let servers = context.addresses().join(",");
    match purpose {
        TokenPurpose::Node { .. } => {
            Some(format!("on the host: mesh join {servers} --token-file FILE"))
        }
        TokenPurpose::Server { .. } => Some(format!(
            "on the server: mesh server join {servers} --token-file FILE --api-address HOST:7300 \
             --raft-address HOST:7301"
        )),
        TokenPurpose::Api { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn asked(words: &str) -> Result<String, String> {
        let all = ["mesh", "token", "create"].into_iter().chain(words.split_whitespace());
        let cli = Cli::try_parse_from(all).map_err(|_| "usage".to_owned())?;
        match cli.command {
            Command::Token(TokenCommand::Create(args)) => {
                purpose(&args).map(|p| render::purpose(&p)).map_err(|why| why.to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_place_for_the_token_is_looked_at_first() {
        let dir = tempfile::tempdir().unwrap();
        let said = |path: &Path| writable(path).map_err(|why| why.to_string());
        assert_eq!(said(&dir.path().join("new.token")), Ok(()));
        assert_eq!(said(Path::new("new.token")), Ok(()));
        let absent = said(&dir.path().join("none/new.token")).unwrap_err();
        assert!(absent.ends_with("its directory is not there"), "{absent}");
        let folder = said(dir.path()).unwrap_err();
        assert!(folder.ends_with("it is a directory"), "{folder}");
    }

    #[test]
    fn flags_say_what_a_token_is_for() {
        let cases = [
            ("--node web-7 --service web,batch-*", "node web-7, may host web,batch-*"),
            ("--any-node --service * --ttl 10m", "node (any name), may host *"),
            ("--server ctl-2", "server ctl-2"),
            ("--role operator --service web", "API as operator of web"),
            ("--role metrics", "API for metrics"),
        ];
        for (words, want) in cases {
            assert_eq!(asked(words).as_deref(), Ok(want), "{words}");
        }
        for (words, want) in [
            ("", "what is the token for?"),
            ("--node web-7", "a node needs --service"),
            ("--role operator", "an operator needs --service"),
            ("--role viewer --service web", "--service is for node tokens"),
            ("--server ctl-2 --service web", "--service is for node tokens"),
            ("--node web-7 --role admin", "usage"),
            ("--node Web", "usage"),
            ("--role metrics --ttl 5", "usage"),
        ] {
            let got = asked(words).unwrap_err();
            assert!(got.starts_with(want), "{words}: {got}");
        }
    }
}
