use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::policy::{
    AccessMode, HeaderMatch, HttpMatch, Method, Route, RouteMatch, RuleId, ServicePolicy, Subset,
    Target,
};

fn name() -> impl Strategy<Value = String> {
    "s[a-z0-9]{1,4}"
}

fn method() -> impl Strategy<Value = Method> {
    "[A-Z]{1,6}".prop_map(|text| text.parse().unwrap())
}

fn path() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        Just(PathMatch::Any),
        "(/[a-z0-9'._~$-]{3}){1,3}/?".prop_map(|path| PathMatch::exact(&path).unwrap()),
        "(/[a-z0-9'._~$-]{3}){1,3}/?".prop_map(|path| PathMatch::prefix(&path).unwrap()),
    ]
}

fn headers() -> impl Strategy<Value = Vec<HeaderMatch>> {
    let value = "[!-~]([ -~]{0,8}[!-~])?";
    prop::collection::btree_map("[a-z][a-z0-9-]{0,6}", value, 0..3).prop_map(|pairs| {
        pairs.iter().map(|(name, value)| HeaderMatch::new(name, value).unwrap()).collect()
    })
}

fn http() -> impl Strategy<Value = HttpMatch> {
    (prop::collection::vec(method(), 0..3), path(), headers())
        .prop_map(|(methods, path, headers)| HttpMatch { methods, path, headers })
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        Just(Source::Any),
        (name(), prop::option::of(name())).prop_map(|(service, dc)| Source::Service {
            service: service.parse().unwrap(),
            dc: dc.map(|dc| dc.parse().unwrap()),
        }),
        name().prop_map(|node| Source::Node(node.parse().unwrap())),
        name().prop_map(|s| {
            Source::Spiffe(format!("spiffe://td/ns/default/dc/dc1/svc/{s}").parse().unwrap())
        }),
    ]
}

fn rule() -> impl Strategy<Value = PolicyObject> {
    let from = prop::collection::vec(source(), 1..4);
    let http = prop::collection::vec(http(), 0..3);
    (any::<bool>(), name(), prop::option::of(name()), from, http, any::<bool>()).prop_map(
        |(allow, service, given, from, http, audit)| {
            let kind = if allow { RuleKind::Allow } else { RuleKind::Deny };
            let named = given.is_some();
            let name = given.as_deref().unwrap_or("x").parse().unwrap();
            let id = RuleId { kind, service: service.parse().unwrap(), name };
            let mode = if audit { Mode::Audit } else { Mode::Enforce };
            let mut rule = Rule { id, named, from, http, mode, origin: Origin::default() };
            if !named {
                rule.id.name = content_name(&rule);
            }
            PolicyObject::Rule(rule)
        },
    )
}

fn route() -> impl Strategy<Value = Route> {
    let target = (prop::option::of(name()), prop::option::of(name()), 1..=1_000_000_u32).prop_map(
        |(service, subset, weight)| Target {
            service: service.map(|s| s.parse().unwrap()),
            subset: subset.map(|s| s.parse().unwrap()),
            weight,
        },
    );
    let to = prop::collection::vec(target, 1..3);
    (http(), to, prop::option::of(1..=3_600_000_u64)).prop_map(|(matches, to, timeout_ms)| {
        let HttpMatch { methods, path, headers } = matches;
        let matches = RouteMatch { path, methods, headers };
        Route { matches, to, timeout_ms, origin: Origin::default() }
    })
}

