use super::*;
use crate::limits;

/// What each text is told first: `LINE:COLUMN: message`.
const CASES: &[(&str, &str)] = &[
    // Keys.
    ("[service.a]\nprotocal = \"http\"", "2:1: unknown key \"protocal\", expected \"protocol\""),
    (
        "[service.a]\nxyz = 1",
        "2:1: unknown key \"xyz\", expected \"protocol\", \"timeout\", \"connect_timeout\", \"access\", \"subset\" or \"route\"",
    ),
    (
        "[service.a]\n\"рrotocol\" = \"http\"",
        "2:1: unknown key \"рrotocol\", expected \"protocol\"",
    ),
    ("[servce.a]", "1:2: unknown key \"servce\", expected \"service\""),
    ("[[alow.a]]", "1:3: unknown key \"alow\", expected \"allow\""),
    ("[service.a]\nretry = { attempts = 2 }", "2:1: \"retry\" is not supported in this version"),
    ("[service.a]\nbalance = \"ewma\"", "2:1: \"balance\" is not supported in this version"),
    ("[service.a]\ncircuit = {}", "2:1: \"circuit\" is not supported in this version"),
    ("[[limit.a]]\nrate = \"100/s\"", "1:3: \"limit\" is not supported in this version"),
    (
        "[[service.a.route]]\nto = [{}]\nmirror = {}",
        "3:1: \"mirror\" is not supported in this version",
    ),
    (
        "[[service.a.route]]\nto = [{}]\nfault = {}",
        "3:1: \"fault\" is not supported in this version",
    ),
    (
        "[[allow.a]]\nfrom = [\"b\"]\nhttp = [{ query = {} }]",
        "3:11: \"query\" is not supported in this version",
    ),
    (
        "[instance.web-2]\nport = 1",
        "1:2: instance tables belong in a host's services.d file, not in policy",
    ),
    // Values of services.
    (
        "[service.A]",
        "1:10: service name \"A\" has 'A' at byte 0, expected a-z and 0-9, with '-' only inside",
    ),
    ("[service.mesh]", "1:10: service name \"mesh\" is reserved, expected another name"),
    ("[service.\"\"]", "1:10: service name has 0 bytes, expected 1 to 63"),
    (
        "service = 1",
        "1:11: service is 1, expected a table for each service, written [service.NAME]",
    ),
    ("[[service.a]]", "1:1: service.a is an array, expected a table, written [service.a]"),
    (
        "[service.a]\nprotocol = \"htp\"",
        "2:12: protocol is \"htp\", expected \"tcp\", \"http\", \"http2\" or \"grpc\"",
    ),
    (
        "[service.a]\nprotocol = true",
        "2:12: protocol is true, expected \"tcp\", \"http\", \"http2\" or \"grpc\"",
    ),
    (
        "[service.a]\ntimeout = 2",
        "2:11: timeout is 2, expected a duration such as \"250ms\", \"2s\" or \"1m\"",
    ),
    (
        "[service.a]\ntimeout = \"2\"",
        "2:11: timeout is \"2\", expected a duration such as \"250ms\", \"2s\" or \"1m\"",
    ),
    ("[service.a]\ntimeout = \"0s\"", "2:11: timeout is \"0s\", expected 1ms to 1h"),
    ("[service.a]\ntimeout = \"2h\"", "2:11: timeout is \"2h\", expected 1ms to 1h"),
    (
        "[service.a]\nconnect_timeout = \"61s\"",
        "2:19: connect_timeout is \"61s\", expected 1ms to 1m",
    ),
    (
        "[service.a]\naccess = \"deny\"",
        "2:10: access is \"deny\", expected \"enforce\" or \"audit\"",
    ),
    (
        "[service.a.subset.V1]\nmeta = { v = \"1\" }",
        "1:19: subset name \"V1\" has 'V' at byte 0, expected a-z and 0-9, with '-' only inside",
    ),
    (
        "[service.a.subset.v1]",
        "1:1: subset.v1 has no meta, expected such as meta = { version = \"2\" }",
    ),
    (
        "[service.a.subset.v1]\nmeta = {}",
        "2:8: meta of subset.v1 is empty, expected at least one pair",
    ),
    (
        "[service.a.subset.v1]\nmeta = { version = 2 }",
        "2:20: meta \"version\" is 2, expected a string such as \"2\"",
    ),
    (
        "[service.a.subset.v1]\nmeta = { v = \"\" }",
        "2:14: meta value has 0 bytes, expected 1 to 512",
    ),
    (
        "[service.a.subset.v1]\nmeta = { v = \"a\\u0000\" }",
        "2:14: meta value is \"a\\0\", expected no control characters",
    ),
    // Routes.
    (
        "[[service.a.route]]\nmatch = { path = \"/x\" }",
        "1:1: route has no destination, expected such as to = [{ subset = \"v2\" }]",
    ),
    (
        "[service.a.route]\nto = [{}]",
        "1:1: route is a table, expected routes, each written [[service.NAME.route]]",
    ),
    (
        "[[service.a.route]]\nto = []",
        "2:6: to is an empty array, expected at least one destination such as { subset = \"v2\", weight = 10 }",
    ),
    ("[[service.a.route]]\nto = [{ weight = 0 }]", "2:6: weights sum to 0, expected at least 1"),
    (
        "[[service.a.route]]\nto = [{ weight = -1 }]",
        "2:18: weight is -1, expected a number from 0 to 1000000",
    ),
    (
        "[[service.a.route]]\nto = [{ weight = 1000001 }]",
        "2:18: weight is 1000001, expected a number from 0 to 1000000",
    ),
    (
        "[[service.a.route]]\nto = [{ weight = 1.5 }]",
        "2:18: weight is 1.5, expected a number from 0 to 1000000",
    ),
    (
        "[[service.a.route]]\nto = [{ weight = nan }]",
        "2:18: weight is nan, expected a number from 0 to 1000000",
    ),
    (
        "[[service.a.route]]\nto = [{ weight = 99999999999999999999 }]",
        "2:18: weight is 99999999999999999999, expected a number from 0 to 1000000",
    ),
    (
        "[[service.a.route]]\nto = [{ weight = 2026-01-02 }]",
        "2:18: weight is a date or time, expected a number from 0 to 1000000",
    ),
    (
        "[[service.a.route]]\nto = [{ subset = \"V\" }]",
        "2:18: subset name \"V\" has 'V' at byte 0, expected a-z and 0-9, with '-' only inside",
    ),
    (
        "[[service.a.route]]\nto = [{}]\nmatch = { path = \"/a\", path_prefix = \"/\" }",
        "3:38: path and path_prefix are both given, expected one of them",
    ),
    (
        "[[service.a.route]]\nto = [{}]\nmatch = { path_prefix = \"/a/../b\" }",
        "3:25: path is \"/a/../b\", expected its canonical form \"/b\"",
    ),
    (
        "[[service.a.route]]\nto = [{}]\nmatch = { path = \"/a%2fb\" }",
        "3:18: path is \"/a%2fb\", expected a canonical path (path has '%2F' at byte 2, which is refused in paths)",
    ),
    (
        "[[service.a.route]]\nto = [{}]\nmatch = { header = { X = \"1\" } }",
        "3:22: header name is \"X\", expected lower case letters, digits and '-'",
    ),
    (
        "[[service.a.route]]\nto = [{}]\nmatch = { header = {} }",
        "3:20: header has 0 pairs, expected 1 to 64",
    ),
    (
        "[[service.a.route]]\nto = [{}]\nmatch = { methods = [\"get\"] }",
        "3:22: method is \"get\", expected upper case letters such as \"GET\"",
    ),
    (
        "[[service.a.route]]\nto = [{}]\nmatch = { methods = [] }",
        "3:21: methods is an empty array, expected a list such as [\"GET\"]; leave the key out for any method",
    ),
    // Rules.
    (
        "[allow.a]\nfrom = [\"b\"]",
        "1:1: allow.a is a table, expected rules, each written [[allow.a]]",
    ),
    (
        "[[allow.a]]",
        "1:1: allow.a has no from, expected at least one caller such as \"web\", \"web@dc2\", \"node:web-7\" or \"*\"",
    ),
    (
        "[[allow.a]]\nfrom = []",
        "2:8: from is an empty array, expected at least one caller such as \"web\", \"web@dc2\", \"node:web-7\" or \"*\"",
    ),
    (
        "[[allow.a]]\nfrom = \"web\"",
        "2:8: from is \"web\", expected at least one caller such as \"web\", \"web@dc2\", \"node:web-7\" or \"*\"",
    ),
    (
        "[[allow.a]]\nfrom = [\"b\", 1]",
        "2:14: caller is 1, expected at least one caller such as \"web\", \"web@dc2\", \"node:web-7\" or \"*\"",
    ),
    (
        "[[allow.a]]\nfrom = [\"jwt:x\"]",
        "2:9: caller is \"jwt:x\", but \"jwt\" is reserved and not supported in this version",
    ),
    (
        "[[allow.a]]\nfrom = [\"cidr:10.0.0.0/8\"]",
        "2:9: caller is \"cidr:10.0.0.0/8\", but \"cidr\" is reserved and not supported in this version",
    ),
    (
        "[[allow.a]]\nfrom = [\"svc:x\"]",
        "2:9: caller is \"svc:x\", expected \"NAME\", \"NAME@DC\", \"node:NAME\", \"spiffe://...\" or \"*\"",
    ),
    (
        "[[allow.a]]\nfrom = [\"b@DC\"]",
        "2:9: datacenter name \"DC\" has 'D' at byte 0, expected a-z and 0-9, with '-' only inside",
    ),
    (
        "[[allow.a]]\nfrom = [\"we*\"]",
        "2:9: service name \"we*\" has '*' at byte 2, expected a-z and 0-9, with '-' only inside",
    ),
    ("[[allow.a]]\nfrom = [\"node:\"]", "2:9: node name has 0 bytes, expected 1 to 63"),
    (
        "[[allow.a]]\nfrom = [\"b\"]\nmode = \"off\"",
        "3:8: mode is \"off\", expected \"enforce\" or \"audit\"",
    ),
    (
        "[[allow.a]]\nfrom = [\"b\"]\nname = \"R 1\"",
        "3:8: rule name \"R 1\" has 'R' at byte 0, expected a-z and 0-9, with '-' only inside",
    ),
    (
        "[[allow.a]]\nfrom = [\"b\"]\nhttp = {}",
        "3:8: http is a table, expected a list such as [{ methods = [\"GET\"] }]; leave the key out for any request",
    ),
    (
        "[[allow.a]]\nfrom = [\"b\"]\nhttp = [\"GET\"]",
        "3:9: http match is \"GET\", expected a table such as { path_prefix = \"/v2\" }",
    ),
    // TOML itself.
    (
        "[service.a]\ntimeout = \"1s\"\nprotocol = \"tcp\"\ntimeout = \"2s\"",
        "4:1: key \"timeout\" is given twice, first at line 2",
    ),
    (
        "[service.a]\n\n[service.b]\n[ service.a ]",
        "4:11: service.a is declared twice, first at line 1",
    ),
    ("[service.a]\ntimeout = 2s", "2:11: "),
    (
        "[service.a]\ntimeout = ",
        "2:11: string values must be quoted, expected literal string, found the end of the file",
    ),
    (
        "[service.a\ntimeout = \"1s\"",
        "1:11: unclosed table, expected `]`, found the end of the line",
    ),
    (
        "[service.a]\nрrotocol = \"http\"",
        "2:1: invalid unquoted key, expected letters, numbers, `-`, `_`, found 'р' (U+0440)",
    ),
    (
        "[service.a]\n# \0",
        "2:3: invalid comment character, expected printable characters, found '\\0'",
    ),
    ("\u{feff}[service.a]", "1:1: file starts with a byte order mark, expected UTF-8 without one"),
];

