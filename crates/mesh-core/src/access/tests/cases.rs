//! Named cases.

use super::*;

const READERS: &str = "[[allow.orders]]\nname = \"readers\"\nfrom = [\"web\"]\n";

#[test]
fn s_deny_nothing_matching_is_denied_and_a_deny_wins() {
    let cases = [
        ("no rule", "", "web", false, "default"),
        ("another caller's allow", READERS, "batch", false, "default"),
        ("allowed", READERS, "web", true, "allow.orders/readers"),
        (
            "deny wins",
            "[[allow.orders]]\nname = \"all\"\nfrom = [\"*\"]\n[[deny.orders]]\nname = \"no\"\nfrom = [\"web\"]\n",
            "web",
            false,
            "deny.orders/no",
        ),
        (
            "a deny of another",
            "[[allow.orders]]\nname = \"all\"\nfrom = [\"*\"]\n[[deny.orders]]\nname = \"no\"\nfrom = [\"web\"]\n",
            "batch",
            true,
            "allow.orders/all",
        ),
    ];
    for (case, toml, caller, allowed, reason) in cases {
        let decision = ask(&access(toml), &service(caller), None);
        assert_eq!((decision.allowed, decision.reason.id().as_str()), (allowed, reason), "{case}");
        assert!(decision.audited.is_empty(), "{case}");
    }
}

#[test]
fn audit_modes_count_and_decide_nothing() {
    let allow = "[[allow.orders]]\nname = \"a\"\nfrom = [\"*\"]\n";
    let deny = "[[deny.orders]]\nname = \"d\"\nfrom = [\"*\"]\n";
    let audit = "mode = \"audit\"\n";
    let passes = "[service.orders]\naccess = \"audit\"\n";
    let cases: &[(&str, String, bool, &str, &[&str])] = &[
        (
            "a deny counts",
            format!("{allow}{deny}{audit}"),
            true,
            "allow.orders/a",
            &["deny.orders/d"],
        ),
        (
            "an allow grants nothing",
            format!("{allow}{audit}"),
            false,
            "default",
            &["allow.orders/a"],
        ),
        ("nor against a deny", format!("{deny}{allow}{audit}"), false, "deny.orders/d", &[]),
        ("a deny of what no rule allows", format!("{deny}{audit}"), false, "default", &[]),
        ("the service audits", passes.to_owned(), true, "audit", &[]),
        ("also its denies", format!("{passes}{deny}"), true, "deny.orders/d", &[]),
        (
            "what an allow would",
            format!("{passes}{allow}{audit}"),
            true,
            "audit",
            &["allow.orders/a"],
        ),
    ];
    for (case, toml, allowed, reason, audited) in cases {
        let decision = ask(&access(toml), &service("web"), None);
        assert_eq!(
            (decision.allowed, decision.reason.id().as_str()),
            (*allowed, *reason),
            "{case}"
        );
        let ids: Vec<_> = decision.audited.iter().map(|rule| rule.id.to_string()).collect();
        assert_eq!(ids, *audited, "{case}");
    }
}

#[test]
fn the_meshs_default_is_overruled_by_the_service() {
    let mut world = World::with_access(AccessMode::Audit);
    let audits = crate::compile::access(&world.state, &name("orders")).unwrap();
    assert!(ask(&audits, &service("web"), None).allowed);
    world.policy("o.toml", "[service.orders]\naccess = \"enforce\"\n");
    let enforces = crate::compile::access(&world.state, &name("orders")).unwrap();
    assert!(!ask(&enforces, &service("web"), None).allowed);
}

#[test]
fn s_match_compares_literally() {
    let access = http_access(
        "[[allow.orders]]\nfrom = [\"web\"]\nhttp = [{ methods = [\"GET\"], path_prefix = \"/v2.0/a*\" }]\n",
    );
    let cases = [
        ("web", "GET", "/v2.0/a*", true),
        ("web", "GET", "/v2.0/a*/x", true),
        ("web", "GET", "/v2x0/a*", false),
        ("web", "GET", "/v2.0/ab", false),
        ("web", "GET", "/v2.0/a*b", false),
        ("web", "GET", "/V2.0/a*", false),
        ("web", "GET", "/", false),
        ("web", "get", "/v2.0/a*", false),
        ("web", "GETX", "/v2.0/a*", false),
        ("web-2", "GET", "/v2.0/a*", false),
        ("we", "GET", "/v2.0/a*", false),
    ];
    for (caller, method, path, want) in cases {
        let http = HttpRequest { method, path, headers: &[] };
        let got = ask(&access, &service(caller), Some(http)).allowed;
        assert_eq!(got, want, "{caller} {method} {path}");
    }
}

#[test]
fn s_match_names_have_one_alphabet() {
    // a Cyrillic e, a full stop, a full-width letter: none can be a name, in policy or identity
    for other in ["w\u{0435}b", "we.b", "\u{ff57}eb", "Web", "web\u{200b}"] {
        let toml = format!("[[allow.orders]]\nfrom = [\"{other}\"]\n");
        assert!(text::parse("a.toml", &toml).is_err(), "policy took {other:?}");
        let id = format!("spiffe://td.mesh.internal/ns/default/dc/dc1/svc/{other}");
        assert!(id.parse::<SpiffeId>().is_err(), "an identity took {other:?}");
    }
}

