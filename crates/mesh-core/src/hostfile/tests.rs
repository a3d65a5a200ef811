#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use proptest::prelude::*;

use super::*;
use crate::limits;

/// A file with every key.
const FULL: &str = r#"# web on this host
[instance.web-2]
service = "web"
port = 8080
address = "127.0.0.2"
unit = "web@2.service"
user = "web"
meta = { version = "2" }
upstreams = ["cache", { service = "db", listen = "127.0.0.1:9001" }]

[[instance.web-2.check]]
http = "/health?full=1"
interval = "1s"
timeout = "500ms"
rise = 1
fall = 5

[[instance.web-2.check]]
exec = ["/usr/lib/web/check", "-v"]

[instance.batch]
service = "batch"
port = 1
"#;

fn unplaced(mut instances: Vec<InstanceFile>) -> Vec<InstanceFile> {
    instances.iter_mut().for_each(|instance| instance.origin = Origin::default());
    instances
}

#[test]
fn every_key_is_read() {
    let instances = parse("web.toml", FULL).unwrap();
    let [web, batch] = &instances[..] else { panic!("{instances:?}") };
    assert_eq!((web.id.as_str(), web.service.as_str(), web.port), ("web-2", "web", 8080));
    assert_eq!(web.address.to_string(), "127.0.0.2");
    assert_eq!((web.unit.as_deref(), web.user.as_deref()), (Some("web@2.service"), Some("web")));
    assert_eq!(web.meta["version"], "2");
    assert_eq!(web.upstreams[0].listen, None);
    assert_eq!(web.upstreams[1].listen, "127.0.0.1:9001".parse().ok());
    let CheckFile { kind, interval_ms, timeout_ms, rise, fall } = &web.checks[0];
    assert_eq!(*kind, CheckKind::Http("/health?full=1".to_owned()));
    assert_eq!((*interval_ms, *timeout_ms, *rise, *fall), (1_000, 500, 1, 5));
    let CheckFile { interval_ms, timeout_ms, rise, fall, .. } = &web.checks[1];
    assert_eq!((*interval_ms, *timeout_ms, *rise, *fall), (5_000, 2_000, 2, 3));
    assert_eq!((web.origin.line, batch.origin.line), (2, 21));
    assert_eq!(batch.address.to_string(), "127.0.0.1");
    assert_eq!(batch.checks, []);
}

#[test]
fn instances_print_and_parse_back() {
    let instances = unplaced(parse("web.toml", FULL).unwrap());
    let text = print(&instances);
    assert_eq!(unplaced(parse("again.toml", &text).unwrap()), instances);
    let want = r#"[instance.web-2]
service = "web"
port = 8080
address = "127.0.0.2"
unit = "web@2.service"
user = "web"
meta = { version = "2" }
upstreams = ["cache", { service = "db", listen = "127.0.0.1:9001" }]

[[instance.web-2.check]]
http = "/health?full=1"
interval = "1s"
timeout = "500ms"
rise = 1
fall = 5

[[instance.web-2.check]]
exec = ["/usr/lib/web/check", "-v"]

[instance.batch]
service = "batch"
port = 1
"#;
    assert_eq!(text, want);
}

#[test]
fn a_short_interval_shortens_the_default_timeout() {
    let text = "[instance.a]\nservice = \"a\"\nport = 1\n[[instance.a.check]]\ntcp = true\ninterval = \"100ms\"\n";
    let instances = parse("a", text).unwrap();
    assert_eq!(instances[0].checks[0].timeout_ms, 100);
    assert_eq!(unplaced(parse("a", &print(&instances)).unwrap()), unplaced(instances));
}

