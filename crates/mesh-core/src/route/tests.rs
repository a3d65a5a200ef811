//! First match, and exact shares.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use super::*;
use crate::testing::{World, name};

type Headers<'a> = &'a [(&'a str, &'a [u8])];

fn routes(routes: &str) -> ServiceRoutes {
    let mut world = World::new();
    let subset = |n: u8| format!("[service.orders.subset.v{n}]\nmeta = {{ v = \"{n}\" }}\n");
    let toml = format!("[service.orders]\nprotocol = \"http\"\n{}{}{routes}", subset(1), subset(2));
    world.policy("orders.toml", &toml);
    crate::compile::routes(&world.state, &name("orders")).unwrap()
}

fn shares(routes: &ServiceRoutes, draws: std::ops::Range<u64>) -> BTreeMap<String, u64> {
    let request = HttpRequest { method: "GET", path: "/", headers: &[] };
    let found = find(routes, Some(&request));
    let mut shares = BTreeMap::new();
    for draw in draws {
        let to = found.backend(draw).unwrap();
        let subset = to.subset.as_ref().map_or("all", |subset| subset.as_str());
        *shares.entry(subset.to_owned()).or_default() += 1;
    }
    shares
}

#[test]
fn weights_are_exact_over_a_cycle_of_draws() {
    let cases = [
        ("{ subset = \"v2\", weight = 10 }, { subset = \"v1\", weight = 90 }", 100, 10, 90),
        ("{ subset = \"v2\", weight = 1 }, { subset = \"v1\", weight = 2 }", 3, 1, 2),
        ("{ subset = \"v2\" }, { subset = \"v1\" }", 2, 1, 1),
        ("{ subset = \"v2\", weight = 0 }, { subset = \"v1\", weight = 7 }", 7, 0, 7),
        ("{ subset = \"v1\", weight = 7 }, { subset = \"v2\", weight = 0 }", 7, 0, 7),
    ];
    for (to, cycle, v2, v1) in cases {
        let routes = routes(&format!("[[service.orders.route]]\nto = [{to}]\n"));
        for start in [0, 1, cycle, 5 * cycle + 1, u64::MAX / cycle * cycle - cycle] {
            let shares = shares(&routes, start..start + cycle);
            let got = (shares.get("v2").copied(), shares.get("v1").copied());
            assert_eq!((got.0.unwrap_or(0), got.1.unwrap_or(0)), (v2, v1), "{to} from {start}");
        }
        assert!(find(&routes, None).backend(u64::MAX).is_none(), "opaque takes the default");
    }
}

#[test]
fn the_first_match_wins() {
    let routes = routes(
        r#"
[[service.orders.route]]
match = { path_prefix = "/v2", header = { x-canary = "1" } }
to = [{ subset = "v2" }]
timeout = "1s"

[[service.orders.route]]
match = { methods = ["GET", "HEAD"], path = "/v2/x" }
to = [{ subset = "v1" }]

[[service.orders.route]]
match = { path_prefix = "/v2" }
to = [{ service = "orders" }]
"#,
    );
    let canary: Headers<'_> = &[("x-canary", b"0"), ("x-canary", b"1")];
    let other: Headers<'_> = &[("x-canary", b"1, 0"), ("x-canary-2", b"1")];
    let cases: [(&str, &str, Headers<'_>, &str, u64); 6] = [
        ("GET", "/v2/x", canary, "service.orders/route[0]", 1000),
        ("GET", "/v2/x", other, "service.orders/route[1]", 15_000),
        ("HEAD", "/v2/x", &[], "service.orders/route[1]", 15_000),
        ("POST", "/v2/x", &[], "service.orders/route[2]", 15_000),
        ("GET", "/v2/x/", &[], "service.orders/route[2]", 15_000),
        ("GET", "/v20", canary, "service.orders/default", 15_000),
    ];
    for (method, path, headers, want, timeout) in cases {
        let found = find(&routes, Some(&HttpRequest { method, path, headers }));
        let reference = found.reference(&routes);
        assert_eq!(reference.id, want, "{method} {path} {headers:?}");
        assert_eq!(found.timeout_ms(&routes), timeout, "{method} {path}");
        assert_eq!(reference.origin.unwrap().file, "orders.toml");
        assert_eq!(reference.version, 1);
    }
}
