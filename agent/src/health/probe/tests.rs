#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn check(kind: CheckKind, timeout_ms: u64) -> CheckFile {
    CheckFile { kind, interval_ms: 5_000, timeout_ms, rise: 1, fall: 1 }
}

/// Answers every connection with `answer`, after reading what came; holds it open if empty.
async fn server(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            if answer.is_empty() {
                held.push(stream);
            }
        }
    });
    address
}

async fn get(answer: &'static str) -> Try {
    let address = server(answer).await;
    let path = CheckKind::Http("/health?deep=1".to_owned());
    probe(&check(path, 500), address, Exec::Refused).await
}

#[tokio::test]
async fn http_passes_on_2xx_only() {
    let good = get("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(good, Try { good: true, output: "HTTP 200 OK: ok".to_owned() });
    let bad = get("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(bad, Try { good: false, output: "HTTP 503 Service Unavailable".to_owned() });
    let away = get("HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\n\r\n").await;
    assert!(!away.good, "redirects are not followed: {away:?}");
    let other = get("SSH-2.0-x\r\n").await;
    assert!(!other.good, "{other:?}");
    let silent = get("").await;
    assert_eq!(silent, Try { good: false, output: "no answer within 500ms".to_owned() });
}

#[tokio::test]
async fn tcp_passes_on_connect() {
    let address = server("").await;
    assert!(probe(&check(CheckKind::Tcp, 500), address, Exec::Refused).await.good);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let tried = probe(&check(CheckKind::Tcp, 500), closed, Exec::Refused).await;
    assert!(!tried.good && tried.output.contains("cannot connect"), "{tried:?}");
}

async fn run(words: &[&str], timeout_ms: u64, exec: Exec) -> Try {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    probe(&check(CheckKind::Exec(words), timeout_ms), nowhere, exec).await
}

#[tokio::test]
async fn exec_passes_on_zero() {
    let good = run(&["/bin/sh", "-c", "echo fine"], 5_000, Exec::Allowed).await;
    assert_eq!(good, Try { good: true, output: "fine".to_owned() });
    let bad = run(&["/bin/sh", "-c", "echo poor; exit 3"], 5_000, Exec::Allowed).await;
    assert_eq!(bad, Try { good: false, output: "exit status: 3: poor".to_owned() });
    let refused = run(&["/bin/sh", "-c", "exit 0"], 5_000, Exec::Refused).await;
    assert_eq!(refused.output, EXEC_REFUSED);
    let missing = run(&["/nowhere/check"], 5_000, Exec::Allowed).await;
    assert!(!missing.good && missing.output.contains("cannot run"), "{missing:?}");
}

#[tokio::test]
async fn exec_kills_the_whole_group_at_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let script = format!("(sleep 1; touch {}) & wait", mark.display());
    let started = Instant::now();
    let tried = run(&["/bin/sh", "-c", &script], 200, Exec::Allowed).await;
    assert!(!tried.good && tried.output.contains("did not end within 200ms"), "{tried:?}");
    assert!(started.elapsed() < Duration::from_millis(900));
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    assert!(!mark.exists(), "a child of the command outlived it");
}

#[tokio::test]
async fn exec_output_is_bounded() {
    let tried = run(&["/bin/sh", "-c", "head -c 1000000 /dev/zero"], 5_000, Exec::Allowed).await;
    assert!(tried.good && tried.output.len() <= 4096);
}