/// What follows `[instance.a]`, `service` and `port`, and what it is told first.
const CASES: &[(&str, &str)] = &[
    ("prot = 1", "4:1: unknown key \"prot\", expected \"port\""),
    ("drain = \"5s\"", "4:1: \"drain\" is not supported in this version"),
    (
        "address = \"0.0.0.0\"",
        "4:11: address is \"0.0.0.0\", expected an address of this host such as \"127.0.0.1\"",
    ),
    (
        "address = \"224.0.0.1\"",
        "4:11: address is \"224.0.0.1\", expected an address of this host such as \"127.0.0.1\"",
    ),
    (
        "address = \"localhost\"",
        "4:11: address is \"localhost\", expected an address of this host such as \"127.0.0.1\"",
    ),
    (
        "unit = \"web\"",
        "4:8: unit is \"web\", expected a unit such as \"web.service\", or its path such as \"/system.slice/web.service\"",
    ),
    (
        "unit = \"/system.slice/../web.service\"",
        "4:8: unit is \"/system.slice/../web.service\", expected a unit such as \"web.service\", or its path such as \"/system.slice/web.service\"",
    ),
    (
        "unit = \".service\"",
        "4:8: unit is \".service\", expected a unit such as \"web.service\", or its path such as \"/system.slice/web.service\"",
    ),
    ("user = \"-x\"", "4:8: user is \"-x\", expected a user's name such as \"web\""),
    ("user = \"a b\"", "4:8: user is \"a b\", expected a user's name such as \"web\""),
    ("meta = { v = 1 }", "4:14: meta \"v\" is 1, expected a string such as \"2\""),
    (
        "upstreams = \"db\"",
        "4:13: upstreams is \"db\", expected a list of \"db\" or { service = \"db\", listen = \"127.0.0.1:9001\" }",
    ),
    (
        "upstreams = [1]",
        "4:14: upstream is 1, expected \"db\" or { service = \"db\", listen = \"127.0.0.1:9001\" }",
    ),
    (
        "upstreams = [\"DB\"]",
        "4:14: service name \"DB\" has 'D' at byte 0, expected a-z and 0-9, with '-' only inside",
    ),
    ("upstreams = [\"db\", \"db\"]", "4:20: upstream db is given twice"),
    (
        "upstreams = [{ listen = \"127.0.0.1:1\" }]",
        "4:14: upstream has no service, expected such as service = \"db\"",
    ),
    (
        "upstreams = [{ service = \"db\", listen = \"10.0.0.1:1\" }]",
        "4:41: listen is \"10.0.0.1:1\", expected a loopback address and port such as \"127.0.0.1:9001\"",
    ),
    (
        "upstreams = [{ service = \"db\", listen = \"127.0.0.1:0\" }]",
        "4:41: listen is \"127.0.0.1:0\", expected a loopback address and port such as \"127.0.0.1:9001\"",
    ),
    (
        "upstreams = [{ service = \"db\", listen = \"9001\" }]",
        "4:41: listen is \"9001\", expected a loopback address and port such as \"127.0.0.1:9001\"",
    ),
    (
        "upstreams = [{ service = \"b\", listen = \"127.0.0.1:1\" },\n{ service = \"c\", listen = \"127.0.0.1:1\" }]",
        "5:27: listen address 127.0.0.1:1 is used twice, first at line 4",
    ),
    (
        "upstreams = [{ service = \"b\", listen = \"[::1]:1\" },\n{ service = \"c\", listen = \"[::1%3]:1\" }]",
        "5:27: listen address [::1]:1 is used twice, first at line 4",
    ),
    (
        "[[instance.a.check]]",
        "4:1: check tries nothing, expected one of http = \"/health\", tcp = true, exec = [\"/usr/lib/check\"]",
    ),
    (
        "[instance.a.check]\ntcp = true",
        "4:1: check is a table, expected checks, each written [[instance.a.check]]",
    ),
    (
        "[[instance.a.check]]\ntcp = true\nhttp = \"/\"",
        "5:7: http and tcp are both given, expected one of http = \"/health\", tcp = true, exec = [\"/usr/lib/check\"]",
    ),
    ("[[instance.a.check]]\ntcp = false", "5:7: tcp is false, expected true"),
    (
        "[[instance.a.check]]\nhttp = \"health\"",
        "5:8: http is \"health\", expected a path such as \"/health\"",
    ),
    (
        "[[instance.a.check]]\nhttp = \"/a\\r\\nb\"",
        "5:8: http is \"/a\\r\\nb\", expected a path such as \"/health\"",
    ),
    (
        "[[instance.a.check]]\nexec = [\"check\"]",
        "5:9: command is \"check\", expected an absolute path",
    ),
    (
        "[[instance.a.check]]\nexec = \"/bin/true\"",
        "5:8: exec is \"/bin/true\", expected a command and its arguments such as [\"/usr/lib/check\", \"web\"]",
    ),
    (
        "[[instance.a.check]]\nexec = []",
        "5:8: exec is an empty array, expected a command and its arguments such as [\"/usr/lib/check\", \"web\"]",
    ),
    (
        "[[instance.a.check]]\ntcp = true\ninterval = \"99ms\"",
        "6:12: interval is \"99ms\", expected 100ms to 1h",
    ),
    (
        "[[instance.a.check]]\ntcp = true\ninterval = \"1s\"\ntimeout = \"2s\"",
        "7:11: timeout is \"2s\", expected at most the interval, 1s",
    ),
    (
        "[[instance.a.check]]\ntcp = true\nrise = 0",
        "6:8: rise is 0, expected a number from 1 to 100",
    ),
    (
        "[[instance.a.check]]\ntcp = true\nfall = 101",
        "6:8: fall is 101, expected a number from 1 to 100",
    ),
    (
        "[instance.b]\nport = 1",
        "4:1: instance.b has no service, expected such as service = \"web\"",
    ),
    ("[instance.b]\nservice = \"b\"", "4:1: instance.b has no port, expected such as port = 8080"),
    (
        "[instance.b]\nservice = \"b\"\nport = 0",
        "6:8: port is 0, expected a number from 1 to 65535",
    ),
    (
        "[instance.b]\nservice = \"b\"\nport = 65536",
        "6:8: port is 65536, expected a number from 1 to 65535",
    ),
    (
        "[instance.b]\nservice = \"b\"\nport = \"80\"",
        "6:8: port is \"80\", expected a number from 1 to 65535",
    ),
    (
        "[instance.B]\nservice = \"b\"\nport = 1",
        "4:11: instance name \"B\" has 'B' at byte 0, expected a-z and 0-9, with '-' only inside",
    ),
    ("[instance.a]", "4:11: instance.a is declared twice, first at line 1"),
    (
        "[service.b]\nprotocol = \"http\"",
        "4:2: service tables belong in policy, not in a host's file",
    ),
    ("[[allow.b]]\nfrom = [\"a\"]", "4:3: allow tables belong in policy, not in a host's file"),
    ("[[deny.b]]\nfrom = [\"a\"]", "4:3: deny tables belong in policy, not in a host's file"),
    ("[instanc.b]", "4:2: unknown key \"instanc\", expected \"instance\""),
];

