//! Bounds: of heads, chunks and trailers, and of what a sender in small parts can make us hold.

use std::future::poll_fn;

use super::super::answer::Ending;
use super::super::conn::State;
use super::*;
use crate::edge::limits::{CHUNK_LINE_MAX, HEAD_BYTES_MAX, HEADERS_MAX, READ_SIZE};
use crate::edge::limits::{PIPELINED_MAX, TRAILERS_BYTES_MAX};

#[tokio::test]
async fn b_limits_heads_and_bodies_are_bounded() {
    let head = |fields: &str| format!("GET /a HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    let filled = |len: usize| {
        let rest = head("A: \r\n").len();
        head(&format!("A: {}\r\n", "x".repeat(len - rest)))
    };
    let chunked = |body: &str| {
        let head = "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        format!("{head}{body}")
    };
    let extension = |len: usize| chunked(&format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(len)));
    let trailers = |len: usize| chunked(&format!("1\r\na\r\n0\r\nA: {}\r\n\r\n", "x".repeat(len)));
    let cases = [
        ("100 fields", head(&"A: b\r\n".repeat(HEADERS_MAX - 1)), 200),
        ("101 fields", head(&"A: b\r\n".repeat(HEADERS_MAX)), 431),
        ("64 KiB", filled(HEAD_BYTES_MAX), 200),
        ("64 KiB and one", filled(HEAD_BYTES_MAX + 1), 431),
        ("a line without end", "G".repeat(HEAD_BYTES_MAX), 431),
        ("size line", extension(CHUNK_LINE_MAX - 4), 200),
        ("long size line", extension(CHUNK_LINE_MAX), 400),
        ("trailers", trailers(TRAILERS_BYTES_MAX - 7), 200),
        ("long trailers", trailers(TRAILERS_BYTES_MAX), 400),
        ("many trailers", chunked(&format!("0\r\n{}\r\n", "a: b\r\n".repeat(101))), 400),
    ];
    for (name, text, status) in cases {
        let mut client = Client::new();
        client.send(&text).await;
        let (answer, _) = client.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer:.200}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{name}");
        assert!(answer.contains("connection: close\r\n"), "{name}: {answer:.200}");
    }
}

#[tokio::test]
async fn b_limits_requests_ahead_are_taken_within_bounds() {
    let (mut io, server) = duplex(4096);
    let (app, closing) = (Arc::<App>::default(), CancellationToken::new());
    let _server = serving(server, &app, Duration::from_secs(5), &closing);
    io.write_all(b"GET /never HTTP/1.1\r\n\r\n").await.unwrap();
    let mut taken = 0;
    while let Ok(wrote) = timeout(Duration::from_millis(200), io.write(&[b'x'; 1024])).await {
        taken += wrote.unwrap();
        assert!(taken < 1 << 20, "it takes whatever comes");
    }
    assert!((PIPELINED_MAX..PIPELINED_MAX + (12 << 10)).contains(&taken), "{taken}");
}

#[tokio::test]
async fn b_slow_a_body_in_bytes_takes_no_buffer_for_each() {
    let (mut io, server) = duplex(64);
    let mut state = State::new(server);
    state.receives(Ending::Length(1_000));
    let mut frames = Vec::new();
    for _ in 0..1_000 {
        io.write_all(b"x").await.unwrap();
        let frame = poll_fn(|cx| state.poll_body(cx)).await.unwrap().unwrap();
        frames.push(frame.into_data().unwrap());
    }
    // parts that are still held lie side by side in one buffer
    let span = |held: &[Bytes]| held[999].as_ptr().addr().abs_diff(held[0].as_ptr().addr());
    assert!(span(&frames) < READ_SIZE, "they are {} bytes apart", span(&frames));
}

#[tokio::test]
async fn b_limits_a_body_that_is_waited_for_holds_no_buffer() {
    let (mut io, server) = duplex(64);
    let mut state = State::new(server);
    state.receives(Ending::Chunked);
    for part in ["", "1\r\na\r\n", "1\r\nb\r\n1\r\nc\r\n"] {
        io.write_all(part.as_bytes()).await.unwrap();
        let mut held = Vec::new();
        let waits = |cx: &mut std::task::Context<'_>| {
            while let std::task::Poll::Ready(frame) = state.poll_body(cx) {
                held.push(frame.unwrap().unwrap().into_data().unwrap());
            }
            std::task::Poll::Ready(())
        };
        poll_fn(waits).await;
        assert_eq!(held.len(), part.len() / 6);
        drop(held);
        // what was read is held by nobody any more, which the next wait sees
        assert!(poll_fn(|cx| std::task::Poll::Ready(state.poll_body(cx).is_pending())).await);
        assert_eq!(state.input.capacity(), 0, "after {part:?}");
    }
}
