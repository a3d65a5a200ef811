#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use super::*;

const GOOD: &str = r#"
node = "web-7"
servers = ["ctl-1:7300", "[::1]:7300"]
address = "10.0.0.7"
http = ""
local_callers = "node"

[limits]
connections = 100
drain = "2s"
"#;

fn read(text: &str) -> Result<Config, ConfigError> {
    Config::resolve(&Config::settings("agent.toml", text)?, "Host-1.corp.example")
}

#[test]
fn a_file_overrules_defaults() {
    let config = read(GOOD).unwrap();
    assert_eq!(config.node.as_str(), "web-7");
    assert_eq!(config.servers, ["ctl-1:7300", "[::1]:7300"]);
    assert_eq!(config.http, None);
    assert_eq!(config.admin, Some("127.0.0.1:7302".parse().unwrap()));
    assert_eq!(config.local_callers, LocalCallers::Node);
    assert_eq!(config.limits.connections, 100);
    assert_eq!(config.limits.drain, Duration::from_secs(2));
}

#[test]
fn flags_overrule_the_file() {
    let mut settings = Config::settings("agent.toml", GOOD).unwrap();
    settings.set("node", "db-1".to_owned());
    settings.set("inbound", "127.0.0.1:0".to_owned());
    let config = Config::resolve(&settings, "").unwrap();
    assert_eq!(config.node.as_str(), "db-1");
    assert_eq!(config.inbound, "127.0.0.1:0".parse().unwrap());

    settings.set("inbound", "here".to_owned());
    let error = Config::resolve(&settings, "").unwrap_err().to_string();
    let want = "--inbound or MESH_AGENT_INBOUND: inbound is \"here\", expected an address and port \
                such as \"0.0.0.0:7443\"";
    assert_eq!(error, want);
}

#[test]
fn the_host_name_is_the_default_node() {
    assert_eq!(read("servers = [\"a:1\"]").unwrap().node.as_str(), "host-1");
    let settings = Config::settings("agent.toml", "servers = [\"a:1\"]").unwrap();
    let error = Config::resolve(&settings, "my_host").unwrap_err().to_string();
    assert!(error.contains("\"my_host\" is no node name"), "{error}");
}

#[test]
fn errors_name_their_place() {
    let cases = [
        (
            "servers = [\"a:1\"]\nnod = \"x\"",
            "agent.toml:2:1: unknown key \"nod\", expected \"node\"",
        ),
        (
            "servers = [\"a:1\"]\n\n[limits]\ndrian = \"1s\"",
            "agent.toml:4:1: unknown key \"limits.drian\", expected \"limits.drain\"",
        ),
        (
            "servers = [\"a:1\"]\ninbound = 7443",
            "agent.toml:2:11: inbound has another type, expected a string such as",
        ),
        (
            "servers = [\"a:1\"]\nhttp = \"0.0.0.0:80\"",
            "agent.toml:2:8: http is \"0.0.0.0:80\", expected a loopback address",
        ),
        ("servers = [\"a\"]", "agent.toml:1:11: server is \"a\", expected host:port"),
        ("servers = []", "agent.toml:1:11: servers has another type"),
        ("servers = [\"a:1\"]\nnode = \"A\"", "agent.toml:2:8: node name \"A\" has 'A' at byte 0"),
        (
            "servers = [\"a:1\"]\ndata_dir = \"x\"",
            "agent.toml:2:12: data_dir is \"x\", expected an absolute path",
        ),
        ("servers = [\"a:1\"]\nnode = ", "agent.toml:2:"),
        ("", "servers is not set"),
    ];
    for (text, want) in cases {
        let error = read(text).unwrap_err().to_string();
        assert!(error.starts_with(want), "{text:?} gave {error:?}");
    }
}

#[test]
fn every_key_can_be_set_by_flag() {
    let mut settings = Config::settings("agent.toml", "").unwrap();
    for key in SETTINGS.keys {
        let text = key.example.trim_matches(['[', ']', '"']).to_owned();
        settings.set(key.name, text);
    }
    assert!(Config::resolve(&settings, "").is_ok());
}

#[test]
fn every_setting_is_documented() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, page) = page.split_once("`/etc/mesh/agent.toml`").unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with("| `"));
    let rows = rows.take_while(|line| line.starts_with("| `"));
    let documented: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    let mut found = documented.clone();
    let mut known: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    found.sort_unstable();
    known.sort_unstable();
    assert_eq!(found, known, "docs/operations.md: {documented:?}");
}
