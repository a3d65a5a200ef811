#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use clap::Parser;

use super::*;
use crate::args::Cli;

fn context(words: &[&str]) -> Result<Context, CliError> {
    let words = ["mesh", "services"].iter().chain(words);
    Context::new(Cli::try_parse_from(words).unwrap().global)
}

fn token(kind: TokenKind) -> String {
    let token = JoinToken { kind, id: "t-1".parse().unwrap(), secret: [1; 32], ca: [2; 32] };
    token.to_text().to_string()
}

fn settings(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cli.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn addresses_come_from_flags_then_settings_then_loopback() {
    let (_dir, path) = settings("addr = [\"ctl-1:7300\"]\n");
    let all = context(&["--settings", &path]).unwrap().addresses();
    assert_eq!(all, ["ctl-1:7300"]);
    let all = context(&["--settings", &path, "--addr", "a:1, b:2,"]).unwrap().addresses();
    assert_eq!(all, ["a:1", "b:2"]);
    let (_dir, empty) = settings("");
    assert_eq!(context(&["--settings", &empty]).unwrap().addresses(), [DEFAULT_ADDRESS]);
}

#[test]
fn settings_are_strict() {
    let (_dir, path) = settings("adress = [\"ctl-1:7300\"]\n");
    let error = context(&["--settings", &path]).unwrap_err();
    assert_eq!(error.exit() as u8, 2);
    assert!(error.to_string().contains("unknown field `adress`"), "{error}");
    let error = context(&["--settings", "/nowhere/cli.toml"]).unwrap_err();
    assert!(error.to_string().contains("cannot read /nowhere/cli.toml"), "{error}");
}

#[test]
fn no_token_says_where_tokens_come_from() {
    let (_dir, path) = settings("");
    let error = context(&["--settings", &path]).unwrap().client().unwrap_err();
    assert_eq!(error.exit() as u8, 2);
    let text = error.text().unwrap();
    assert!(
        text.starts_with("error: no API token\n  hint: give a token by --token-file"),
        "{text}"
    );
    assert!(text.contains("/etc/mesh/admin.token") && text.contains("mesh token create"), "{text}");
}

#[test]
fn tokens_are_checked_before_anyone_is_asked() {
    let (_dir, path) = settings("");
    let wrong = |token: &str| {
        let context = context(&["--settings", &path, "--token", token]).unwrap();
        context.client().map(|_| ()).unwrap_err().to_string()
    };
    assert!(wrong(&token(TokenKind::JoinNode)).contains("is a join token for a node"));
    let garbage = wrong("hunter2");
    assert!(garbage.contains("token has 1 parts") && !garbage.contains("hunter2"), "{garbage}");
    let api = token(TokenKind::Api);
    assert!(context(&["--settings", &path, "--token", &api]).unwrap().client().is_ok());
}

#[test]
fn a_missing_token_file_is_named() {
    let (_dir, path) = settings("token_file = \"/nowhere/admin.token\"\n");
    let error = context(&["--settings", &path]).unwrap().client().unwrap_err();
    assert!(error.to_string().contains("/nowhere/admin.token"), "{error}");
}

#[test]
fn a_missing_join_token_is_not_sought_among_api_tokens() {
    let (_dir, path) = settings("");
    let context = context(&["--settings", &path, "--token-file", "/nowhere/join.token"]).unwrap();
    let error = context.join_token(TokenKind::JoinNode).unwrap_err().to_string();
    assert!(error.contains("/nowhere/join.token"), "{error}");
    assert!(error.contains("mesh token create --node"), "{error}");
    assert!(!error.contains("admin.token"), "{error}");
}

#[tokio::test]
async fn no_server_names_the_addresses_tried() {
    // A port that was free a moment ago refuses.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (_dir, path) = settings("");
    let api = token(TokenKind::Api);
    let address = free.to_string();
    let words = ["--settings", &path, "--token", &api, "--addr", &address, "--timeout", "2s"];
    let client = context(&words).unwrap().client().unwrap();
    let error = CliError::from(client.services(ReadOptions::default()).await.unwrap_err());
    assert_eq!(error.exit() as u8, 3, "{error}");
    let text = error.to_string();
    assert!(text.contains(&address) && text.contains("MESH_ADDR"), "{text}");
}
