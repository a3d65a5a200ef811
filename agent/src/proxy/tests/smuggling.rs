//! Raw bytes to the callers' side of the proxy, through two agents and within one host, against an
//! application that records: what it saw is exactly what was let through, answered and logged.

use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::recorder::{Recorder, Seen};
use super::world::{World, hosted};

/// The last request of each connection.
const END: &str = "GET /end HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n";

struct Recorded {
    world: World,
    orders: Recorder,
    local: Recorder,
}

/// What came of some bytes: the status of each answer, and the requests that the application saw
/// but for the last.
type Verdict = (Vec<u16>, Vec<Seen>);

impl Recorded {
    async fn new() -> Self {
        let world = World::new().await;
        let (orders, local) = (Recorder::start().await, Recorder::start().await);
        let places = [(&world.n2, "orders", orders.address), (&world.n1, "local", local.address)];
        for (agent, name, address) in places {
            let mut next = (*agent.live.load()).clone();
            next.revision.index += 1;
            hosted(&mut next, name, address, &[]);
            assert!(agent.live.publish(next));
        }
        Self { world, orders, local }
    }

    /// Sends `bytes` (each character one byte) and a last request on a connection of its own, both
    /// ways; the verdict is the same.
    async fn judge(&self, bytes: &str) -> Verdict {
        let ways = [
            (self.world.to_orders, &self.orders, &self.world.n2.registry),
            (self.world.to_local, &self.local, &self.world.n1.registry),
        ];
        let mut verdicts = Vec::new();
        for (port, recorder, registry) in ways {
            let before = answered(registry);
            let statuses = send(port, bytes).await;
            let mut seen = recorder.take();
            let ok = statuses.iter().filter(|status| **status == 200).count();
            assert_eq!(ok, seen.len(), "answered and seen: {bytes:?}: {statuses:?} {seen:?}");
            assert_eq!(answered(registry) - before, seen.len(), "logged and seen: {bytes:?}");
            assert!(seen.iter().all(|one| !one.line.contains("smuggled")), "{bytes:?}: {seen:?}");
            seen.retain(|one| one.line != "GET /end HTTP/1.1");
            verdicts.push((statuses, seen));
        }
        let (second, first) = (verdicts.pop().unwrap(), verdicts.pop().unwrap());
        assert_eq!(first, second, "over a link and within the host: {bytes:?}");
        first
    }

    async fn stop(self) {
        self.world.stop().await;
    }
}

/// The calls of applications here that the agent logged as answered.
fn answered(registry: &Registry) -> usize {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let calls = text.lines().filter(|line| {
        line.starts_with("mesh_requests_total")
            && line.contains("\"inbound\"")
            && line.contains("code=\"200\"")
    });
    calls.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
}

/// The status of every answer until the connection ends.
async fn send(port: std::net::SocketAddr, bytes: &str) -> Vec<u16> {
    let mut stream = TcpStream::connect(port).await.unwrap();
    let raw: Vec<u8> = bytes.chars().chain(END.chars()).map(|c| c as u8).collect();
    stream.write_all(&raw).await.unwrap();
    let mut answers = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answers));
    reading.await.unwrap_or_else(|_| panic!("no end after {bytes:?}")).unwrap();
    let text = String::from_utf8(answers).unwrap();
    let (mut rest, mut statuses) = (text.as_str(), Vec::new());
    while !rest.is_empty() {
        let (head, body) = rest.split_once("\r\n\r\n").expect("a whole head");
        statuses.push(head[9..12].parse().unwrap());
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length =
            length.unwrap_or_else(|| panic!("an answer of no length to {bytes:?}: {text:?}"));
        rest = &body[length.parse().unwrap()..];
    }
    statuses
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /p HTTP/1.1\r\nHost: orders\r\n{fields}\r\n{body}")
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: orders\r\n\r\n";

