//! TCP through two agents.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::world::World;

async fn greeted(world: &World) -> TcpStream {
    let mut stream = TcpStream::connect(world.to_db).await.unwrap();
    let mut greeting = [0; 6];
    timeout(Duration::from_secs(5), stream.read_exact(&mut greeting)).await.unwrap().unwrap();
    assert_eq!(&greeting, b"hello\n");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_first_protocol_passes_and_half_close_is_carried() {
    let world = World::new().await;
    let mut stream = greeted(&world).await;
    stream.write_all(b"echo me").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b"echo me");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_connection_closes_when_it_is_denied_and_new_ones_are_refused() {
    let world = World::new().await;
    let mut stream = greeted(&world).await;
    world.deny("db");
    let mut rest = [0; 8];
    let ended = timeout(Duration::from_secs(1), stream.read(&mut rest)).await;
    let reset = "a plain close would say that this is all there was";
    assert!(matches!(ended, Ok(Err(_))), "{reset}: {ended:?}");
    let mut again = TcpStream::connect(world.to_db).await.unwrap();
    let ended = timeout(Duration::from_secs(5), again.read(&mut rest)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inbound_port_gives_nothing_to_who_shows_no_certificate() {
    let world = World::new().await;
    let mut stream = TcpStream::connect(world.n2.handle.inbound()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    let ended = timeout(Duration::from_secs(5), stream.read_to_end(&mut seen)).await.unwrap();
    assert!(!seen.windows(6).any(|six| six == b"orders"), "{ended:?} {seen:?}");
    world.stop().await;
}
