//! Known faults of other proxies, as calls through this one: each test names the cause in one line.

use std::time::Duration;

use mesh_core::policy::{HeaderMatch, HttpMatch, PathMatch, Source};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::super::LocalCallers;
use super::paths::{Witness, change, lines_of, on};
use super::world::{Client, World, service};

fn below(prefix: &str) -> HttpMatch {
    HttpMatch { path: PathMatch::prefix(prefix).unwrap(), ..HttpMatch::default() }
}

fn with(name: &str, value: &str) -> HttpMatch {
    HttpMatch { headers: vec![HeaderMatch::new(name, value).unwrap()], ..HttpMatch::default() }
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: orders\r\n\r\n").into_bytes()
}

/// A GET with these lines of fields, each ended by CRLF.
fn fields(lines: &[u8]) -> Vec<u8> {
    [b"GET /a HTTP/1.1\r\nHost: orders\r\n", lines, b"\r\n"].concat()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A world in which all is allowed but what is below `/admin`.
async fn without_admin(name: &str) -> Witness {
    let witness = Witness::new(name, LocalCallers::Deny).await;
    witness.rule(&[("allow", Source::Any, &[]), ("deny", Source::Any, &[below("/admin")])]);
    let judged = witness.judge(&get("/public")).await;
    assert_eq!((judged.status, judged.seen.len()), (200, 1), "what is not denied passes");
    witness
}

/// None of `targets` reaches the application; each is answered with one of `statuses`.
async fn none_passes(witness: &Witness, statuses: &[u16], targets: &[&str]) {
    for target in targets {
        let judged = witness.judge(&get(target)).await;
        assert!(statuses.contains(&judged.status), "{target}: {judged:?}");
        assert_eq!(judged.seen, [], "{target}");
    }
}

/// Istio: path rules compared the path before `//`, `%2f` and `%5c` were resolved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2021_31920_other_spellings_of_a_path() {
    let witness = without_admin("31920").await;
    let denied =
        ["/admin", "//admin", "/admin/", "/./admin", "/x/../admin", "/%61dmin", "/admin//x"];
    none_passes(&witness, &[403], &denied).await;
    let refused =
        ["/%2fadmin", "/admin%2fx", "/%5cadmin", "/x%5c..%5cadmin", "/\\admin", "/x/..%2fadmin"];
    none_passes(&witness, &[400], &refused).await;
    witness.stop().await;
}

/// Istio: a path was compared with its fragment, which the application cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2021_39156_fragments() {
    let witness = without_admin("39156").await;
    none_passes(&witness, &[400], &["/admin#", "/admin#x", "/public#/../admin", "/#", "/public?#"])
        .await;
    witness.stop().await;
}

/// Istio: hosts were compared with their case.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2021_39155_case_of_hosts() {
    let world = World::with(LocalCallers::Node).await;
    let http = world.n1.handle.http().unwrap();
    for allowed in [true, false] {
        change(&world.n2, |next| {
            let of = std::sync::Arc::make_mut(next.access.get_mut(&service("orders")).unwrap());
            of.rules[0].from = if allowed { vec![Source::Any] } else { Vec::new() };
        });
        for host in ["orders", "ORDERS", "oRdErS", "Orders.Mesh", "orders.mesh.:80"] {
            let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let (head, _) = Client::open(http).await.ask(&request).await.unwrap();
            let want = if allowed { "HTTP/1.1 200" } else { "HTTP/1.1 403" };
            assert!(head.starts_with(want), "{host}: {head}");
        }
    }
    world.stop().await;
}

/// Envoy: `;parameters` of a segment were part of what was compared, but not of what the
/// application took for the path.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_73553_parameters_of_segments() {
    let witness = without_admin("73553").await;
    let targets =
        ["/admin;", "/admin;x=y", "/admin;x/users", "/;/admin", "/public/..;/admin", "/admin%3bx"];
    none_passes(&witness, &[400], &targets).await;
    witness.stop().await;
}

