//! Bodies of requests: what is wrong with them is told once, and an early answer does not cut them.

use std::net::SocketAddr;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::world::{Client, World, hosted};

/// Makes `app` what is behind the services `orders` and `local`.
fn put(world: &World, app: SocketAddr) {
    for (agent, name) in [(&world.n2, "orders"), (&world.n1, "local")] {
        let mut next = (*agent.live.load()).clone();
        next.revision.index += 1;
        hosted(&mut next, name, app, &[]);
        assert!(agent.live.publish(next));
    }
}

/// What the callers' agent recorded as answered: the statuses, and how often each.
fn answered(registry: &Registry) -> Vec<(String, u64)> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let lines = text.lines().filter(|line| {
        // what never was a request is counted among the connections
        let counts = ["mesh_requests_total{", "mesh_connections_total{"];
        counts.iter().any(|name| line.starts_with(name)) && line.contains("side=\"outbound\"")
    });
    let parsed = lines.map(|line| {
        let code = line.split("code=\"").nth(1).unwrap().split('"').next().unwrap();
        (code.to_owned(), line.rsplit(' ').next().unwrap().parse().unwrap())
    });
    parsed.filter(|(code, _): &(String, u64)| code.parse::<u16>().is_ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_none_leaves_one_record() {
    for over_link in [true, false] {
        let world = World::new().await;
        // an application that never answers
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        put(&world, app.local_addr().unwrap());
        let port = if over_link { world.to_orders } else { world.to_local };
        let mut client = Client::open(port).await;
        client
            .send("POST /p HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.send("zz\r\nGET /smuggled HTTP/1.1\r\nHost: orders\r\n\r\n").await;
        let answer = client.until("hexadecimal number\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(client.ends().await);
        let found = answered(&world.n1.registry);
        assert_eq!(found, [("400".to_owned(), 1)], "over a link: {over_link}");
        world.stop().await;
    }
}

/// Answers with 1000 bytes at once, hears the request out, and then says how much it was.
async fn early_app(apps: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    apps.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(answer_early(stream));
        }
    });
    address
}

async fn answer_early(mut stream: TcpStream) {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        seen.push(byte);
    }
    let early = format!("HTTP/1.1 200 OK\r\ncontent-length: 1009\r\n\r\n{}", "e".repeat(1_000));
    stream.write_all(early.as_bytes()).await.unwrap();
    let mut body = vec![0; 600_000];
    let heard = stream.read_exact(&mut body).await.map_or(0, |_| body.len());
    stream.write_all(format!("{heard:>9}").as_bytes()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_on_while_its_answer_comes() {
    let world = World::new().await;
    let mut apps = JoinSet::new();
    let address = early_app(&mut apps).await;
    put(&world, address);
    for port in [world.to_orders, world.to_local] {
        let mut client = Client::open(port).await;
        let head = "POST /p HTTP/1.1\r\nHost: orders\r\nContent-Length: 600000\r\n\r\n";
        client.send(head).await;
        let early = client.until("eeee").await;
        assert!(early.starts_with("HTTP/1.1 200 "), "{early}");
        for _ in 0..6 {
            client.send(&"u".repeat(100_000)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let rest = client.until("600000").await;
        assert!(rest.ends_with("600000"), "the application did not hear all: {rest}");
    }
    world.stop().await;
}