#[test]
fn errors_say_where_what_and_what_is_expected() {
    for (tail, want) in CASES {
        let text = format!("[instance.a]\nservice = \"a\"\nport = 1\n{tail}\n");
        let errors = parse("a", &text).expect_err(tail);
        let shown = errors[0].to_string();
        assert_eq!(shown.lines().next(), Some(format!("a:{want}").as_str()), "{tail}");
    }
}

#[test]
fn policy_in_a_host_file_is_told_where_it_belongs() {
    let errors = parse("web.toml", "[service.web]\n").unwrap_err();
    let want = "web.toml:1:2: service tables belong in policy, not in a host's file\n    \
                [service.web]\n     ^^^^^^^\n    hint: move them to a policy file and run \"mesh apply\"";
    assert_eq!(errors[0].to_string(), want);
}

#[test]
fn good_units_and_users_are_taken() {
    for (key, value) in [
        ("unit", "web.service"),
        ("unit", "web@2.service"),
        ("unit", "session-1.scope"),
        ("unit", "a\\x2db.service"),
        ("unit", "/system.slice/web.service"),
        ("unit", "/user.slice/user-1000.slice/x.scope"),
        ("user", "web"),
        ("user", "www-data"),
        ("user", "_web.a"),
        ("user", "1000"),
    ] {
        let text = format!("[instance.a]\nservice = \"a\"\nport = 1\n{key} = '{value}'\n");
        let instances = parse("a", &text).expect(value);
        assert_eq!(unplaced(parse("a", &print(&instances)).unwrap()), unplaced(instances));
    }
}

#[test]
fn bounds_are_kept() {
    let instances = |n: usize| -> String {
        (0..n).map(|i| format!("[instance.i{i}]\nservice = \"a\"\nport = 1\n")).collect()
    };
    assert!(parse("a", &instances(limits::INSTANCES_PER_NODE_MAX)).is_ok());
    assert!(parse("a", &instances(limits::INSTANCES_PER_NODE_MAX + 1)).is_err());
    let upstreams = |n: usize| {
        let names: Vec<String> = (0..n).map(|i| format!("\"s{i}\"")).collect();
        format!("{}upstreams = [{}]", instances(1), names.join(","))
    };
    assert!(parse("a", &upstreams(limits::UPSTREAMS_MAX)).is_ok());
    assert!(parse("a", &upstreams(limits::UPSTREAMS_MAX + 1)).is_err());
    assert!(parse_bytes("a", b"\xff").is_err());
    assert!(parse_bytes("a", b"").is_ok());
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused(text in "(?s).{0,200}") {
        if let Err(errors) = parse("a", &text) {
            prop_assert!(!errors.is_empty());
        }
    }

    #[test]
    fn mutated_files_parse_or_are_refused(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), any::<char>()), 1..4)
    ) {
        let mut chars: Vec<char> = FULL.chars().collect();
        for (at, cut, c) in edits {
            let at = at.index(chars.len());
            if cut {
                chars.remove(at);
            } else {
                chars[at] = c;
            }
        }
        let text: String = chars.into_iter().collect();
        if let Ok(instances) = parse("a", &text) {
            let again = parse("a", &print(&instances)).unwrap();
            prop_assert_eq!(unplaced(again), unplaced(instances));
        }
    }
}