/// Envoy: a match on a header that was not UTF-8 failed, and the rule was skipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_73552_values_that_are_not_utf8() {
    let witness = Witness::new("73552", LocalCallers::Deny).await;
    let guest = with("x-role", "guest");
    witness.rule(&[("allow", Source::Any, &[]), ("deny", Source::Any, &[guest])]);
    for lines in [
        &b"X-Role: guest\r\n"[..],
        b"X-Role: \xff\r\nX-Role: guest\r\n",
        b"X-Role: guest\r\nX-Role: \xc3\x28\r\n",
        b"X-Role: \xff, guest\r\n",
        b"X-Other: \xff\r\nX-Role: guest\r\n",
    ] {
        let judged = witness.judge(&fields(lines)).await;
        assert_eq!((judged.status, judged.seen.len()), (403, 0), "{}", text(lines));
    }
    witness.rule(&[("allow", Source::Any, &[with("x-role", "admin")])]);
    for lines in
        [&b"X-Role: \xff\r\n"[..], b"X-Role: admin\xff\r\n", b"X-Role: admin\r\nX-Role: \xff\r\n"]
    {
        let judged = witness.judge(&fields(lines)).await;
        assert_eq!((judged.status, judged.seen.len()), (403, 0), "{}", text(lines));
    }
    assert_eq!(witness.judge(&fields(b"X-Role: admin\r\n")).await.status, 200);
    witness.stop().await;
}

/// Envoy: of a header with several values, rules saw one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_26308_headers_with_several_values() {
    let witness = Witness::new("26308", LocalCallers::Deny).await;
    let guest = with("x-role", "guest");
    witness.rule(&[("allow", Source::Any, &[]), ("deny", Source::Any, &[guest])]);
    for lines in [
        "X-Role: admin\r\nX-Role: guest\r\n",
        "X-Role: guest\r\nX-Role: admin\r\n",
        "X-Role: admin, guest\r\n",
        "X-Role: guest,admin\r\n",
        "X-Role: admin ,\tguest ,\r\n",
        "X-Role: a\r\nX-Role: b\r\nX-Role: c, guest\r\n",
    ] {
        let judged = witness.judge(&fields(lines.as_bytes())).await;
        assert_eq!((judged.status, judged.seen.len()), (403, 0), "{lines:?}");
    }
    witness.rule(&[("allow", Source::Any, &[with("x-role", "admin")])]);
    for lines in [
        "X-Role: admin\r\nX-Role: guest\r\n",
        "X-Role: guest\r\nX-Role: admin\r\n",
        "X-Role: admin, guest\r\n",
        "X-Role: admin,\r\n",
        "X-Role:\r\nX-Role: admin\r\n",
    ] {
        let judged = witness.judge(&fields(lines.as_bytes())).await;
        assert_eq!((judged.status, judged.seen.len()), (403, 0), "{lines:?}");
    }
    witness.stop().await;
}

/// Envoy: a request without a path, CONNECT, brought the check down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_73547_requests_without_a_path() {
    let witness = Witness::new("73547", LocalCallers::Deny).await;
    witness.rule(&[("allow", Source::Any, &[])]);
    for line in
        ["CONNECT orders:80", "CONNECT orders", "CONNECT /", "OPTIONS *", "GET orders:80", "GET *"]
    {
        let request = format!("{line} HTTP/1.1\r\nHost: orders\r\n\r\n");
        let judged = witness.judge(request.as_bytes()).await;
        assert_eq!((judged.status, judged.seen.len()), (400, 0), "{line}");
    }
    for line in ["GET http://orders", "OPTIONS http://orders"] {
        let request = format!("{line} HTTP/1.1\r\nHost: orders\r\n\r\n");
        let judged = witness.judge(request.as_bytes()).await;
        assert_eq!((judged.status, &judged.logged), (200, &lines_of("/")), "{line}");
    }
    witness.stop().await;
}

