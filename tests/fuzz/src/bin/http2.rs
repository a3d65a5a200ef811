//! A local caller's bytes, cut anywhere, through the strict server of HTTP/2: nothing panics, what
//! is sent is sound, and no request comes out that HTTP/1.1 behind it would read otherwise.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use mesh_agent::edge::http2;
use mesh_fuzz::served::{App, Seen, WAITS, Wire, run};
use tokio_util::sync::CancellationToken;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// the first byte says where the rest is cut, and whether the preface stands before it
fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((first, bytes)) = data.split_first() else { return Corpus::Reject };
    let bytes = if first & 1 == 0 { [PREFACE, bytes].concat() } else { bytes.to_vec() };
    let app = App::default();
    let wire = Wire::new(&bytes, usize::from(first >> 1) + 1);
    let sent = wire.sent();
    run(http2::serve(wire, &app, &WAITS, &CancellationToken::new()));
    let seen = app.seen();
    for seen in &seen {
        sound(seen, bytes.len());
    }
    frames(&sent.lock().expect("no panic"));
    Corpus::Keep
});

/// What is let through has one body, and nothing of one connection only.
fn sound(seen: &Seen, fed: usize) {
    let (head, headers) = (&seen.head, seen.head.headers());
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        assert!(!headers.contains_key(name), "{seen:?}");
    }
    let trailers = |te: &http::HeaderValue| te.as_bytes().eq_ignore_ascii_case(b"trailers");
    assert!(headers.get_all("te").iter().all(trailers), "{seen:?}");
    assert!(headers.len() <= 100 && seen.body.len() <= fed, "{seen:?}");
    assert!(headers.get_all("host").iter().count() <= 1, "{seen:?}");
    let mut lengths = headers.get_all("content-length").iter();
    if let Some(length) = lengths.next() {
        assert!(lengths.next().is_none(), "{seen:?}");
        let length = length.to_str().ok().and_then(|text| text.parse::<usize>().ok());
        let length = length.expect("a number");
        assert!(seen.body.len() <= length, "{seen:?}");
        assert!(!seen.whole || seen.body.len() == length, "{seen:?}");
    }
    for value in headers.values() {
        assert!(!value.as_bytes().iter().any(|b| b"\r\n\0".contains(b)), "{seen:?}");
    }
    assert_eq!(head.version(), http::Version::HTTP_2);
}

/// All of it is frames: nine bytes that say how many follow, of at most 16 KiB (RFC 9113 §4.1).
fn frames(mut bytes: &[u8]) {
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let [a, b, c, kind, _, stream @ ..] = *head;
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        assert!(len <= 16 << 10 && kind <= 9, "{head:?}");
        assert!(len <= rest.len(), "cut off: {head:?}");
        let stream = u32::from_be_bytes(stream);
        assert!(stream == 0 || stream % 2 == 1, "a server opens no streams");
        bytes = &rest[len..];
    }
    assert!(bytes.is_empty(), "cut off: {bytes:?}");
}
