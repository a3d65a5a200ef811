//! Connections that leave HTTP, through two agents and within one host: what passes, what is no
//! switch, and what ends one that lasts.

mod app;
mod bytes;
mod lasting;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::world::World;
use app::{Apps, HEAD_END};

/// What asks for a WebSocket, and how the answer begins that gives it.
const ASK: &str = "Host: orders\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn ask(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{ASK}")
}

/// A caller's connection.
struct Caller(TcpStream);

impl Caller {
    async fn open(port: SocketAddr) -> Self {
        let stream = TcpStream::connect(port).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// One that left HTTP, to what `path` does.
    async fn switched(port: SocketAddr, path: &str) -> Self {
        let mut caller = Self::open(port).await;
        caller.send(ask(path)).await;
        let head = caller.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{path}: {head}");
        caller
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.0.write_all(bytes.as_ref())).await.unwrap();
    }

    /// The next head, to its blank line and no byte further.
    async fn head(&mut self) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(HEAD_END) {
            seen.push(within(self.0.read_u8()).await.unwrap());
        }
        String::from_utf8(seen).unwrap()
    }

    async fn exactly(&mut self, len: usize) -> String {
        let mut seen = vec![0; len];
        within(self.0.read_exact(&mut seen)).await.unwrap();
        String::from_utf8(seen).unwrap()
    }

    /// The next answer, with the body that its length says, or with its chunks as they came.
    async fn answer(&mut self) -> (String, String) {
        let head = self.head().await;
        if head.contains("transfer-encoding: chunked") {
            let mut body = self.head().await;
            while !body.ends_with("0\r\n\r\n") {
                body += &self.head().await;
            }
            return (head, body);
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let body = self.exactly(length.map_or(0, |length| length.parse().unwrap())).await;
        (head, body)
    }

    async fn echoes(&mut self, text: &str) {
        self.send(text).await;
        assert_eq!(self.exactly(text.len()).await, text);
    }

    /// What comes until the connection ends in order, or the error that it ends with.
    async fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        let mut seen = Vec::new();
        within(self.0.read_to_end(&mut seen)).await.map(|_| seen)
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), what).await.expect("in time")
}