fn service() -> impl Strategy<Value = ServicePolicy> {
    let protocol = prop::option::of(prop::sample::select(Protocol::ALL.to_vec()));
    let text = "[^\\p{Cc}]{1,8}";
    let meta = prop::collection::btree_map(text, text, 1..4).prop_map(|meta| Subset { meta });
    let access =
        prop_oneof![Just(None), Just(Some(AccessMode::Audit)), Just(Some(AccessMode::Enforce))];
    (
        name(),
        protocol,
        prop::option::of(1..=3_600_000_u64),
        prop::option::of(1..=60_000_u64),
        access,
        prop::collection::btree_map(name(), meta, 0..3),
        prop::collection::vec(route(), 0..3),
    )
        .prop_map(
            |(name, protocol, timeout_ms, connect_timeout_ms, access, subsets, routes)| {
                ServicePolicy {
                    service: name.parse().unwrap(),
                    protocol,
                    timeout_ms,
                    connect_timeout_ms,
                    access,
                    subsets: subsets
                        .into_iter()
                        .map(|(s, body)| (s.parse().unwrap(), body))
                        .collect(),
                    routes,
                    origin: Origin::default(),
                }
            },
        )
}

/// Services of different names, then rules: what one file can hold.
fn objects() -> impl Strategy<Value = Vec<PolicyObject>> {
    let services = prop::collection::vec(service(), 0..3);
    (services, prop::collection::vec(rule(), 0..5)).prop_map(|(services, rules)| {
        let services: BTreeMap<String, ServicePolicy> =
            services.into_iter().map(|s| (s.service.to_string(), s)).collect();
        services.into_values().map(PolicyObject::Service).chain(rules).collect()
    })
}

/// `text` with some characters replaced, removed or repeated.
fn mutated(text: &str, edits: &[(usize, u8, char)]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for (at, kind, c) in edits {
        let at = at % chars.len().max(1);
        match kind % 4 {
            0 if at < chars.len() => chars[at] = *c,
            1 if at < chars.len() => drop(chars.remove(at)),
            2 => chars.truncate(at),
            _ => chars.insert(at.min(chars.len()), *c),
        }
    }
    chars.into_iter().collect()
}

proptest! {
    #[test]
    fn printed_objects_parse_back(objects in objects()) {
        let text = print(&objects);
        let file = parse("a", &text);
        prop_assert!(file.is_ok(), "{}\n{}", text, file.unwrap_err()[0]);
        prop_assert_eq!(unplaced(file.unwrap().objects), objects);
    }

    #[test]
    fn any_text_parses_or_is_refused(text in "(?s).{0,200}") {
        if let Err(errors) = parse("a", &text) {
            prop_assert!(!errors.is_empty());
            prop_assert!(errors.iter().all(|e| e.line >= 1 && e.column >= 1 && e.width >= 1));
        }
    }

    #[test]
    fn any_bytes_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_bytes("a", &bytes);
    }

    #[test]
    fn texts_dense_in_syntax_parse_or_are_refused(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "[", "]", "[[", "]]", "{", "}", "=", ".", ",", "\n", "\r\n", "\"", "'", "\"\"\"", "#",
            " ", "service", "allow", "a", "route", "from", "to", "1", "nan", "1979-05-27", "true",
            "\\", "\u{0}", "é",
        ]), 0..60)
    ) {
        let _ = parse("a", &pieces.concat());
    }

    #[test]
    fn mutated_files_parse_or_are_refused(
        edits in prop::collection::vec((any::<usize>(), any::<u8>(), prop_oneof![
            prop::sample::select("[]{}=.,\"'#\n\r \\\u{0}é1-".chars().collect::<Vec<_>>()),
            any::<char>(),
        ]), 1..6)
    ) {
        let text = mutated(FULL, &edits);
        match parse("a", &text) {
            // What is still valid must hold up to printing, and checks must cope with it.
            Ok(file) => {
                let again = parse("a", &print(&file.objects)).unwrap();
                prop_assert_eq!(unplaced(again.objects), unplaced(file.objects.clone()));
                let _ = check(&[file]);
            }
            Err(errors) => {
                let lines = text.split('\n').count();
                prop_assert!(errors.iter().all(|e| (e.line as usize) <= lines.max(1)));
                for error in &errors {
                    let _ = error.to_string();
                }
            }
        }
    }
}