/// Consul: an allow of one path was passed by a path that the application resolves to another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2024_10005_allows_by_path() {
    let witness = Witness::new("10005", LocalCallers::Deny).await;
    witness.rule(&[("allow", Source::Any, &[below("/public")])]);
    assert_eq!(witness.judge(&get("/public/./x")).await.status, 200);
    let denied = [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public//../admin",
        "/public/./.%2E/admin",
        "/public/x/../../admin",
        "/publicadmin",
        "/PUBLIC/x",
        "/public%2e",
    ];
    none_passes(&witness, &[403], &denied).await;
    let refused = [
        "/public/..%2fadmin",
        "/public/..;/admin",
        "/public/..\\admin",
        "/public/%252e%252e/admin",
    ];
    none_passes(&witness, &[400], &refused).await;
    witness.stop().await;
}

/// Consul: a deny by a header was passed by another way to write the header.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2024_10006_denies_by_header() {
    let witness = Witness::new("10006", LocalCallers::Deny).await;
    let guest = with("x-role", "guest");
    witness.rule(&[("allow", Source::Any, &[]), ("deny", Source::Any, &[guest])]);
    for lines in
        ["x-role: guest\r\n", "X-ROLE: guest\r\n", "X-Role:guest\r\n", "X-Role: \t guest\t \r\n"]
    {
        let judged = witness.judge(&fields(lines.as_bytes())).await;
        assert_eq!((judged.status, judged.seen.len()), (403, 0), "{lines:?}");
    }
    for lines in ["X-Role : guest\r\n", "X-Role:\r\n guest\r\n", "X-Role: gue\u{0}st\r\n"] {
        let judged = witness.judge(&fields(lines.as_bytes())).await;
        assert_eq!((judged.status, judged.seen.len()), (400, 0), "{lines:?}");
    }
    // what no rule sees, the application does not see either
    for lines in ["X_Role: guest\r\n", "Connection: x-role\r\nX-Role: guest\r\n"] {
        let judged = witness.judge(&fields(lines.as_bytes())).await;
        assert_eq!((judged.status, judged.seen.len()), (200, 1), "{lines:?}");
        let names: Vec<&str> = judged.seen[0].fields.keys().map(String::as_str).collect();
        assert_eq!(names, ["host", "x-mesh-caller"], "{lines:?}");
    }
    witness.stop().await;
}

/// Envoy: a template did not match paths with `*`; here it is a character as any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2025_46821_stars_are_characters() {
    let witness = without_admin("46821").await;
    none_passes(&witness, &[403], &["/admin/*", "/admin/a*b", "/admin/%2a", "/admin/**"]).await;
    witness.rule(&[("allow", Source::Any, &[on("/*"), below("/a*")])]);
    none_passes(&witness, &[403], &["/", "/b", "/ab", "/a", "/**", "/a/b"]).await;
    assert_eq!(witness.judge(&get("/a%2A/b")).await.status, 200);
    witness.stop().await;
}

/// Istio: a `.` in the name of a caller was taken for any character.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_39350_dots_in_names_of_callers() {
    let witness = Witness::new("39350", LocalCallers::Deny).await;
    let spiffe = |domain: &str| {
        Source::Spiffe(format!("spiffe://{domain}/ns/default/dc/dc1/svc/web").parse().unwrap())
    };
    for domain in ["t.st.mesh", "....mesh", "test.mes.", "test..*"] {
        let Ok(id) = format!("spiffe://{domain}/ns/default/dc/dc1/svc/web").parse() else {
            continue;
        };
        witness.rule(&[("allow", Source::Spiffe(id), &[])]);
        assert_eq!(witness.judge(&get("/")).await.status, 403, "{domain}");
    }
    // the dot of the caller's own name is one
    witness.rule(&[("allow", spiffe("testxmesh"), &[])]);
    assert_eq!(witness.judge(&get("/")).await.status, 403);
    witness.rule(&[("allow", spiffe("test.mesh"), &[])]);
    assert_eq!(witness.judge(&get("/")).await.status, 200);
    witness.stop().await;
}

