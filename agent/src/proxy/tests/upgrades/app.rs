//! An application that leaves HTTP, well and badly, by its path.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::super::world::{World, hosted};

pub(super) const HEAD_END: &[u8] = b"\r\n\r\n";

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9k\r\n\
                        Content-Length: 5\r\n\r\n";

/// The heads that applications saw, each with the number of its connection.
type Seen = Arc<Mutex<Vec<(usize, String)>>>;

/// The applications behind a world's services `orders` and `local`.
pub(super) struct Apps {
    seen: Seen,
    _serving: JoinSet<()>,
}

impl Apps {
    pub(super) async fn behind_a_world() -> (World, Self) {
        let world = World::new().await;
        let (seen, mut serving) = (Seen::default(), JoinSet::new());
        let address = start(&mut serving, Arc::clone(&seen)).await;
        for (agent, name) in [(&world.n2, "orders"), (&world.n1, "local")] {
            let mut next = (*agent.live.load()).clone();
            next.revision.index += 1;
            hosted(&mut next, name, address, &[]);
            assert!(agent.live.publish(next));
        }
        (world, Self { seen, _serving: serving })
    }

    /// What the application heard until its connection ended.
    pub(super) async fn heard(&self) -> String {
        for _ in 0..500 {
            let seen = self.take();
            if let Some((_, heard)) = seen.into_iter().find(|(_, text)| text.contains(" after ")) {
                return heard;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the application's connection did not end");
    }

    /// What was seen since the last time.
    pub(super) fn take(&self) -> Vec<(usize, String)> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

async fn start(serving: &mut JoinSet<()>, seen: Seen) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    serving.spawn(async move {
        let (mut connections, mut number) = (JoinSet::new(), 0);
        while let Ok((stream, _)) = listener.accept().await {
            number += 1;
            stream.set_nodelay(true).unwrap();
            connections.spawn(serve(stream, number, Arc::clone(&seen)));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, number: usize, seen: Seen) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(HEAD_END) {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let line = head.lines().next().unwrap().to_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await.unwrap();
        seen.lock().unwrap().push((number, head));
        let path = line.split(' ').nth(1).unwrap();
        let answer = match path {
            "/401" => "HTTP/1.1 401 Unauthorized\r\ncontent-length: 4\r\n\r\nwho?",
            "/426" => {
                "HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                 content-length: 2\r\n\r\n13"
            }
            "/200" => "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nhello, plain",
            "/plain" if line.starts_with("HEAD") => "HTTP/1.1 200 OK\r\n\r\n",
            "/plain" => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain",
            _ => return switch(stream, path, number, &seen).await,
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// Leaves HTTP in the way of `path`.
async fn switch(mut stream: TcpStream, path: &str, number: usize, seen: &Seen) {
    let head = match path {
        "/101/h2c" => SWITCHED.replace("websocket", "h2c"),
        "/101/both" => SWITCHED.replace("websocket", "websocket, h2c"),
        "/101/none" => SWITCHED.replace("Upgrade: websocket\r\n", ""),
        "/101/close" => SWITCHED.replace("Connection: Upgrade", "Connection: close"),
        "/101/old" => SWITCHED.replace("HTTP/1.1", "HTTP/1.0"),
        // its first bytes come at once, and look like an answer
        path if path.starts_with("/early") => SWITCHED.to_owned() + "HTTP/",
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            SWITCHED.to_owned()
        }
        _ => SWITCHED.to_owned(),
    };
    if path == "/never" {
        return listen(&mut stream, number, seen).await;
    }
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    match path {
        "/ends-first" => {
            stream.write_all(b"all there is").await.unwrap();
            stream.shutdown().await.unwrap();
            listen(&mut stream, number, seen).await;
        }
        "/listens" => listen(&mut stream, number, seen).await,
        "/resets" => {
            let mut one = [0; 1];
            stream.read_exact(&mut one).await.unwrap();
            stream.set_zero_linger().unwrap();
        }
        "/flood" => while stream.write_all(&[b'x'; 4096]).await.is_ok() {},
        _ => {
            let (mut read, mut write) = stream.split();
            if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                drop(write.shutdown().await);
            }
        }
    }
}

/// Hears a connection out, and tells what it heard.
async fn listen(stream: &mut TcpStream, number: usize, seen: &Seen) {
    let mut heard = Vec::new();
    let ended = stream.read_to_end(&mut heard).await.map_or("reset", |_| "ended");
    seen.lock().unwrap().push((number, format!("{ended} after {} bytes", heard.len())));
}
