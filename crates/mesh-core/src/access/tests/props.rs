//! Properties over drawn rules and requests.

use proptest::prelude::*;

use super::*;
use crate::policy::Method;
use crate::testing::file;

fn source() -> impl Strategy<Value = Source> {
    let service = |service: &str, dc: Option<&str>| Source::Service {
        service: name(service),
        dc: dc.map(name),
    };
    prop_oneof![
        Just(Source::Any),
        Just(service("web", None)),
        Just(service("web", Some("dc2"))),
        Just(service("batch", None)),
        Just(Source::Node(name("n-1"))),
        Just(Source::Spiffe(super::service("web"))),
        Just(Source::Spiffe(id("dc/dc1/server/ctl-1"))),
        Just(Source::Spiffe(name("spiffe://td2/ns/default/dc/dc1/svc/web"))),
    ]
}

fn caller() -> impl Strategy<Value = SpiffeId> {
    prop_oneof![
        Just(service("web")),
        Just(service("batch")),
        Just(id("ns/default/dc/dc2/svc/web")),
        Just(id("dc/dc1/node/n-1")),
        Just(id("dc/dc1/node/web")),
        Just(id("dc/dc1/server/ctl-1")),
        Just(id("ca/service")),
        Just(name("spiffe://td2/ns/default/dc/dc1/svc/web")),
    ]
}

const PATHS: [&str; 6] = ["/", "/v2", "/v2/", "/v2/x", "/v20", "/v1/v2"];
const VALUES: [&[u8]; 7] = [b"1", b"2", b"1,2", b"2, 1", b" 1", b"\xff", b""];

fn path_match() -> impl Strategy<Value = PathMatch> {
    let path = prop::sample::select(&PATHS[..]);
    prop_oneof![
        Just(PathMatch::Any),
        path.clone().prop_map(|path| PathMatch::exact(path).unwrap()),
        path.prop_map(|path| PathMatch::prefix(path).unwrap()),
    ]
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let method = prop::sample::select(vec!["GET", "POST"]).prop_map(name::<Method>);
    let header =
        (prop::sample::select(vec!["x-a", "x-b"]), prop::sample::select(vec!["1", "1,2", ""]))
            .prop_map(|(key, value)| HeaderMatch::new(key, value).unwrap());
    (prop::collection::vec(method, 0..2), path_match(), prop::collection::vec(header, 0..3))
        .prop_map(|(methods, path, headers)| HttpMatch { methods, path, headers })
}

fn rule(kind: RuleKind) -> impl Strategy<Value = CompiledRule> {
    let mode = prop_oneof![3 => Just(Mode::Enforce), 1 => Just(Mode::Audit)];
    let from = prop::collection::vec(source(), 1..3);
    (from, prop::collection::vec(http_match(), 0..3), mode, 0..1000_u32).prop_map(
        move |(from, http, mode, n)| CompiledRule {
            id: RuleId { kind, service: name("orders"), name: name(&format!("r{n}")) },
            from,
            http,
            mode,
            origin: Origin::default(),
            version: 1,
        },
    )
}

fn any_rule() -> impl Strategy<Value = CompiledRule> {
    prop_oneof![2 => rule(RuleKind::Allow), 1 => rule(RuleKind::Deny)]
}

fn any_access() -> impl Strategy<Value = ServiceAccess> {
    let mode = prop_oneof![3 => Just(AccessMode::Enforce), 1 => Just(AccessMode::Audit)];
    (prop::collection::vec(any_rule(), 0..6), mode).prop_map(|(mut rules, mode)| {
        rules.sort_by_key(|rule| (rule.id.kind == RuleKind::Allow, rule.id.clone()));
        ServiceAccess { mode, rules, ..access("") }
    })
}

type Headers = Vec<(&'static str, &'static [u8])>;

#[derive(Clone, Debug)]
struct Asked {
    caller: SpiffeId,
    http: Option<(&'static str, &'static str, Headers)>,
}