/// Consul: a deny with a match on HTTP became an allow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_2022_0895_a_deny_with_matches_stays_one() {
    let witness = Witness::new("0895", LocalCallers::Deny).await;
    witness.rule(&[("deny", Source::Any, &[below("/admin")])]);
    none_passes(&witness, &[403], &["/admin", "/public", "/"]).await;
    for order in [0, 1] {
        let mut rules =
            [("deny", Source::Any, &[below("/admin")][..]), ("allow", Source::Any, &[])];
        rules.rotate_left(order);
        witness.rule(&rules);
        none_passes(&witness, &[403], &["/admin", "/admin/x"]).await;
        assert_eq!(witness.judge(&get("/public")).await.status, 200);
    }
    witness.stop().await;
}

/// Istio: a deny of `*` never matched on TCP; nor may one with matches that TCP cannot be held to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2020_16844_denies_hold_on_tcp() {
    let world = World::new().await;
    let greeted = async || {
        let mut stream = TcpStream::connect(world.to_db).await.unwrap();
        let mut greeting = [0; 6];
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut greeting));
        read.await.expect("an end in time").is_ok()
    };
    assert!(greeted().await);
    let web = Source::Service { service: service("web"), dc: None };
    let spiffe = Source::Spiffe(world.ca.service_id("web"));
    for (from, http) in [
        (Source::Any, Vec::new()),
        (web.clone(), Vec::new()),
        (spiffe, Vec::new()),
        (Source::Any, vec![below("/admin")]),
        (web, vec![with("x-role", "guest")]),
    ] {
        let before = world.n2.live.load();
        change(&world.n2, |next| {
            let of = std::sync::Arc::make_mut(next.access.get_mut(&service("db")).unwrap());
            let mut deny = of.rules[0].clone();
            (deny.id, deny.from, deny.http) =
                ("deny.db/all".parse().unwrap(), vec![from.clone()], http);
            of.rules.insert(0, deny);
        });
        assert!(!greeted().await, "{from}");
        change(&world.n2, |next| next.access = before.access.clone());
        assert!(greeted().await, "and without it, it passes");
    }
    world.stop().await;
}

/// A POST with these fields and all that follows them.
fn post(fields: &str, rest: &str) -> Vec<u8> {
    format!("POST /p HTTP/1.1\r\nHost: orders\r\n{fields}\r\n{rest}").into_bytes()
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: orders\r\n\r\n";

/// Each is refused, and nothing of it reaches the application.
async fn refused(name: &str, requests: &[Vec<u8>]) {
    let witness = Witness::new(name, LocalCallers::Deny).await;
    witness.rule(&[("allow", Source::Any, &[])]);
    for request in requests {
        let judged = witness.judge(request).await;
        assert!(matches!(judged.status, 400 | 501), "{}: {judged:?}", text(request));
        assert_eq!(judged.seen, [], "{}", text(request));
    }
    witness.stop().await;
}

/// HAProxy: the length of a header's name overflowed into its neighbour, so that
/// `Content-Length0aa...` counted as Content-Length.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2021_40346_long_names_stay_their_own() {
    let witness = Witness::new("40346", LocalCallers::Deny).await;
    witness.rule(&[("allow", Source::Any, &[])]);
    for len in [1, 100, 240] {
        let name = format!("Content-Length0{}", "a".repeat(len));
        let request = post(&format!("{name}:\r\nContent-Length: {}\r\n", SMUGGLED.len()), SMUGGLED);
        let judged = witness.judge(&request).await;
        assert_eq!((judged.status, judged.seen.len()), (200, 1), "{len}");
        assert_eq!(text(&judged.seen[0].body), SMUGGLED, "{len}");
        assert!(judged.seen[0].fields.contains_key(&name.to_lowercase()), "{len}");
    }
    // no name that is longer than a link carries
    for len in [241, 255, 256, 270, 4096] {
        let lines = format!("Content-Length0{}: 0\r\nContent-Length: 5\r\n", "a".repeat(len));
        let judged = witness.judge(&post(&lines, "hello")).await;
        assert_eq!((judged.status, judged.seen.len()), (400, 0), "{len}");
    }
    witness.stop().await;
}