#[test]
fn s_multihdr_looks_at_every_value() {
    let allow = http_access(
        "[[allow.orders]]\nfrom = [\"*\"]\nhttp = [{ header = { \"x-env\" = \"prod\" } }]\n",
    );
    let deny = http_access(
        "[[allow.orders]]\nfrom = [\"*\"]\n[[deny.orders]]\nfrom = [\"*\"]\nhttp = [{ header = { \"x-env\" = \"prod\" } }]\n",
    );
    let pair = http_access(
        "[[allow.orders]]\nfrom = [\"*\"]\n[[deny.orders]]\nfrom = [\"*\"]\nhttp = [{ header = { \"x-env\" = \"a, b\" } }]\n",
    );
    // (values of x-env, the allow grants, the deny refuses, the deny of the pair refuses)
    let cases: &[(&[&[u8]], bool, bool, bool)] = &[
        (&[], false, false, false),
        (&[b"prod"], true, true, false),
        (&[b"prod", b"prod"], true, true, false),
        (&[b"test", b"prod"], false, true, false),
        (&[b"prod", b"test"], false, true, false),
        (&[b"test, prod"], false, true, false),
        (&[b"prod,test"], false, true, false),
        (&[b"test"], false, false, false),
        (&[b"Prod"], false, false, false),
        (&[b"prod "], false, true, false),
        (&[b""], false, false, false),
        (&[b"a", b"b"], false, false, true),
        (&[b"a,b"], false, false, true),
        (&[b"b", b"a"], false, false, false),
    ];
    for (values, grants, refuses, refuses_pair) in cases {
        let mut headers: Vec<(&str, &[u8])> = values.iter().map(|v| ("x-env", *v)).collect();
        headers.push(("x-other", b"prod"));
        let allowed = |access| ask(access, &service("web"), get("/", &headers)).allowed;
        assert_eq!(allowed(&allow), *grants, "allow with {values:?}");
        assert_eq!(allowed(&deny), !refuses, "deny with {values:?}");
        assert_eq!(allowed(&pair), !refuses_pair, "deny of the pair with {values:?}");
    }
}

#[test]
fn s_failclosed_values_that_are_no_text_grant_nothing() {
    let allow = http_access(
        "[[allow.orders]]\nfrom = [\"*\"]\nhttp = [{ header = { \"x-env\" = \"prod\" } }]\n",
    );
    for value in [&b"prod\xff"[..], b"\xc0\xafprod", b"prod\0", b"\xff"] {
        let headers = [("x-env", value)];
        assert!(!ask(&allow, &service("web"), get("/", &headers)).allowed, "{value:?}");
        let two = [("x-env", &b"prod"[..]), ("x-env", value)];
        assert!(!ask(&allow, &service("web"), get("/", &two)).allowed, "prod and {value:?}");
    }
}

#[test]
fn s_failclosed_an_opaque_connection_passes_no_http_rule() {
    let narrow = "from = [\"web\"]\nhttp = [{ methods = [\"GET\"] }]\n";
    let allow = http_access(&format!("[[allow.orders]]\n{narrow}"));
    assert!(ask(&allow, &service("web"), get("/", &[])).allowed);
    assert!(!ask(&allow, &service("web"), None).allowed);
    let deny = http_access(&format!("[[allow.orders]]\nfrom = [\"*\"]\n[[deny.orders]]\n{narrow}"));
    assert!(!ask(&deny, &service("web"), None).allowed);
    assert!(ask(&deny, &service("batch"), None).allowed);
}

#[test]
fn sources_name_whom_they_say() {
    let foreign: SpiffeId = name("spiffe://td2.mesh.internal/ns/default/dc/dc1/svc/web");
    let callers = [
        ("service", service("web")),
        ("service elsewhere", id("ns/default/dc/dc2/svc/web")),
        ("node", id("dc/dc1/node/web")),
        ("server", id("dc/dc1/server/web")),
        ("ca", id("ca/service")),
        ("foreign", foreign),
    ];
    let cases: &[(&str, &[&str])] = &[
        ("*", &["service", "service elsewhere", "node"]),
        ("web", &["service", "service elsewhere"]),
        ("web@dc2", &["service elsewhere"]),
        ("node:web", &["node"]),
        ("node:web-2", &[]),
        ("spiffe://td.mesh.internal/dc/dc1/server/web", &["server"]),
        ("spiffe://td2.mesh.internal/ns/default/dc/dc1/svc/web", &["foreign"]),
    ];
    for (source, allowed) in cases {
        let access = access(&format!("[[allow.orders]]\nfrom = [\"{source}\"]\n"));
        for (kind, caller) in &callers {
            let got = ask(&access, caller, None).allowed;
            assert_eq!(got, allowed.contains(kind), "{source} on {kind}");
        }
    }
}

#[test]
fn a_deny_of_all_denies_also_whom_an_allow_names() {
    let server = id("dc/dc1/server/ctl-1");
    let toml = format!("[[allow.orders]]\nfrom = [\"{server}\"]\n");
    assert!(ask(&access(&toml), &server, None).allowed);
    let toml = format!("{toml}[[deny.orders]]\nfrom = [\"*\"]\n");
    assert!(!ask(&access(&toml), &server, None).allowed);
}