fn first(text: &str) -> String {
    let errors = parse("a.toml", text).expect_err(text);
    let shown = errors[0].to_string();
    shown.lines().next().unwrap().strip_prefix("a.toml:").unwrap().to_owned()
}

#[test]
fn errors_say_where_what_and_what_is_expected() {
    for (text, want) in CASES {
        let got = first(text);
        let fits = if want.ends_with(": ") { got.starts_with(want) } else { got == *want };
        assert!(fits, "{text}\n got: {got}\nwant: {want}");
        // The same place with Windows line ends.
        assert_eq!(first(&text.replace('\n', "\r\n")), got, "CRLF: {text}");
    }
}

#[test]
fn a_diagnostic_prints_with_excerpt_and_hint() {
    let error = &parse("orders.toml", "# x\n[service.a]\nprotocol = \"htt\"\n").unwrap_err()[0];
    let want = "orders.toml:3:12: protocol is \"htt\", expected \"tcp\", \"http\", \"http2\" or \"grpc\"\n    \
                protocol = \"htt\"\n               ^^^^^\n    hint: did you mean \"http\"?";
    assert_eq!(error.to_string(), want);
}

#[test]
fn all_errors_are_told_in_the_order_of_the_text() {
    let text = "[[deny.a]]\nfrom = [\"B\", \"C\"]\nmode = 1\n[service.a]\nprotocol = 1\ntimeout = \nacces = 1\n";
    let errors = parse("a", text).unwrap_err();
    let places: Vec<(u32, u32)> = errors.iter().map(|e| (e.line, e.column)).collect();
    assert_eq!(places, [(2, 9), (2, 14), (3, 8), (5, 12), (6, 11), (7, 1)]);
    let many = "x = 1\n".repeat(5_000).replace('x', "[service.a]\nx") + "[service.b]\ny = 1";
    assert_eq!(parse("a", &many).unwrap_err().len(), limits::DIAGNOSTICS_MAX);
    let keys: String = (0..5_000).map(|i| format!("k{i} = 1\n")).collect();
    let errors = parse("a", &keys).unwrap_err();
    assert_eq!(errors.len(), limits::DIAGNOSTICS_MAX);
}