/// HAProxy: an empty name ended the list of headers early, and with it the checks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2023_25725_names_are_not_empty() {
    let requests = [": x\r\n", ":\r\n", " : x\r\n", "A: b\r\n: x\r\nX-Role: guest\r\n"]
        .map(|lines| post(&format!("{lines}Content-Length: 0\r\n"), SMUGGLED));
    refused("25725", &requests).await;
}

/// HAProxy: an empty Content-Length was forwarded, and read as none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2023_40225_lengths_are_not_empty() {
    let requests = [
        "Content-Length:\r\n",
        "Content-Length: \t\r\n",
        "Content-Length:\r\nContent-Length: 0\r\n",
        "Content-Length: 0\r\nContent-Length:\r\n",
        "Content-Length: ,0\r\n",
        "Content-Length:\r\nTransfer-Encoding: chunked\r\n",
    ]
    .map(|lines| post(lines, SMUGGLED));
    refused("40225", &requests).await;
}

/// hyper: of several Transfer-Encodings one that ends in `chunked` was enough, so that others
/// took the body for one of a length.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rustsec_2021_0020_one_coding_and_no_length() {
    let requests = [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        // and hyper#4123, with a length beside it
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ]
    .map(|lines| post(lines, &format!("0\r\n\r\n{SMUGGLED}")));
    refused("0020", &requests).await;
}

/// hyper: a Content-Length with a plus sign was read as a number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rustsec_2021_0078_lengths_are_digits() {
    let requests = ["+5", "-0", "5 ,", "0x5", "5;", "\u{665}", "5_0", "18446744073709551616"]
        .map(|length| post(&format!("Content-Length: {length}\r\n"), &format!("hello{SMUGGLED}")));
    refused("0078", &requests).await;
}

/// hyper: the size of a chunk overflowed, so that what followed was data to some and a request
/// to others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rustsec_2021_0079_sizes_of_chunks_do_not_overflow() {
    let requests =
        ["f0000000000000003", "10000000000000003", "ffffffffffffffff", "00000000000000003"].map(
            |size| {
                let body = format!("{size}\r\nabc\r\n0\r\n\r\n{SMUGGLED}");
                post("Transfer-Encoding: chunked\r\n", &body)
            },
        );
    refused("0079", &requests).await;
}

/// Envoy: a compressed body grew without bound in the proxy, which here never looks into one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_48044_bodies_are_not_decompressed() {
    let witness = Witness::new("48044", LocalCallers::Deny).await;
    witness.rule(&[("allow", Source::Any, &[])]);
    let body = "\u{1f}not gzip at all";
    let lines = format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n", body.len());
    let judged = witness.judge(&post(&lines, body)).await;
    assert_eq!((judged.status, judged.seen.len()), (200, 1));
    assert_eq!(judged.seen[0].body, body.as_bytes());
    assert_eq!(judged.seen[0].fields["content-encoding"], "gzip");
    witness.stop().await;
}

/// Envoy: cookies were left out of the count of headers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_47774_cookies_count_as_headers() {
    let witness = Witness::new("47774", LocalCallers::Deny).await;
    witness.rule(&[("allow", Source::Any, &[])]);
    for (cookies, want) in [(50, 200), (100, 431)] {
        let judged = witness.judge(&fields("Cookie: a=b\r\n".repeat(cookies).as_bytes())).await;
        assert_eq!((judged.status, judged.seen.len()), (want, usize::from(want == 200)));
    }
    witness.stop().await;
}
