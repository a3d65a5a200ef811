//! Paths end to end: what routing, access, the log and the application see is one text, or nothing
//! is seen at all. The table is that of `mesh_core::path`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use mesh_core::policy::{HttpMatch, Mode, Origin, PathMatch, Protocol, RouteMatch, Source};
use mesh_core::resource::{Backend, CompiledRoute, CompiledRule, ServiceEndpoints};
use mesh_core::snapshot::ProxySnapshot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::LocalCallers;
use super::recorder::{Recorder, Seen};
use super::world::{Agent, World, access, endpoint, free_port, hosted, routes, service};

const PATHS: &str = include_str!("../../../../crates/mesh-core/src/path/tests/paths.txt");

/// The rows of a table of `mesh_core::path`: what comes, and its canonical form if it has one.
pub(super) fn rows(table: &'static str) -> impl Iterator<Item = (String, Option<&'static str>)> {
    let lines = table.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    lines.map(|line| {
        let (input, want) = line.split_once(" => ").expect("INPUT => WANT");
        let pictured = |c: char| match u32::from(c) {
            0x2421 => '\x7f',
            code @ 0x2400..=0x2420 => char::from_u32(code - 0x2400).unwrap(),
            _ => c,
        };
        (input.chars().map(pictured).collect(), Some(want).filter(|want| *want != "refused"))
    })
}

/// Two services that `web` calls, one on the other host and one on its own, each behind a service
/// that is only routes; with all that was logged of them.
pub(super) struct Witness {
    pub(super) world: World,
    /// The service, its port, its application.
    ways: [(String, SocketAddr, Recorder); 2],
}

impl Witness {
    /// Services of tests that run at the same time have names of their own, by `name`.
    pub(super) async fn new(name: &str, local_callers: LocalCallers) -> Self {
        log();
        let world = World::with(local_callers).await;
        let (far, near) = (format!("far-{name}"), format!("near-{name}"));
        let ports = [free_port().await, free_port().await];
        let apps = [Recorder::start().await, Recorder::start().await];
        for (agent, name) in [(&world.n2, &far), (&world.n1, &near)] {
            agent.identities.put(&service(name), world.ca.svid(&world.ca.service_id(name)));
        }
        change(&world.n2, |next| {
            hosted(next, &far, apps[0].address, &[]);
            access(&world.ca, next, &far, Protocol::Http, &[]);
        });
        change(&world.n1, |next| {
            hosted(next, &near, apps[1].address, &[]);
            access(&world.ca, next, &near, Protocol::Http, &[]);
            for (name, node, agent) in [(&far, "n2", &world.n2), (&near, "n1", &world.n1)] {
                routes(&world.ca, next, name, Protocol::Http);
                endpoint(next, name, node, agent.handle.inbound());
                let via = service(&format!("via-{name}"));
                routes(&world.ca, next, via.as_str(), Protocol::Http);
                let (service, revision) = (via.clone(), next.revision);
                let none = ServiceEndpoints { service, revision, endpoints: Vec::new() };
                next.endpoints.insert(via, Arc::new(none));
            }
            let vias = [format!("via-{far}"), format!("via-{near}")];
            let ports = [(vias[0].as_str(), ports[0]), (vias[1].as_str(), ports[1])];
            hosted(next, "web", SocketAddr::from(([127, 0, 0, 1], 9)), &ports);
        });
        for port in ports {
            let listens = async { while TcpStream::connect(port).await.is_err() {} };
            let within = std::time::Duration::from_secs(5);
            tokio::time::timeout(within, listens).await.expect("the port is bound");
        }
        let [first, second] = apps;
        let witness = Self { world, ways: [(far, ports[0], first), (near, ports[1], second)] };
        witness.route(&PathMatch::Any);
        witness
    }

    /// Routes what `path` matches, and nothing else.
    pub(super) fn route(&self, path: &PathMatch) {
        change(&self.world.n1, |next| {
            for (name, ..) in &self.ways {
                let via = service(&format!("via-{name}"));
                let backend = Backend {
                    service: service(name),
                    id: self.world.ca.service_id(name),
                    subset: None,
                    weight: 1,
                };
                let matches =
                    RouteMatch { path: path.clone(), methods: Vec::new(), headers: Vec::new() };
                let route = CompiledRoute {
                    index: 0,
                    matches,
                    backends: vec![backend],
                    timeout_ms: 5_000,
                    origin: origin(),
                };
                Arc::make_mut(next.routes.get_mut(&via).unwrap()).routes = vec![route];
            }
        });
    }

