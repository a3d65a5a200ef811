//! No half of a call goes by two snapshots: the snapshot is swapped under calls that are held at a
//! point of their way, and each goes on by the one it began with. The next goes by the new one.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::policy::{Origin, Protocol, RouteMatch};
use mesh_core::resource::{Backend, CompiledRoute, Endpoint, EndpointState};
use mesh_core::snapshot::ProxySnapshot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::world::{Agent, Client, World, endpoint, hosted, routes, service, swap};

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn accepted(listener: &TcpListener) -> TcpStream {
    timeout(Duration::from_secs(5), listener.accept()).await.expect("a call in time").unwrap().0
}

fn without_endpoints(of: &'static str) -> impl FnOnce(&mut ProxySnapshot) {
    move |next| Arc::make_mut(next.endpoints.get_mut(&service(of)).unwrap()).endpoints.clear()
}

/// Puts an agent that takes connections and says nothing before the ones of `name`: until it is
/// dropped, a call is held between its first pick and its second.
async fn hold_before(world: &World, name: &'static str) -> TcpListener {
    let hold = listener().await;
    let address = hold.local_addr().unwrap();
    swap(&world.n1, |next| {
        let of = Arc::make_mut(next.endpoints.get_mut(&service(name)).unwrap());
        let first = Endpoint { node: "n3".parse().unwrap(), address, ..of.endpoints[0].clone() };
        // Suspect ones come after healthy ones.
        of.endpoints[0].state = EndpointState::Suspect;
        of.endpoints.push(first);
    });
    hold
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_picks_its_next_endpoint_by_the_snapshot_it_began_with() {
    let world = World::new().await;
    let hold = hold_before(&world, "orders").await;
    let mut client = Client::open(world.to_orders).await;
    client.send("GET /held HTTP/1.1\r\nHost: orders\r\n\r\n").await;
    let held = accepted(&hold).await;
    swap(&world.n1, without_endpoints("orders"));
    drop((held, hold));
    let answer = client.until("\n\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("orders\nGET /held"), "{answer}");
    let (head, _) = client.get("/next").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 503"), "the next goes by the new one: {head}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_picks_its_next_endpoint_by_the_snapshot_it_began_with() {
    let world = World::new().await;
    let hold = hold_before(&world, "db").await;
    let mut client = TcpStream::connect(world.to_db).await.unwrap();
    let held = accepted(&hold).await;
    swap(&world.n1, without_endpoints("db"));
    drop((held, hold));
    let mut greeting = [0; 6];
    timeout(Duration::from_secs(5), client.read_exact(&mut greeting)).await.unwrap().unwrap();
    assert_eq!(&greeting, b"hello\n");
    let mut next = TcpStream::connect(world.to_db).await.unwrap();
    let read = timeout(Duration::from_secs(5), next.read(&mut greeting)).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "the next goes by the new one: {read:?}");
    world.stop().await;
}

/// The application of `name`, which the test plays itself.
async fn play(agent: &Agent, name: &'static str) -> TcpListener {
    let app = listener().await;
    let address = app.local_addr().unwrap();
    swap(agent, |next| hosted(next, name, address, &[]));
    app
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut seen = String::new();
    while !seen.ends_with(end) {
        let mut buffer = [0; 4096];
        let read = timeout(Duration::from_secs(5), stream.read(&mut buffer)).await;
        let len = read.expect("more in time").unwrap();
        assert!(len > 0, "it ended with {seen:?}");
        seen.push_str(std::str::from_utf8(&buffer[..len]).unwrap());
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_goes_where_its_head_went_at_both_halves() {
    for name in ["orders", "local"] {
        let world = World::new().await;
        let (callee, port) = match name {
            "orders" => (&world.n2, world.to_orders),
            _ => (&world.n1, world.to_local),
        };
        let first = play(callee, name).await;
        let mut client = Client::open(port).await;
        client.send("POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello").await;
        let mut app = accepted(&first).await;
        let head = read_until(&mut app, "hello").await;
        assert!(head.starts_with("POST /b"), "{head}");
        // It has been routed, picked, decided and sent: now all of that would come out otherwise.
        let second = play(callee, name).await;
        swap(&world.n1, without_endpoints(name));
        client.send("world").await;
        assert_eq!(read_until(&mut app, "world").await, "world");
        app.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst").await.unwrap();
        let answer = client.until("first").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{name}: {answer}");
        let (head, _) = client.get("/next").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 503"), "{name}, the caller's next: {head}");
        swap(&world.n1, |next| {
            let (node, address) = match name {
                "orders" => ("n2", world.n2.handle.inbound()),
                _ => ("n1", world.n1.handle.inbound()),
            };
            endpoint(next, name, node, address);
        });
        client.send("GET /moved HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let moved = read_until(&mut accepted(&second).await, "\r\n\r\n").await;
        assert!(moved.starts_with("GET /moved"), "{name}, the callee's next: {moved}");
        drop(client);
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_while_a_call_enters_is_what_it_is_decided_by() {
    let world = World::new().await;
    let mut link = Client::open(world.to_orders).await;
    assert!(link.get("/").await.unwrap().0.starts_with("HTTP/1.1 200"));
    let workers = Arc::clone(&world.n2.handle.workers);
    let answer = tokio::task::spawn_blocking(move || {
        let mut client = std::net::TcpStream::connect(world.to_orders).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let held: Vec<_> = workers.iter().map(|worker| worker.connections.hold()).collect();
        client.write_all(b"GET /enters HTTP/1.1\r\nHost: orders\r\n\r\n").unwrap();
        // Long enough for the call to stand where it enters; were it not, nothing is shown, but
        // nothing is wrong either.
        std::thread::sleep(Duration::from_millis(300));
        world.deny("orders");
        drop(held);
        let mut answer = [0; 4096];
        let len = client.read(&mut answer).unwrap();
        (world, String::from_utf8_lossy(&answer[..len]).into_owned())
    });
    let (world, answer) = answer.await.unwrap();
    // Not withdrawn: it was never allowed.
    assert!(answer.contains("mesh-error: denied"), "{answer}");
    world.stop().await;
}

/// The one route of `orders` leads to `to`.
fn route_orders_to(world: &World, next: &mut ProxySnapshot, to: &str) {
    let (to, id) = (service(to), world.ca.service_id(to));
    let route = CompiledRoute {
        index: 0,
        matches: RouteMatch::default(),
        backends: vec![Backend { service: to, id, subset: None, weight: 1 }],
        timeout_ms: 5_000,
        origin: Origin { file: "test.toml".to_owned(), line: 1 },
    };
    Arc::make_mut(next.routes.get_mut(&service("orders")).unwrap()).routes = vec![route];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_that_had_to_wait_is_found_anew_from_its_beginning() {
    let world = World::new().await;
    swap(&world.n1, |next| route_orders_to(&world, next, "later"));
    let mut client = Client::open(world.to_orders).await;
    client.send("GET /waits HTTP/1.1\r\nHost: orders\r\n\r\n").await;
    let asked = async {
        while !world.n1.live.wanted().contains(&service("later")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), asked).await.expect("the call waits for what is not known");
    // Between route and pick: `later` becomes known, and is no more where the route leads.
    swap(&world.n1, |next| {
        routes(&world.ca, next, "later", Protocol::Http);
        endpoint(next, "later", "n2", world.n2.handle.inbound());
        route_orders_to(&world, next, "orders");
    });
    let answer = client.until("\n\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("orders\nGET /waits"),
        "{answer}"
    );
    world.stop().await;
}