#[test]
fn a_broken_header_hides_what_would_be_blamed_wrongly() {
    let errors =
        parse("a", "[service.a\nprotocol = \"http\"\n[service.b]\nnope = 1\n").unwrap_err();
    assert!(errors.iter().all(|error| error.line == 1), "{errors:?}");
}

#[test]
fn hostile_texts_are_refused_without_a_panic() {
    let deep = [
        format!("x = {}", "[".repeat(10_000)),
        format!("x = {}{}", "[".repeat(10_000), "]".repeat(10_000)),
        format!("x = {}", "{ a = ".repeat(10_000)),
        format!("{}a = 1", "a.".repeat(10_000)),
        format!("[{}a]", "a.".repeat(10_000)),
        format!("[[{}a]]", "a.".repeat(10_000)),
        "a.a.a.a = 1\n".repeat(1_000),
        "[[a]]\n".repeat(100_000),
        "=\n".repeat(200_000),
        "a.b = 1\n".repeat(130_000),
        "[a.b]\n".repeat(170_000),
        "[\n".repeat(200_000),
        "\"\"\"".repeat(100_000),
        "\u{0}".repeat(1_000),
        "\r\r\r".to_owned(),
    ];
    for text in deep {
        let errors = parse("a", &text).expect_err("hostile");
        assert!((1..=limits::DIAGNOSTICS_MAX).contains(&errors.len()));
        assert!(errors.iter().all(|error| error.to_string().len() < 4_000));
    }
    let nested = parse("a", &format!("x = {}", "[".repeat(100))).unwrap_err();
    assert!(
        nested.iter().any(|e| e.message == "nested too deep, expected fewer than 80 levels"),
        "{nested:?}"
    );
    let dotted = parse("a", &format!("[service.a]\n\n{}a = 1\n", "a.".repeat(100))).unwrap_err();
    assert_eq!((dotted[0].line, dotted[0].column), (3, 1), "{dotted:?}");
    assert!(parse("a", &"#".repeat(limits::POLICY_FILE_BYTES_MAX)).is_ok());
    assert!(parse("a", &"#".repeat(limits::POLICY_FILE_BYTES_MAX + 1)).is_err());
    assert!(parse_bytes("a", b"[service.a]\nx = \"\xff\"").is_err());
    assert!(parse_bytes("a", b"[service.a]").is_ok());
}