    /// Has both services go by these rules: `allow` or `deny`, who, and what of HTTP.
    pub(super) fn rule(&self, rules: &[(&str, Source, &[HttpMatch])]) {
        for (agent, (name, ..)) in [&self.world.n2, &self.world.n1].into_iter().zip(&self.ways) {
            change(agent, |next| {
                let compiled =
                    rules.iter().enumerate().map(|(at, (kind, from, http))| CompiledRule {
                        id: format!("{kind}.{name}/rule-{at}").parse().unwrap(),
                        from: vec![from.clone()],
                        http: http.to_vec(),
                        mode: Mode::Enforce,
                        origin: origin(),
                        version: 1,
                    });
                let of = Arc::make_mut(next.access.get_mut(&service(name)).unwrap());
                of.rules = compiled.collect();
            });
        }
    }

    /// What comes of `bytes` on a connection of its own, both ways: the first status, what the
    /// application saw, and what was logged of it.
    pub(super) async fn judge(&self, bytes: &[u8]) -> Judged {
        let mut both = Vec::new();
        for (name, port, app) in &self.ways {
            let status = send(*port, bytes).await;
            let lines = take_lines(name);
            let paths = lines.into_iter().map(|line| (line["side"].clone(), line["path"].clone()));
            both.push(Judged { status, seen: app.take(), logged: paths.collect() });
        }
        let [mut first, second]: [Judged; 2] = both.try_into().expect("two ways");
        let text = String::from_utf8_lossy(bytes);
        assert_eq!((first.status, &first.seen), (second.status, &second.seen), "near: {text:?}");
        match first.status {
            // who noticed first that a body is none differs
            400 => first.logged.extend(second.logged),
            _ => assert_eq!(first.logged, second.logged, "near: {text:?}"),
        }
        first
    }

    pub(super) async fn stop(self) {
        self.world.stop().await;
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) status: u16,
    pub(super) seen: Vec<Seen>,
    /// By side, the paths of the lines about the service.
    pub(super) logged: Vec<(String, String)>,
}

pub(super) fn on(path: &str) -> HttpMatch {
    HttpMatch { path: PathMatch::exact(path).unwrap(), ..HttpMatch::default() }
}

fn origin() -> Origin {
    Origin { file: "test.toml".to_owned(), line: 1 }
}

pub(super) fn change(agent: &Agent, edit: impl FnOnce(&mut ProxySnapshot)) {
    let mut next = (*agent.live.load()).clone();
    next.revision.index += 1;
    edit(&mut next);
    assert!(agent.live.publish(next));
}

/// The status of the first answer to `bytes`; the connection is then closed.
async fn send(port: SocketAddr, bytes: &[u8]) -> u16 {
    let exchange = async {
        let mut stream = TcpStream::connect(port).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
        // the body too, or an answer given to the end would look broken off
        while !seen.ends_with(b"ok") && !seen.ends_with(b"\n") {
            match stream.read(&mut buffer).await {
                Ok(len @ 1..) => seen.extend_from_slice(&buffer[..len]),
                Ok(0) | Err(_) => break,
            }
        }
        let text = String::from_utf8(seen).unwrap();
        text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default()
    };
    let within = std::time::Duration::from_secs(5);
    let answered = tokio::time::timeout(within, exchange).await;
    answered.unwrap_or_else(|_| panic!("no answer to {:?}", String::from_utf8_lossy(bytes)))
}

type Line = BTreeMap<&'static str, String>;

static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

/// Takes the lines of the access log whose `dst` is `name`.
fn take_lines(name: &str) -> Vec<Line> {
    let mut all = LINES.lock().unwrap();
    let (of, rest) = all.drain(..).partition(|line| line.get("dst").is_some_and(|dst| dst == name));
    *all = rest;
    of
}

/// Has the access log of this process kept, but for lines of services that no [`Witness`] has.
fn log() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Keeper).expect("the only keeper"));
}

struct Keeper;

