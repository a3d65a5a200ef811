//! Which HTTP a client speaks, told by its first bytes: HTTP/2 with prior knowledge begins with a
//! preface that is no HTTP/1.1 request (RFC 9113 §3.3, §3.4).

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::BytesMut;
use tokio::io::ReadBuf;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Transport;
use super::http1::{Config, Raw};
use super::limits::HEAD_READ_SIZE;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1, or nothing that is known; its server says what is wrong with it.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Reads the first bytes of `io`, which come again with what is returned. Nothing if the client
/// left, was silent for as long as it may be, or `closing` is cancelled before it said anything.
pub async fn sniff<IO: Transport>(
    mut io: IO, config: &Config, closing: &CancellationToken,
) -> Option<(Spoken, Raw<IO>)> {
    let mut early = BytesMut::new();
    loop {
        let limit = if early.is_empty() { config.rest } else { config.head };
        let reading = timeout(limit, poll_fn(|cx| poll_more(&mut io, &mut early, cx)));
        let more = tokio::select! {
            biased;
            more = reading => more,
            () = closing.cancelled() => return None,
        };
        if !matches!(more, Ok(Ok(1..))) {
            return None;
        }
        if let Some(spoken) = told(&early) {
            return Some((spoken, Raw::after(io, early)));
        }
    }
}

/// Reads once; how many bytes came.
fn poll_more<IO: Transport>(
    io: &mut IO, early: &mut BytesMut, cx: &mut std::task::Context<'_>,
) -> Poll<std::io::Result<usize>> {
    // on the stack, so that a silent client costs no buffer
    let mut space = [const { MaybeUninit::uninit() }; HEAD_READ_SIZE];
    let mut read = ReadBuf::uninit(&mut space);
    ready!(Pin::new(io).poll_read(cx, &mut read))?;
    early.extend_from_slice(read.filled());
    Poll::Ready(Ok(read.filled().len()))
}

/// Nothing as long as the preface may still follow.
fn told(first: &[u8]) -> Option<Spoken> {
    let len = first.len().min(PREFACE.len());
    match (first.get(..len) == PREFACE.get(..len), len == PREFACE.len()) {
        (false, _) => Some(Spoken::Http1),
        (true, true) => Some(Spoken::Http2),
        (true, false) => None,
    }
}

/// As much of it as no request of HTTP/1.1 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const CONFIG: Config = Config { rest: Duration::from_secs(5), head: Duration::from_secs(1) };

    #[tokio::test]
    async fn b_sniff_whatever_the_cuts_the_bytes_come_again() {
        let cases: &[(&str, Spoken)] = &[
            ("GET / HTTP/1.1\r\n\r\n", Spoken::Http1),
            ("\r\nGET / HTTP/1.1\r\n\r\n", Spoken::Http1),
            ("P", Spoken::Http1),
            ("PUT / HTTP/1.1\r\n\r\n", Spoken::Http1),
            ("PRI * HTTP/1.1\r\n\r\n", Spoken::Http1),
            ("PRI * HTTP/2.0\n\nSM\r\n\r\n", Spoken::Http1),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", Spoken::Http2),
            ("\x16\x03\x01\x02\0", Spoken::Http1),
        ];
        for (sent, expected) in cases {
            for size in [1, 2, 7, 64] {
                let (mut client, server) = tokio::io::duplex(64);
                let sending = async {
                    for part in sent.as_bytes().chunks(size) {
                        client.write_all(part).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    // what may still be a preface is told by what follows
                    client.write_all(b"X").await.unwrap();
                    drop(client);
                };
                let closing = CancellationToken::new();
                let looking = async {
                    let (spoken, mut raw) = sniff(server, &CONFIG, &closing).await.unwrap();
                    let mut all = Vec::new();
                    raw.read_to_end(&mut all).await.unwrap();
                    (spoken, all)
                };
                let ((), (spoken, all)) = tokio::join!(sending, looking);
                assert_eq!(spoken, *expected, "{sent:?} by {size}");
                assert_eq!(all, [sent.as_bytes(), b"X"].concat(), "{sent:?} by {size}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn b_sniff_silence_ends() {
        let closing = CancellationToken::new();
        for sent in ["", "P", "PRI * HTTP/2.0\r"] {
            let (mut client, server) = tokio::io::duplex(64);
            client.write_all(sent.as_bytes()).await.unwrap();
            assert!(sniff(server, &CONFIG, &closing).await.is_none(), "{sent:?}");
        }
        let (client, server) = tokio::io::duplex(64);
        drop(client);
        assert!(sniff(server, &CONFIG, &closing).await.is_none(), "it left");
        let (_client, server) = tokio::io::duplex(64);
        closing.cancel();
        assert!(sniff(server, &CONFIG, &closing).await.is_none(), "the proxy closes");
    }
}
