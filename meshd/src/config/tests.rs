#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;

fn resolve(text: &str) -> Result<Config, ConfigError> {
    Config::resolve(&Config::settings("meshd.toml", text)?, "ctl-1.corp.example")
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let config = resolve("").unwrap();
    assert_eq!(config.name.as_str(), "ctl-1");
    assert_eq!(config.api_address, "ctl-1.corp.example:7300");
    assert_eq!(config.kek, KekSource::File("/etc/mesh/kek".into()));
    assert_eq!(config.checkpoint_every, 10_000);
    assert_eq!(config.profile, Timing::Lan);
}

#[test]
fn settings_are_read() {
    let text = "name = \"a\"\napi = \"127.0.0.1:9\"\nkek_file = \"credential\"\nprofile = \"wan\"\n\
        heartbeat = \"200ms\"\nlease = \"1s\"\n[limits]\nwatches = 7\n";
    let config = resolve(text).unwrap();
    assert_eq!(config.api_address, "127.0.0.1:9");
    assert_eq!(config.kek, KekSource::Credential);
    assert_eq!((config.profile, config.limits.watches), (Timing::Wan, 7));
    assert_eq!(config.heartbeat.as_millis(), 200);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let cases = [
        ("data_dri = \"/x\"", "meshd.toml:1:1: unknown key \"data_dri\", expected \"data_dir\""),
        ("\napi = 7300", "meshd.toml:2:7: api has another type, expected a string"),
        ("api = \"x\"", "meshd.toml:1:7: api is \"x\", expected an address and port"),
        ("data_dir = \"x\"", "expected an absolute path"),
        ("lease = \"4s\"", "lease is 4s, expected at least twice the heartbeat 3s"),
        ("profile = \"moon\"", "expected \"lan\" or \"wan\""),
        ("raft_address = \"ctl\"", "expected host:port"),
        ("[limits]\nwatch = 1", "unknown key \"limits.watch\", expected \"limits.watches\""),
        ("name = ", "meshd.toml:1:"),
    ];
    for (text, want) in cases {
        let error = resolve(text).unwrap_err().to_string();
        assert!(error.contains(want), "{text:?}: {error}");
    }
}

#[test]
fn every_setting_is_documented() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, page) = page.split_once("`/etc/mesh/meshd.toml`").unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with("| `"));
    let rows = rows.take_while(|line| line.starts_with("| `"));
    let documented: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    let mut found = documented.clone();
    let mut known: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    found.sort_unstable();
    known.sort_unstable();
    assert_eq!(found, known, "docs/operations.md: {documented:?}");
}