impl Asked {
    fn of(&self, access: &ServiceAccess, check: impl Fn(&ServiceAccess, &AccessRequest<'_>)) {
        let http = self.http.as_ref();
        let http = http.map(|(method, path, headers)| HttpRequest { method, path, headers });
        check(access, &AccessRequest { caller: &self.caller, http });
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    let header = (prop::sample::select(vec!["x-a", "x-b"]), prop::sample::select(&VALUES[..]));
    let http = (
        prop::sample::select(vec!["GET", "POST", "get"]),
        prop::sample::select(&PATHS[..]),
        prop::collection::vec(header, 0..4),
    );
    (caller(), prop::option::weighted(0.8, http)).prop_map(|(caller, http)| Asked { caller, http })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decide_is_the_reference(access in any_access(), asked in asked()) {
        asked.of(&access, |access, request| {
            let decision = decide(access, request);
            assert_eq!(decision.allowed, reference::allowed(access, request));
            for rule in &access.rules {
                assert_eq!(matches(access, rule, request), reference::applies(rule, request), "{}", rule.id);
            }
        });
    }

    /// A rule in audit mode is named exactly if, put in force, it would turn the verdict alone.
    #[test]
    fn audited_rules_are_those_that_would_turn_the_verdict(access in any_access(), asked in asked()) {
        let mut seen = std::collections::BTreeSet::new();
        prop_assume!(access.rules.iter().all(|rule| seen.insert(rule.id.clone())));
        asked.of(&access, |access, request| {
            let decision = decide(access, request);
            let now = reference::allowed_by_rules(access, request);
            for (at, rule) in access.rules.iter().enumerate() {
                let mut other = access.clone();
                other.rules[at].mode = Mode::Enforce;
                let turns = reference::allowed_by_rules(&other, request) != now;
                let named = decision.audited.iter().any(|audited| audited.id == rule.id);
                assert_eq!(named, rule.mode == Mode::Audit && turns, "{}", rule.id);
            }
        });
    }

    #[test]
    fn an_allow_never_takes_away(access in any_access(), more in rule(RuleKind::Allow), at: prop::sample::Index, asked in asked()) {
        asked.of(&access, |access, request| {
            let mut wider = access.clone();
            wider.rules.insert(at.index(access.rules.len() + 1), more.clone());
            assert!(decide(&wider, request).allowed >= decide(access, request).allowed);
        });
    }

    #[test]
    fn a_deny_never_adds(access in any_access(), more in rule(RuleKind::Deny), at: prop::sample::Index, asked in asked()) {
        asked.of(&access, |access, request| {
            let mut narrower = access.clone();
            narrower.rules.insert(at.index(access.rules.len() + 1), more.clone());
            assert!(decide(&narrower, request).allowed <= decide(access, request).allowed);
        });
    }

    #[test]
    fn order_never_matters(
        (access, rules) in any_access().prop_flat_map(|access| {
            let rules = Just(access.rules.clone()).prop_shuffle();
            (Just(access), rules)
        }),
        asked in asked(),
    ) {
        asked.of(&access, |access, request| {
            let shuffled = ServiceAccess { rules: rules.clone(), ..access.clone() };
            assert_eq!(decide(&shuffled, request).allowed, decide(access, request).allowed);
        });
    }

    /// The compiled rules stand in one order, so reasons do not depend on files' order either.
    #[test]
    fn files_in_any_order_give_one_answer(names in Just(vec!["a", "b", "c", "d"]).prop_shuffle()) {
        let texts = [
            "[[allow.orders]]\nname = \"x\"\nfrom = [\"web\"]\n",
            "[[allow.orders]]\nname = \"y\"\nfrom = [\"*\"]\n",
            "[[deny.orders]]\nname = \"z\"\nfrom = [\"batch\"]\n",
            "[[deny.orders]]\nname = \"w\"\nfrom = [\"batch\"]\n",
        ];
        let mut world = World::new();
        let all = names.iter().zip(texts).map(|(name, toml)| file(name, toml)).collect();
        world.done(&crate::testing::admin(), crate::testing::files(all, &[]));
        let access = crate::compile::access(&world.state, &name("orders")).unwrap();
        prop_assert_eq!(ask(&access, &service("web"), None).reason.id(), "allow.orders/x");
        prop_assert_eq!(ask(&access, &service("batch"), None).reason.id(), "deny.orders/w");
    }
}
