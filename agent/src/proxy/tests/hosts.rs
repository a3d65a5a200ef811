//! Hosts end to end: what is routed by is what the application gets as Host, in one spelling.

use mesh_core::policy::Source;

use super::super::LocalCallers;
use super::paths::{Judged, Witness, change, rows};
use super::world::{Client, service};

const HOSTS: &str = include_str!("../../../../crates/mesh-core/src/path/tests/hosts.txt");

fn get(host: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn refused() -> Judged {
    Judged { status: 400, seen: Vec::new(), logged: Vec::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_host_the_application_gets_the_one_spelling() {
    let witness = Witness::new("hosts", LocalCallers::Deny).await;
    witness.rule(&[("allow", Source::Any, &[])]);
    let (mut good, mut bad) = (0, 0);
    for (host, want) in rows(HOSTS) {
        let judged = witness.judge(get(&host).as_bytes()).await;
        let Some(want) = want else {
            assert_eq!(judged, refused(), "{host:?}");
            bad += 1;
            continue;
        };
        assert_eq!((judged.status, judged.seen.len()), (200, 1), "{host:?}: {judged:?}");
        let port = host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let port = port.filter(|_| !host.ends_with(']'));
        let want = port.map_or(want.to_owned(), |port| format!("{want}:{port}"));
        assert_eq!(judged.seen[0].fields["host"], want, "{host:?}");
        good += 1;
    }
    assert!(good >= 35 && bad >= 100, "{good} and {bad} rows");
    let longest = format!("{}a", "a.".repeat(127));
    assert_eq!(witness.judge(get(&longest).as_bytes()).await.status, 200);
    assert_eq!(witness.judge(get(&format!("{longest}.")).as_bytes()).await, refused());
    witness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_host_there_is_one_and_it_is_the_targets() {
    let witness = Witness::new("targets", LocalCallers::Deny).await;
    witness.rule(&[("allow", Source::Any, &[])]);
    // of all of these the first line is the request line
    let cases: &[(&str, &str, Option<&str>)] = &[
        ("same", "GET http://orders/a|Host: orders", Some("orders")),
        ("same but for case", "GET http://ORDERS/a|Host: orders", Some("orders")),
        ("same port", "GET http://orders:80/a|Host: orders:80", Some("orders:80")),
        ("https", "GET https://orders/a|Host: orders", Some("orders")),
        ("trailing dots", "GET http://orders./a|Host: orders.", Some("orders")),
        ("another name", "GET http://other/a|Host: orders", None),
        ("another port", "GET http://orders:80/a|Host: orders:81", None),
        ("a port more", "GET http://orders:80/a|Host: orders", None),
        ("a port less", "GET http://orders/a|Host: orders:80", None),
        ("a dot more", "GET http://orders./a|Host: orders", None),
        ("a prefix", "GET http://order/a|Host: orders", None),
        ("no Host beside a target", "GET http://orders/a", None),
        ("an empty Host beside a target", "GET http://orders/a|Host:", None),
        ("an empty name in the target", "GET http:///a|Host: orders", None),
        ("user information", "GET http://u@orders/a|Host: orders", None),
        ("user information twice", "GET http://u@orders/a|Host: u@orders", None),
        ("two Hosts", "GET /a|Host: orders|Host: other", None),
        ("the same Host twice", "GET /a|Host: orders|Host: orders", None),
        ("Hosts in other cases", "GET /a|Host: orders|hOST: orders", None),
        ("an empty second Host", "GET /a|Host: orders|Host:", None),
        ("an empty first Host", "GET /a|Host:|Host: orders", None),
        ("a list", "GET /a|Host: orders, orders", None),
        ("no Host", "GET /a", None),
        ("no Host but a name like it", "GET /a|Host-: orders|X-Host: orders", None),
        ("folded", "GET /a|Host:| orders", None),
        ("folded on", "GET /a|Host: orders| .other", None),
        ("spaces around", "GET /a|Host: \t orders \t", Some("orders")),
        ("space before the colon", "GET /a|Host : orders", None),
        ("a claim beside", "GET /a|Host: orders|X-Forwarded-Host: other", Some("orders")),
        ("named by Connection", "GET /a|Host: orders|Connection: host", Some("orders")),
    ];
    for (name, lines, want) in cases {
        let lines = lines.replacen('|', " HTTP/1.1|", 1);
        let first = if lines.contains('|') { lines } else { format!("{lines} HTTP/1.1") };
        let request = format!("{}\r\n\r\n", first.replace('|', "\r\n"));
        let judged = witness.judge(request.as_bytes()).await;
        let Some(want) = want else {
            assert_eq!(judged, refused(), "{name}");
            continue;
        };
        assert_eq!((judged.status, judged.seen.len()), (200, 1), "{name}: {judged:?}");
        assert_eq!(judged.seen[0].fields["host"], *want, "{name}");
        assert_eq!(judged.seen[0].line, "GET /a HTTP/1.1", "{name}");
    }
    witness.stop().await;
}

/// On the listener that routes by Host, every spelling of a name goes one way, and by one rule.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_host_routing_goes_by_the_one_spelling() {
    let witness = Witness::new("named", LocalCallers::Node).await;
    let world = &witness.world;
    let http = world.n1.handle.http().unwrap();
    change(&world.n2, |next| {
        let of = std::sync::Arc::make_mut(next.access.get_mut(&service("orders")).unwrap());
        of.rules[0].from = vec![Source::Any];
    });
    let mut judged = 0;
    for (host, want) in rows(HOSTS) {
        let want_code = match want {
            Some("orders" | "orders.mesh") => "200",
            Some(other) if other.parse::<mesh_core::name::ServiceName>().is_ok() => continue,
            Some(_) => "404",
            None => "400",
        };
        let (head, body) = Client::open(http).await.ask(&get(&host)).await.unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {want_code}")), "{host:?}: {head}");
        let app = body.starts_with("orders\nGET /a HTTP/1.1\r\n");
        assert_eq!(app, want_code == "200", "{host:?}: {body}");
        judged += 1;
    }
    assert!(judged > 100, "{judged} rows");
    world.deny("orders");
    for host in ["orders", "ORDERS", "Orders.", "orders.MESH", "orders.mesh.:80", "orders:00080"] {
        let (head, _) = Client::open(http).await.ask(&get(host)).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 403"), "{host}: {head}");
    }
    witness.stop().await;
}
