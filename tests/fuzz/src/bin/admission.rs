//! A caller's bytes, cut anywhere, through the strict server and admission: every request that is
//! let through is one by the second reading too, with the same body; and what is plain passes.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use mesh_agent::edge::http1;
use mesh_agent::fuzzing::Admitted;
use mesh_fuzz::served::{App, Seen, WAITS, Wire, run};
use mesh_fuzz::{host, http1 as second, path};
use tokio_util::sync::CancellationToken;

// the first byte says where the rest is cut
fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((cut, bytes)) = data.split_first() else { return Corpus::Reject };
    let app = App::default();
    let wire = Wire::new(bytes, usize::from(*cut) + 1);
    run(http1::serve(wire, &app, &WAITS, &CancellationToken::new()));
    let seen = app.seen();
    let (wanted, ends) = second::requests(bytes);
    assert!(seen.len() <= wanted.len(), "more than {} requests: {seen:?}", wanted.len());
    for (seen, wanted) in seen.iter().zip(&wanted) {
        same(seen, wanted);
    }
    if ends && wanted.iter().all(is_plain) {
        assert_eq!(seen.len(), wanted.len(), "not let through: {wanted:?}");
        assert!(seen.iter().all(|seen| seen.admitted.is_some()), "{seen:?}");
    }
    Corpus::Keep
});

fn same(seen: &Seen, wanted: &second::Request) {
    let head = &seen.head;
    assert_eq!(head.method().as_str(), wanted.method);
    assert_eq!(head.version() == http::Version::HTTP_11, wanted.one_one);
    assert_eq!(head.headers().len(), wanted.fields.len());
    for name in head.headers().keys() {
        let values = head.headers().get_all(name).iter().map(|value| value.as_bytes());
        assert!(values.eq(wanted.values(name.as_str())), "{name}: {seen:?} {wanted:?}");
    }
    assert!(wanted.body.starts_with(&seen.body), "{seen:?} {wanted:?}");
    if seen.whole {
        assert!(wanted.whole && seen.body == wanted.body, "{seen:?} {wanted:?}");
    }
    if let Some(admitted) = &seen.admitted {
        same_admitted(admitted, wanted);
    }
}

/// What was admitted is what the second reading makes of the target and of the one Host.
fn same_admitted(admitted: &Admitted, wanted: &second::Request) {
    let rules = |b: u8| b.is_ascii_uppercase() || b == b'-';
    assert!(wanted.method.bytes().all(rules) && wanted.method != "CONNECT", "{wanted:?}");
    let hosts: Vec<&[u8]> = wanted.values("host").collect();
    let (authority, target) = match wanted.target.split_once("://") {
        Some((_, rest)) if !wanted.target.starts_with('/') => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            (Some(&rest[..end]), &rest[end..])
        }
        _ => (None, &wanted.target[..]),
    };
    assert!(hosts.len() == 1 || (!wanted.one_one && hosts.is_empty() && authority.is_some()));
    let given = hosts.first().map(|host| std::str::from_utf8(host).expect("an ASCII host"));
    let named = authority.or(given).expect("a host");
    assert!(given.is_none_or(|given| given.eq_ignore_ascii_case(named)), "{wanted:?}");
    let (name, port) = host::canonical(named).expect("a host that is refused");
    assert_eq!(admitted.host, name);
    let port = port.map_or(String::new(), |port| format!(":{port}"));
    assert_eq!(admitted.authority, format!("{name}{port}"));
    let (before, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let before = if before.is_empty() { "/" } else { before };
    assert_eq!(Some(&admitted.path), path::canonical(before).as_ref(), "{wanted:?}");
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    assert_eq!(admitted.path_and_query, format!("{}{query}", admitted.path));
}

/// Whether nothing of the request is a matter of taste, so that it must pass.
fn is_plain(request: &second::Request) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-_~".contains(&b);
    let own = ["connection", "content-length", "expect", "host", "transfer-encoding", "upgrade"];
    let others = request.fields.iter().filter(|(name, _)| own.contains(&name.as_str()));
    let hosts: Vec<&[u8]> = request.values("host").collect();
    let codings = request.values("transfer-encoding").count();
    request.whole
        && request.blank <= 1
        && request.one_one
        && request.method.bytes().all(|b| b.is_ascii_uppercase())
        && request.method.len() <= 32
        && request.method != "CONNECT"
        && request.target.starts_with('/')
        && request.target.bytes().all(plain)
        && request.fields.len() <= 100
        && request.fields.iter().all(|(name, _)| name.len() <= 255)
        && hosts.len() == 1
        && hosts[0].iter().all(|b| b.is_ascii_lowercase())
        && (1..=63).contains(&hosts[0].len())
        && codings == 0
        && others.count() <= 2
        && request.values("expect").count() == 0
        && request.values("upgrade").count() == 0
        && request.values("connection").count() == 0
}
