#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use super::*;

fn parsed(words: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(words.split_whitespace())
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

/// Every flag's path and environment variable.
fn flags(command: &clap::Command, path: &str, all: &mut BTreeMap<String, String>) {
    for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
        let id = arg.get_id().as_str();
        if ["help", "version"].contains(&id) || (arg.is_global_set() && !path.is_empty()) {
            continue;
        }
        let env = arg.get_env().map(|env| env.to_string_lossy().into_owned());
        let flag = format!("{path} --{}", arg.get_long().unwrap_or("no long form"));
        assert!(env.is_some(), "{flag} has no environment variable");
        all.insert(flag, env.unwrap_or_default());
    }
    for sub in command.get_subcommands() {
        flags(sub, format!("{path} {}", sub.get_name()).trim_start(), all);
    }
}

#[test]
fn every_flag_has_its_own_environment_variable() {
    let mut all = BTreeMap::new();
    flags(&Cli::command(), "", &mut all);
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (flag, env) in &all {
        assert!(env.starts_with("MESH_"), "{flag} has {env}");
        // Flags of one meaning share a variable.
        if env == "MESH_AGENT_SOCKET" || env.starts_with("MESH_SERVER_") {
            continue;
        }
        let other = owners.insert(env, flag);
        assert_eq!(other, None, "{env} is also {flag}'s");
    }
    for (flag, env) in [
        (" --addr", "MESH_ADDR"),
        (" --token", "MESH_TOKEN"),
        (" --token-file", "MESH_TOKEN_FILE"),
        (" --cacert", "MESH_CACERT"),
        (" --output", "MESH_OUTPUT"),
        ("apply --prune", "MESH_APPLY_PRUNE"),
        ("service add --socket", "MESH_AGENT_SOCKET"),
    ] {
        assert_eq!(all.get(flag).map(String::as_str), Some(env), "{flag}");
    }
}

#[test]
fn habits_are_understood() {
    let good = [
        "mesh services",
        "mesh services -o json --addr a:1,b:2",
        "mesh --addr a:1 services",
        "mesh get",
        "mesh get allow.orders/readers",
        "mesh get service orders",
        "mesh apply policies/ --prune --if-version v12 -m why",
        "mesh apply -f policies/ -f -",
        "mesh why web orders",
        "mesh why node:web-7 orders GET /v2/x -H a:b -H c=d",
        "mesh why spiffe://td/ns/default/dc/dc1/svc/web orders",
        "mesh token create --node web-7 --service web,batch-* --ttl 1h",
        "mesh token rm t-1",
        "mesh server ls",
        "mesh servers ls",
        "mesh service rm web-1",
        "mesh snapshot save -",
        "mesh revoke spiffe://td/dc/dc1/node/web-7 --reason gone",
        "mesh wait --revision 1.42 --for 5s",
        "mesh completions bash",
        "mesh join ctl-1:7300 --token-file -",
        "mesh service add -f -",
    ];
    for words in good {
        let got = parsed(words);
        assert!(got.is_ok(), "{words}: {}", got.unwrap_err());
    }
}

#[test]
fn wrong_usage_is_told_apart() {
    let bad = [
        "mesh nonsense",
        "mesh apply",
        "mesh apply --if-version x .",
        "mesh why web",
        "mesh why web orders GET",
        "mesh why Web orders",
        "mesh why node:Web orders",
        "mesh services -o xml",
        "mesh services --stale --consistent",
        "mesh services --timeout 10",
        "mesh node policy web-7",
        "mesh revoke",
        "mesh service add web",
        "mesh service add web --port 0",
        "mesh service add web --port 80 --check ftp",
        "mesh service add web --port 80 -f x.toml",
        "mesh token create --node a --server b",
        "mesh wait --revision 42",
    ];
    for words in bad {
        let got = parsed(words);
        assert_eq!(got.err().map(|why| why.exit_code()), Some(2), "{words}");
    }
}

#[test]
fn the_token_is_not_shown_by_help() {
    let help = Cli::command().render_long_help().to_string();
    assert!(help.contains("MESH_TOKEN]"), "{help}");
}

#[test]
fn pages_cover_the_commands() {
    let bash = pages::completions(clap_complete::Shell::Bash);
    assert!(bash.contains("snapshot") && bash.contains("--if-version"));
    let dir = tempfile::tempdir().unwrap();
    pages::man(dir.path()).unwrap();
    for page in ["mesh.1", "mesh-why.1", "mesh-token-create.1"] {
        assert!(dir.path().join(page).is_file(), "{page}");
    }
}

/// Every command that the pages show can be given.
#[cfg(feature = "dev")]
#[test]
fn what_the_pages_show_is_understood() {
    let mut count = 0;
    for (page, text) in pages_of_the_tree() {
        let text = text.replace("\\\n", " ");
        let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
        for command in lines.flat_map(commands).filter(|words| words[0] == "mesh") {
            let got = Cli::try_parse_from(&command);
            assert!(got.is_ok(), "{page}: {command:?}: {}", got.unwrap_err());
            count += 1;
        }
    }
    assert!(count > 30, "{count} commands");
}

#[cfg(feature = "dev")]
fn pages_of_the_tree() -> Vec<(String, String)> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let docs = std::fs::read_dir(format!("{root}/docs")).unwrap();
    let mut paths: Vec<_> = docs.map(|entry| entry.unwrap().path()).collect();
    paths.push(format!("{root}/README.md").into());
    paths.push(format!("{root}/CONTRIBUTING.md").into());
    paths.retain(|path| path.extension().is_some_and(|end| end == "md"));
    let text = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    paths.iter().map(|path| (path.display().to_string(), text(path))).collect()
}

/// The commands of a line of shell, as words: quotes kept together, comments cut.
#[cfg(feature = "dev")]
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut word = String::new();
    let mut quoted = false;
    for c in line.strip_prefix("$ ").unwrap_or(line).chars().chain([' ']) {
        match c {
            '"' => quoted = !quoted,
            c if quoted || !c.is_whitespace() => word.push(c),
            _ => match std::mem::take(&mut word).as_str() {
                "" => {}
                "#" => break,
                ";" | "|" | "&&" => all.push(Vec::new()),
                word => all.last_mut().unwrap().push(word.to_owned()),
            },
        }
    }
    all.retain(|words| !words.is_empty());
    all
}