struct Fields(Line);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl tracing::Subscriber for Keeper {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "mesh::access"
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(Line::new());
        event.record(&mut fields);
        let ours = |dst: &String| ["far-", "near-"].iter().any(|name| dst.starts_with(name));
        if fields.0.get("dst").is_some_and(ours) {
            LINES.lock().unwrap().push(fields.0);
        }
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// The lines that one answered request leaves: the callee's, then the caller's.
pub(super) fn lines_of(path: &str) -> Vec<(String, String)> {
    ["inbound", "outbound"].map(|side| (side.to_owned(), path.to_owned())).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_path_routing_access_log_and_application_see_one_text() {
    let witness = Witness::new("paths", LocalCallers::Deny).await;
    let (mut good, mut bad) = (0, 0);
    // what stands behind '?' is the query
    for (path, want) in rows(PATHS).filter(|(path, _)| !path.contains('?')) {
        // the type of a request's target takes none of these three unescaped
        let want = want.filter(|_| !path.contains(['<', '>', '`']));
        let request = format!("GET {path} HTTP/1.1\r\nHost: orders\r\n\r\n");
        let Some(want) = want else {
            witness.rule(&[("allow", Source::Any, &[])]);
            witness.route(&PathMatch::Any);
            // behind a space the version is looked for
            let status = if path.contains(' ') { 505 } else { 400 };
            let refused = Judged { status, seen: Vec::new(), logged: Vec::new() };
            assert_eq!(witness.judge(request.as_bytes()).await, refused, "{path:?}");
            bad += 1;
            continue;
        };
        // neither a route nor an allow of any other text lets it through
        witness.route(&PathMatch::exact(want).unwrap());
        witness.rule(&[("allow", Source::Any, &[on(want)])]);
        let judged = witness.judge(request.as_bytes()).await;
        assert_eq!((judged.status, judged.seen.len()), (200, 1), "{path:?}: {judged:?}");
        assert_eq!(judged.seen[0].line, format!("GET {want} HTTP/1.1"), "{path:?}");
        assert_eq!(judged.logged, lines_of(want), "{path:?}");
        // and a deny of it stops it
        witness.rule(&[("allow", Source::Any, &[]), ("deny", Source::Any, &[on(want)])]);
        let judged = witness.judge(request.as_bytes()).await;
        assert_eq!((judged.status, judged.seen.len()), (403, 0), "{path:?}");
        assert_eq!(judged.logged, lines_of(want), "{path:?}");
        good += 1;
    }
    assert!(good >= 100 && bad >= 150, "{good} and {bad} rows");
    witness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_path_queries_pass_as_they_came_and_are_no_part_of_the_path() {
    let witness = Witness::new("queries", LocalCallers::Deny).await;
    witness.route(&PathMatch::exact("/a").unwrap());
    witness.rule(&[("allow", Source::Any, &[on("/a")])]);
    for query in ["", "b", "b=c&d=%2f%2e%2e", "/../../b", "?", "a?b", ";x=y", "%", "%zz", "a+b%2b"]
    {
        for path in ["/a", "//a", "/x/../a", "/%61"] {
            let request = format!("GET {path}?{query} HTTP/1.1\r\nHost: orders\r\n\r\n");
            let judged = witness.judge(request.as_bytes()).await;
            assert_eq!((judged.status, judged.seen.len()), (200, 1), "{path}?{query}");
            assert_eq!(judged.seen[0].line, format!("GET /a?{query} HTTP/1.1"), "{path}?{query}");
            assert_eq!(judged.logged, lines_of("/a"), "{path}?{query}");
        }
    }
    for target in ["/b?/a", "/a/?", "/a%3f", "/?a", "/a%3fb?"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: orders\r\n\r\n");
        let judged = witness.judge(request.as_bytes()).await;
        assert_eq!((judged.status, judged.seen.len()), (503, 0), "no route takes {target}");
    }
    for target in ["?", "?/a", "/a?\\#", "/a?b#c", "/a?\u{e4}", "/a?b\tc", "/a?\u{0}"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: orders\r\n\r\n");
        let judged = witness.judge(request.as_bytes()).await;
        assert_eq!((judged.status, judged.seen.len()), (400, 0), "{target:?}");
    }
    witness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_path_every_byte_below_a_denied_prefix_is_denied() {
    let witness = Witness::new("bytes", LocalCallers::Deny).await;
    let below = HttpMatch { path: PathMatch::prefix("/admin").unwrap(), ..HttpMatch::default() };
    witness.rule(&[("allow", Source::Any, &[]), ("deny", Source::Any, &[below])]);
    for byte in 0..=u8::MAX {
        for target in [
            [b"/admin/".as_slice(), &[byte], b"x"].concat(),
            format!("/admin/%{byte:02x}x").into_bytes(),
            format!("/x/../admin/%{byte:02X}").into_bytes(),
        ] {
            let request = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: orders\r\n\r\n"].concat();
            let judged = witness.judge(&request).await;
            let text = String::from_utf8_lossy(&target);
            assert!(matches!(judged.status, 400 | 403 | 505), "{text}: {judged:?}");
            assert_eq!(judged.seen, [], "{text}");
        }
    }
    witness.stop().await;
}
