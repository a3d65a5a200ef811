use super::*;
use crate::limits;

fn checked(files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<PolicyFile> =
        files.iter().map(|(name, text)| parse(name, text).expect(text)).collect();
    let head = |error: Diagnostic| error.to_string().lines().next().unwrap_or("").to_owned();
    check(&files).into_iter().map(head).collect()
}

#[test]
fn sound_policy_passes() {
    let archive = "[service.archive]\nprotocol = \"http2\"\n";
    assert_eq!(checked(&[("orders.toml", FULL), ("archive.toml", archive)]), [""; 0]);
    assert_eq!(checked(&[]), [""; 0]);
    assert_eq!(checked(&[("a", "[[allow.a]]\nfrom = [\"b\"]")]), [""; 0]);
}

#[test]
fn ids_stand_once_over_all_files() {
    let a = "[service.a]\n[[allow.a]]\nname = \"r\"\nfrom = [\"b\"]\n[[allow.a]]\nname = \"r\"\nfrom = [\"c\"]\n";
    let b = "\n[service.a]\n[[deny.a]]\nfrom = [\"b\"]\n[[deny.a]]\nfrom = [\"b\"]";
    let got = checked(&[("a.toml", a), ("b.toml", b)]);
    assert_eq!(got[0], "a.toml:5:1: allow.a/r is declared twice, first at a.toml:2");
    assert_eq!(got[1], "b.toml:2:1: service.a is declared twice, first at a.toml:1");
    assert!(got[2].starts_with(
        "b.toml:5:1: the same rule stands twice, first at b.toml:3 (its id is deny.a/h-"
    ));
    assert_eq!(got.len(), 3);
    let other = "[[deny.a]]\nname = \"r\"\nfrom = [\"b\"]";
    assert_eq!(
        checked(&[("a", "[[allow.a]]\nname = \"r\"\nfrom = [\"b\"]"), ("b", other)]),
        [""; 0]
    );
    let twice = checked(&[("a", ""), ("a", "")]);
    assert_eq!(twice, ["a:1:1: file \"a\" is given twice"]);
}

#[test]
fn http_needs_a_protocol() {
    let rule = "[[deny.a]]\nname = \"r\"\nfrom = [\"b\"]\nhttp = [{}]";
    let route = "[[service.a.route]]\nto = [{}]";
    let tail = "expected protocol = \"http\", \"http2\" or \"grpc\"";
    let opaque = format!("service.a declares no protocol and is opaque tcp, {tail}");
    assert_eq!(
        checked(&[("x", rule)]),
        [format!("x:1:1: deny.a/r has HTTP matches, but {opaque}")]
    );
    assert_eq!(checked(&[("x", route)]), [format!("x:1:1: service.a has a route, but {opaque}")]);
    let tcp = "[service.a]\nprotocol = \"tcp\"";
    let why = format!("service.a (y:1) has protocol = \"tcp\", {tail}");
    assert_eq!(
        checked(&[("x", rule), ("y", tcp)]),
        [format!("x:1:1: deny.a/r has HTTP matches, but {why}")]
    );
    for protocol in ["http", "http2", "grpc"] {
        let service = format!("[service.a]\nprotocol = \"{protocol}\"");
        assert_eq!(checked(&[("x", rule), ("y", &service)]), [""; 0]);
    }
}

#[test]
fn routes_go_where_something_is() {
    let a = "[service.a]\nprotocol = \"http\"\n[service.a.subset.v1]\nmeta = { v = \"1\" }\n";
    let to = |to: &str| format!("{a}[[service.a.route]]\nto = [{to}]");
    let b = "[service.b]\nprotocol = \"grpc\"";
    assert_eq!(
        checked(&[("x", &to("{ subset = \"v1\" }, { service = \"b\" }")), ("y", b)]),
        [""; 0]
    );
    for (text, want) in [
        ("{ subset = \"v2\" }", "route sends requests to subset v2, but service.a has only v1"),
        (
            "{ service = \"b\", subset = \"v1\" }",
            "route sends requests to subset v1, but service.b has no subsets",
        ),
        (
            "{ service = \"c\" }",
            "route sends requests to c, but service.c declares no protocol and is opaque tcp, expected protocol = \"http\", \"http2\" or \"grpc\"",
        ),
    ] {
        assert_eq!(checked(&[("x", &to(text)), ("y", b)]), [format!("x:5:1: {want}")], "{text}");
    }
}

#[test]
fn the_whole_is_bounded() {
    let rules = "[[deny.a]]\nfrom = [\"*\"]\n".repeat(limits::RULES_PER_SERVICE_MAX);
    let got = checked(&[("x", &rules), ("y", "[[deny.a]]\nfrom = [\"b\"]")]);
    assert_eq!(got.len(), limits::DIAGNOSTICS_MAX);
    let names = |from: usize, n: usize| -> String {
        (from..from + n).map(|i| format!("[[deny.a]]\nname = \"r{i}\"\nfrom = [\"*\"]\n")).collect()
    };
    let max = limits::RULES_PER_SERVICE_MAX;
    let got = checked(&[("x", &names(0, max)), ("y", &names(max, 2))]);
    assert_eq!(got, ["y:1:1: deny.a has more than 1024 rules"]);
    let file = |name: &str, len: usize| PolicyFile {
        name: name.to_owned(),
        text: "#".repeat(len),
        objects: Vec::new(),
    };
    let big = [file("a", limits::POLICY_APPLY_BYTES_MAX), file("b", 1)];
    assert!(check(&big)[0].message.starts_with("policy has 8388609 bytes in all"));
    assert_eq!(check(&big)[0].file, "b");
    let many: Vec<PolicyFile> =
        (0..=limits::POLICY_FILES_MAX).map(|i| file(&i.to_string(), 0)).collect();
    assert_eq!(check(&many)[0].message, "policy has 4097 files, expected at most 4096");
}