/// Ways to write a Transfer-Encoding: as others read it, as nobody should.
const CODINGS: [&str; 44] = [
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunkedx",
    "Transfer-Encoding: chunk",
    "Transfer-Encoding: ch unked",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: , chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked,chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip",
    "Transfer-Encoding: trailers",
    "Transfer-Encoding: cow",
    "Transfer-Encoding: 0",
    "Transfer-Encoding:",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: 'chunked'",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: chunked; x=y",
    "Transfer-Encoding: chunked\u{b}",
    "Transfer-Encoding: \u{b}chunked",
    "Transfer-Encoding: chunked\u{c}",
    "Transfer-Encoding: \u{c}chunked",
    "Transfer-Encoding: chunked\u{0}",
    "Transfer-Encoding: \u{0}chunked",
    "Transfer-Encoding: chunked\u{a0}",
    "Transfer-Encoding: \u{85}chunked",
    "Transfer-Encoding: chunked\u{ff}",
    "Transfer-Encoding: chun\rked",
    "Transfer-Encoding: \rchunked",
    "Transfer-Encoding: chunked\r",
    "Transfer-Encoding: \nchunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: identity\r\n\tchunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    "Transfer-Encoding\u{0}: chunked",
    " Transfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_smug_no_other_spelling_of_a_coding_is_forwarded() {
    let recorded = Recorded::new().await;
    for coding in CODINGS {
        for with in ["", "Content-Length: 5\r\n"] {
            let bytes = post(&format!("{with}{coding}\r\n"), &format!("0\r\n\r\n{SMUGGLED}"));
            let (statuses, seen) = recorded.judge(&bytes).await;
            assert!(matches!(statuses[..], [400 | 501]), "{bytes:?}: {statuses:?}");
            assert_eq!(seen, [], "{bytes:?}");
        }
    }
    for coding in [" chunked", "chunked", "\tchunked", " Chunked ", " CHUNKED\t"] {
        let bytes = post(&format!("Transfer-Encoding:{coding}\r\n"), "2\r\nhi\r\n0\r\n\r\n");
        let (statuses, seen) = recorded.judge(&bytes).await;
        assert_eq!((&statuses[..], seen.len()), (&[200, 200][..], 1), "{bytes:?}");
        assert_eq!(
            (&seen[0].body[..], &*seen[0].fields["transfer-encoding"]),
            (&b"hi"[..], "chunked")
        );
        // a length beside it is refused however it is written
        let both = post(&format!("Content-Length: 2\r\nTransfer-Encoding:{coding}\r\n"), "hi");
        assert_eq!(recorded.judge(&both).await, (vec![400], vec![]), "{both:?}");
    }
    recorded.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_smug_bodies_end_where_they_say() {
    let recorded = Recorded::new().await;
    let forwarded: &[(&str, &str, &str)] = &[
        ("Content-Length: 2\r\n", "hi", "hi"),
        ("Content-Length: 002\r\n", "hi", "hi"),
        ("Content-Length: \t2 \r\n", "hi", "hi"),
        ("Content-Length: 0\r\n", "", ""),
        ("", "", ""),
        ("Connection: Content-Length\r\nContent-Length: 2\r\n", "hi", "hi"),
        ("Content-Length: 2\r\nContent_Length: 9\r\nTransfer_Encoding: chunked\r\n", "hi", "hi"),
        ("Transfer-Encoding: chunked\r\n", "2;a=\"b\"\r\nhi\r\n0\r\n\r\n", "hi"),
        (
            "Transfer-Encoding: chunked\r\n",
            "002\r\nhi\r\n000\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
            "hi",
        ),
        // an early second request within the body is body
        (
            "Content-Length: 26\r\n",
            "GET /inside HTTP/1.1\r\nA: b\r\n",
            "GET /inside HTTP/1.1\r\nA: b",
        ),
    ];
    for (fields, body, want) in forwarded {
        // the CRLF behind the last is an empty line before a request
        let bytes = post(fields, body);
        let (statuses, seen) = recorded.judge(&bytes).await;
        assert_eq!((&statuses[..], seen.len()), (&[200, 200][..], 1), "{bytes:?}");
        assert_eq!(seen[0].body, want.as_bytes(), "{bytes:?}");
        assert_eq!(seen[0].line, "POST /p HTTP/1.1");
    }
    let refused: &[(&str, &str)] = &[
        ("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        ("Content-Length: 5\r\nContent-Length: 0\r\n", "hello"),
        ("Content-Length: 5, 5\r\n", "hello"),
        ("Content-Length: +5\r\n", "hello"),
        ("Content-Length: -5\r\n", "hello"),
        ("Content-Length: 5.0\r\n", "hello"),
        ("Content-Length: 0x5\r\n", "hello"),
        ("Content-Length: 5 5\r\n", "hello"),
        ("Content-Length:\r\n", "hello"),
        ("Content-Length: 18446744073709551616\r\n", "hello"),
        ("Content-Length : 5\r\n", "hello"),
        ("Content-Length: 5\u{0}\r\n", "hello"),
        ("Content-Length:\r\n 5\r\n", "hello"),
        ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "1\r\nZ\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "1\r\nZ\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0x1\r\na\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "1\na\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "1;a\nb\r\na\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "1\r\nab\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "2\r\nab0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "10000000000000001\r\na\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\nA: b\n\r\n"),
    ];
    for (fields, body) in refused {
        let bytes = post(fields, &format!("{body}{SMUGGLED}"));
        let (statuses, seen) = recorded.judge(&bytes).await;
        assert!(matches!(statuses[..], [400]), "{bytes:?}: {statuses:?}");
        assert_eq!(seen, [], "{bytes:?}");
    }
    recorded.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_smug_lines_and_hosts_have_one_reading() {
    let recorded = Recorded::new().await;
    let host = "Host: orders\r\n";
    let refused: &[String] = &[
        "GET /a HTTP/1.1\r\n\r\n".to_owned(),
        "GET /a HTTP/1.0\r\n\r\n".to_owned(),
        "GET /a\r\n".to_owned(),
        format!("GET /a HTTP/0.9\r\n{host}\r\n"),
        format!("GET /a HTTP/1.2\r\n{host}\r\n"),
        format!("GET /a HTTP/2.0\r\n{host}\r\n"),
        format!("PRI * HTTP/1.1\r\n{host}\r\n"),
        format!("GET /a HTTP/1.1\n{host}\r\n"),
        format!("GET /a HTTP/1.1\r\n{host}\n"),
        format!("GET /a HTTP/1.1\r\nA: b\n{host}\r\n"),
        format!("GET /a HTTP/1.1\r\nA: b\rC: d\r\n{host}\r\n"),
        format!("GET /a HTTP/1.1\r\nA: b\r\n c\r\n{host}\r\n"),
        format!("GET /a HTTP/1.1\r\nA : b\r\n{host}\r\n"),
        format!("GET /a HTTP/1.1\r\n: b\r\n{host}\r\n"),
        format!("GET /a HTTP/1.1\r\nA\r\n{host}\r\n"),
        format!("GET /a HTTP/1.1\r\nA: b\u{0}\r\n{host}\r\n"),
        format!("GET\t/a HTTP/1.1\r\n{host}\r\n"),
        format!("GET /a  HTTP/1.1\r\n{host}\r\n"),
        format!("GET /a b HTTP/1.1\r\n{host}\r\n"),
        format!("get /a HTTP/1.1\r\n{host}\r\n"),
        format!("GET /a#b HTTP/1.1\r\n{host}\r\n"),
        format!("GET /a%2f..%2fb HTTP/1.1\r\n{host}\r\n"),
        format!("GET /a\u{e4} HTTP/1.1\r\n{host}\r\n"),
        format!("GET /a HTTP/1.1\r\n{host}{host}\r\n"),
        format!("GET /a HTTP/1.1\r\n{host}Host: other\r\n\r\n"),
        "GET /a HTTP/1.1\r\nHost:\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: a/../b@c\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: a, b\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: orders\u{ff}\r\n\r\n".to_owned(),
        // proxies before us are none: their preface is no request
        format!("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /a HTTP/1.1\r\n{host}\r\n"),
        format!("\r\n\r\n\u{0}\r\nQUIT\n\u{21}\u{11}\u{0}\u{c}GET /a HTTP/1.1\r\n{host}\r\n"),
    ];
    for bytes in refused {
        let (statuses, seen) = recorded.judge(bytes).await;
        assert!(matches!(statuses[..], [400 | 505]), "{bytes:?}: {statuses:?}");
        assert_eq!(seen, [], "{bytes:?}");
    }
    let many = format!("GET /a HTTP/1.1\r\n{host}\r\n").repeat(5);
    let (statuses, seen) = recorded.judge(&many).await;
    assert_eq!((statuses, seen.len()), (vec![200; 6], 5), "requests that come ahead");
    let bodies = "GET /a HTTP/1.1\r\nHost: orders\r\nContent-Length: 2\r\n\r\nhi";
    let (_, seen) = recorded.judge(bodies).await;
    assert_eq!(seen[0].body, b"hi", "a GET keeps its body");
    recorded.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_connect_targets_are_paths_and_nothing_is_upgraded() {
    let recorded = Recorded::new().await;
    let cases: &[(&str, Option<&str>)] = &[
        ("CONNECT orders:80 HTTP/1.1\r\nHost: orders:80", None),
        ("CONNECT orders HTTP/1.1\r\nHost: orders", None),
        ("CONNECT / HTTP/1.1\r\nHost: orders", None),
        ("CONNECT http://orders/ HTTP/1.1\r\nHost: orders", None),
        ("OPTIONS * HTTP/1.1\r\nHost: orders", None),
        ("GET * HTTP/1.1\r\nHost: orders", None),
        ("GET orders HTTP/1.1\r\nHost: orders", None),
        ("GET orders:80 HTTP/1.1\r\nHost: orders:80", None),
        ("GET http://other/a HTTP/1.1\r\nHost: orders", None),
        ("GET http://u@orders/a HTTP/1.1\r\nHost: orders", None),
        ("GET http://u@orders/a HTTP/1.1\r\nHost: u@orders", None),
        ("GET http:///a HTTP/1.1\r\nHost: orders", None),
        ("GET http://orders/a HTTP/1.1", None),
        ("GET http://orders/a?b HTTP/1.1\r\nHost: orders", Some("GET /a?b HTTP/1.1")),
        ("GET http://ORDERS HTTP/1.1\r\nHost: orders", Some("GET / HTTP/1.1")),
        ("OPTIONS /a HTTP/1.1\r\nHost: orders", Some("OPTIONS /a HTTP/1.1")),
        (
            "GET /a HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
            Some("GET /a HTTP/1.1"),
        ),
        (
            "GET /a HTTP/1.1\r\nHost: orders\r\nUpgrade: websocket\r\nProxy-Connection: x\r\n\
             Keep-Alive: 1\r\nTE: gzip\r\nProxy-Authorization: x",
            Some("GET /a HTTP/1.1"),
        ),
    ];
    for (head, want) in cases {
        let (statuses, seen) = recorded.judge(&format!("{head}\r\n\r\n")).await;
        let Some(line) = want else {
            assert_eq!((&statuses[..], seen.len()), (&[400][..], 0), "{head}: {seen:?}");
            continue;
        };
        assert_eq!((&statuses[..], seen.len()), (&[200, 200][..], 1), "{head}");
        assert_eq!(seen[0].line, *line, "{head}");
        let fields: Vec<&String> = seen[0].fields.keys().collect();
        assert_eq!(fields, ["host", "x-mesh-caller"], "{head}");
    }
    recorded.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_xff_a_caller_cannot_say_who_it_is() {
    let recorded = Recorded::new().await;
    let claims = [
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Host: evil",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Client-Cert: By=spiffe://x",
        "Forwarded: for=1.2.3.4",
        "X-Mesh-Caller: root",
        "X-MESH-Anything: root",
        "X_Mesh_Caller: root",
        "X_Forwarded_For: 1.2.3.4",
        "X-Mesh_Caller: root",
        "Connection: X-Mesh-Caller",
        "Connection: Host, x-mesh-caller, close\u{e4}",
        "Expect: 100-continue\r\nContent-Length: 0",
    ];
    for claim in claims {
        let (statuses, seen) =
            recorded.judge(&format!("GET /a HTTP/1.1\r\nHost: orders\r\n{claim}\r\n\r\n")).await;
        assert_eq!((&statuses[..], seen.len()), (&[200, 200][..], 1), "{claim}");
        let mut fields = seen[0].fields.clone();
        fields.remove("content-length");
        let want =
            [("host", "orders"), ("x-mesh-caller", "spiffe://test.mesh/ns/default/dc/dc1/svc/web")];
        let want = want.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(fields, want.into(), "{claim}");
    }
    recorded.stop().await;
}