#[test]
fn bounds_are_kept() {
    let callers = |n: usize| {
        let names: Vec<String> = (0..n).map(|i| format!("\"s{i}\"")).collect();
        format!("[[allow.a]]\nfrom = [{}]", names.join(","))
    };
    assert!(parse("a", &callers(limits::SOURCES_PER_RULE_MAX)).is_ok());
    assert!(
        first(&callers(limits::SOURCES_PER_RULE_MAX + 1)).starts_with("2:8: from has 1025 values")
    );
    let routes = |n: usize| "[[service.a.route]]\nto = [{}]\n".repeat(n);
    assert!(parse("a", &routes(limits::ROUTES_PER_SERVICE_MAX)).is_ok());
    assert!(first(&routes(limits::ROUTES_PER_SERVICE_MAX + 1)).contains("expected at most 256"));
    let meta = |n: usize| {
        let pairs: Vec<String> = (0..n).map(|i| format!("k{i} = \"v\"")).collect();
        format!("[service.a.subset.b]\nmeta = {{ {} }}", pairs.join(","))
    };
    assert!(parse("a", &meta(limits::META_KEYS_MAX)).is_ok());
    assert!(first(&meta(limits::META_KEYS_MAX + 1)).starts_with("2:8: meta has 65 keys"));
    let rules = |n: usize| "[[deny.a]]\nfrom = [\"*\"]\n".repeat(n);
    assert!(parse("a", &rules(limits::RULES_PER_SERVICE_MAX)).is_ok());
    assert!(first(&rules(limits::RULES_PER_SERVICE_MAX + 1)).contains("expected at most 1024"));
}