/// The two ways to an application: over a link, and within the host.
fn ways(world: &World) -> [SocketAddr; 2] {
    [world.to_orders, world.to_local]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_passes_and_no_early_byte_is_lost_or_parsed() {
    let (world, apps) = Apps::behind_a_world().await;
    for port in ways(&world) {
        let mut caller = Caller::open(port).await;
        // what follows the head in one packet looks like a request, and is none
        let early = "GET /smuggled HTTP/1.1\r\nHost: orders\r\n\r\n";
        caller
            .send(ask("/early/./x?q=1").replace("Key:", "Key: k\r\nX-Mesh-Caller:") + early)
            .await;
        let head = caller.head().await;
        let want = "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: s3pPLMBiTxaQ9k\r\n\
                    connection: upgrade\r\nupgrade: websocket\r\n";
        let mut lines: Vec<&str> = head.trim_end().split("\r\n").collect();
        let mut wanted: Vec<&str> = want.trim_end().split("\r\n").collect();
        lines.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(lines, wanted);
        // the application's first bytes came in one packet with its head
        assert_eq!(caller.exactly(5).await, "HTTP/");
        assert_eq!(caller.exactly(early.len()).await, early);
        caller.echoes("and on").await;
        let (_, asked) = apps.take().pop().unwrap();
        assert!(asked.starts_with("GET /early/x?q=1 HTTP/1.1\r\n"), "{asked}");
        let has = |line: &str| asked.lines().filter(|found| *found == line).count() == 1;
        assert!(has("upgrade: websocket") && has("connection: upgrade"), "{asked}");
        assert!(has("x-mesh-caller: spiffe://test.mesh/ns/default/dc/dc1/svc/web"), "{asked}");
        assert!(has("sec-websocket-key: k") && !asked.contains("keep-alive"), "{asked}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_switch_passes_as_an_answer_and_http_goes_on() {
    let (world, apps) = Apps::behind_a_world().await;
    for port in ways(&world) {
        let mut caller = Caller::open(port).await;
        for (path, status, body) in
            [("/401", "401", "who?"), ("/426", "426", "13"), ("/200", "200", "hello, plain")]
        {
            // another request comes behind, before it is known that this one is refused
            caller.send(ask(path) + "GET /plain HTTP/1.1\r\nHost: orders\r\n\r\n").await;
            let (head, found) = caller.answer().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert!(!head.contains("connection: "), "{head}");
            assert_eq!(found, body);
            let (head, found) = caller.answer().await;
            assert!(head.starts_with("HTTP/1.1 200 ") && found == "plain", "{head} {found}");
        }
        let seen = apps.take();
        let paths: Vec<&str> =
            seen.iter().map(|(_, head)| head.split(' ').nth(1).unwrap()).collect();
        assert_eq!(paths, ["/401", "/plain", "/426", "/plain", "/200", "/plain"]);
        let first = seen[0].0;
        assert!(seen.iter().all(|(number, _)| *number == first), "one connection served them all");
        let plain = seen.iter().filter(|(_, head)| head.contains(" /plain "));
        assert!(plain.into_iter().all(|(_, head)| !head.contains("upgrade")), "{seen:?}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_smug_an_answer_101_that_is_no_switch_is_a_502() {
    let (world, apps) = Apps::behind_a_world().await;
    let other = ["/101/h2c", "/101/both", "/101/none", "/101/close", "/101/old"];
    for port in ways(&world) {
        let mut caller = Caller::open(port).await;
        let unasked = "GET /echo HTTP/1.1\r\nHost: orders\r\n\r\n".to_owned();
        let requests = other.iter().map(|path| ask(path)).chain([unasked]);
        for request in requests {
            caller.send(&request).await;
            let (head, body) = caller.answer().await;
            assert!(
                head.starts_with("HTTP/1.1 502 ") && body.contains("mesh: "),
                "{request}{head}"
            );
        }
        // and no connection that such an answer came on is used again
        let mut numbers: Vec<usize> = apps.take().into_iter().map(|(number, _)| number).collect();
        numbers.dedup();
        assert_eq!(numbers.len(), other.len() + 1);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_asks_for_no_websocket_is_plain_http() {
    let (world, apps) = Apps::behind_a_world().await;
    let cases = [
        "GET /plain HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade, HTTP2-Settings\r\n\
         Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        "GET /plain HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n",
        "GET /plain HTTP/1.1\r\nHost: orders\r\nUpgrade: websocket\r\n\r\n",
        "GET /plain HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\n\r\n",
        "GET /plain HTTP/1.0\r\nHost: orders\r\nConnection: Upgrade, keep-alive\r\n\
         Upgrade: websocket\r\n\r\n",
        "HEAD /plain HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\n\r\n",
        "POST /plain HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\
         Content-Length: 2\r\n\r\nhi",
    ];
    for port in ways(&world) {
        let mut caller = Caller::open(port).await;
        for request in cases {
            caller.send(request).await;
            let head = caller.head().await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{request}{head}");
            if !request.starts_with("HEAD") {
                assert_eq!(caller.exactly(5).await, "plain", "{request}");
            }
            let (_, asked) = apps.take().pop().unwrap();
            assert!(!asked.contains("pgrade") && !asked.contains("http2"), "{request}{asked}");
        }
        for framing in ["Content-Length: 2", "Transfer-Encoding: chunked"] {
            let mut caller = Caller::open(port).await;
            caller.send(ask("/echo").replace("Sec-", &format!("{framing}\r\nSec-"))).await;
            let (head, body) = caller.answer().await;
            assert!(
                head.starts_with("HTTP/1.1 400 ") && body.contains("body"),
                "{framing}: {head}"
            );
        }
        let mut caller = Caller::open(port).await;
        caller.send(ask("/echo").replace("Sec-", "Upgrade: h2c\r\nSec-")).await;
        assert!(caller.answer().await.0.starts_with("HTTP/1.1 400 "));
        // no body is a body of no bytes
        let mut caller = Caller::open(port).await;
        caller.send(ask("/echo").replace("Sec-", "Content-Length: 0\r\nSec-")).await;
        assert!(caller.head().await.starts_with("HTTP/1.1 101 "));
        assert_eq!(apps.take().len(), 1, "of what was refused the application saw nothing");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_that_no_rule_allows_is_answered_403() {
    let (world, apps) = Apps::behind_a_world().await;
    let mut caller = Caller::open(world.batch_to_orders).await;
    caller.send(ask("/echo")).await;
    let (head, body) = caller.answer().await;
    assert!(head.starts_with("HTTP/1.1 403 ") && head.contains("mesh-rule: default"), "{head}");
    assert!(body.contains("denied by default"), "{body}");
    assert_eq!(apps.take(), []);
    world.stop().await;
}
