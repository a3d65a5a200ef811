//! What RFC 9113 forbids, byte by byte: the verdict is the RFC's, the end comes within a second.

use super::super::error::Code;
use super::raw::{Client, Seen, block, data_of, frame_of, head_of, request};
use super::*;

use Code::{Compression, FlowControl, FrameSize, Protocol, StreamClosed};

#[tokio::test]
async fn requests_are_answered_side_by_side() {
    let mut client = Client::new().await;
    client.send(&head_of(1, "POST", "/a", false)).await;
    client.send(&head_of(3, "GET", "/b", true)).await;
    assert_eq!(client.next().await, Seen::Head(3, 200, false));
    assert_eq!(client.next().await, Seen::Data(3, b"GET /b 0".to_vec(), true));
    client.send(&data_of(1, b"hel", false)).await;
    client.send(&data_of(1, b"lo", false)).await;
    client.send(&frame_of(1, 5, 1, &block(&[("x-sum", "7"), ("host", "evil")]))).await;
    assert_eq!(client.next().await, Seen::Head(1, 200, false));
    let text = b"POST /a 5 {\"x-sum\": \"7\"}".to_vec();
    assert_eq!(client.next().await, Seen::Data(1, text, true));
    assert_eq!(client.app.seen(), ["GET /b", "POST /a"]);
}

#[tokio::test]
async fn frames_may_come_in_any_pieces() {
    let mut client = Client::new().await;
    let whole = request("POST", "/a", &[("x-a", "1")]);
    let (first, rest) = whole.split_at(7);
    let (second, third) = rest.split_at(1);
    let mut sent = frame_of(1, 0x28, 1, &[&[2, 0, 0, 0, 0, 9][..], first, &[0, 0]].concat());
    sent.extend(frame_of(9, 0, 1, second));
    sent.extend(frame_of(9, 0, 1, b""));
    sent.extend(frame_of(9, 4, 1, third));
    sent.extend(frame_of(0, 8, 1, b"\x03abc000"));
    sent.extend(frame_of(2, 0, 7, &[0, 0, 0, 3, 9]));
    sent.extend(frame_of(200, 255, 0, b"unknown"));
    sent.extend(data_of(1, b"", true));
    for byte in sent {
        client.send(&[byte]).await;
    }
    assert_eq!(client.next().await, Seen::Head(1, 200, false));
    assert_eq!(client.next().await, Seen::Data(1, b"POST /a 3".to_vec(), true));
}

#[tokio::test]
async fn trailers_and_broken_answers_end_as_they_should() {
    let mut client = Client::new().await;
    client.send(&head_of(1, "GET", "/trailers", true)).await;
    assert_eq!(client.next().await, Seen::Head(1, 200, false));
    assert_eq!(client.next().await, Seen::Data(1, b"data".to_vec(), false));
    let fields = "Some({\"grpc-status\": \"0\"})".to_owned();
    assert_eq!(client.next().await, Seen::Trailers(1, fields));
    for (stream, path, data) in [(3, "/broken", "data"), (5, "/short", "abc"), (7, "/long", "")] {
        client.send(&head_of(stream, "GET", path, true)).await;
        assert_eq!(client.next().await, Seen::Head(stream, 200, false));
        if !data.is_empty() {
            assert_eq!(client.next().await, Seen::Data(stream, data.into(), false));
        }
        assert_eq!(client.next().await, Seen::Reset(stream, Code::Internal), "{path}");
    }
    client.works(9).await;
}

#[tokio::test]
async fn some_answers_have_no_body() {
    let mut client = Client::new().await;
    for (stream, method, path, status) in
        [(1, "HEAD", "/large", 200), (3, "GET", "/204", 204), (5, "GET", "/empty", 200)]
    {
        client.send(&head_of(stream, method, path, true)).await;
        assert_eq!(client.next().await, Seen::Head(stream, status, true), "{path}");
    }
}

#[tokio::test]
async fn an_early_answer_lets_go_of_the_request() {
    let mut client = Client::new().await;
    client.send(&head_of(1, "POST", "/early", false)).await;
    assert_eq!(client.next().await, Seen::Head(1, 200, false));
    assert_eq!(client.next().await, Seen::Data(1, b"no".to_vec(), true));
    assert_eq!(client.next().await, Seen::Reset(1, Code::No));
    // what was on its way is ignored, and does not use up the connection's window
    for _ in 0..200 {
        client.send(&data_of(1, &[0; 16 << 10], false)).await;
    }
    client.send(&frame_of(1, 5, 1, &block(&[("x-sum", "7")]))).await;
    client.works(3).await;
}

#[tokio::test]
async fn refusals_are_answers() {
    let mut client = Client::new().await;
    let connect = block(&[(":method", "CONNECT"), (":authority", "db:1")]);
    client.send(&frame_of(1, 4, 1, &connect)).await;
    assert_eq!(client.next().await, Seen::Head(1, 501, false));
    let why = b"CONNECT is not served here".to_vec();
    assert_eq!(client.next().await, Seen::Data(1, why, true));
    assert_eq!(client.next().await, Seen::Reset(1, Code::No));
    client.works(3).await;
}

/// What ends a stream, and nothing else.
#[tokio::test]
async fn b_h2_malformed_requests_end_their_stream() {
    let head = |more: &[(&str, &str)]| frame_of(1, 5, 1, &request("POST", "/a", more));
    let open = |more: &[(&str, &str)]| frame_of(1, 4, 1, &request("POST", "/a", more));
    let upload = |length: &str, parts: &[(&str, bool)]| {
        let mut sent = open(&[("content-length", length)]);
        for (part, end) in parts {
            sent.extend(data_of(1, part.as_bytes(), *end));
        }
        sent
    };
    let after = |mut sent: Vec<u8>, next: Vec<u8>| {
        sent.extend(next);
        sent
    };
    let never = || head_of(1, "GET", "/never", true);
    let cases = [
        // downgrades: what HTTP/1.1 would frame another way
        ("te", head(&[("transfer-encoding", "chunked")]), Protocol),
        ("cl at the end", head(&[("content-length", "1")]), Protocol),
        ("cl too small", upload("2", &[("abc", true)]), Protocol),
        ("cl too large", upload("5", &[("abc", true)]), Protocol),
        ("cl too large, cut", upload("5", &[("abc", false), ("", true)]), Protocol),
        ("cl twice", head(&[("content-length", "0"), ("content-length", "0")]), Protocol),
        (
            "cl and trailers",
            after(upload("5", &[("abc", false)]), frame_of(1, 5, 1, &block(&[("x", "1")]))),
            Protocol,
        ),
        ("crlf", head(&[("x", "a\r\ntransfer-encoding: chunked")]), Protocol),
        ("lf in a name", head(&[("x\nhost", "a")]), Protocol),
        ("nul", head(&[("x", "a\0")]), Protocol),
        ("upper case", head(&[("X-Upper", "a")]), Protocol),
        ("connection", head(&[("connection", "keep-alive")]), Protocol),
        ("upgrade", head(&[("upgrade", "h2c")]), Protocol),
        ("te: gzip", head(&[("te", "gzip")]), Protocol),
        ("two hosts", head(&[("host", "y")]), Protocol),
        ("late pseudo-field", head(&[("x", "1"), (":path", "/b")]), Protocol),
        ("a pseudo-field twice", head(&[(":path", "/b")]), Protocol),
        ("an unknown pseudo-field", head(&[(":x", "1")]), Protocol),
        (
            "depends on itself",
            { frame_of(1, 0x25, 1, &[&[0, 0, 0, 1, 9][..], &request("GET", "/a", &[])].concat()) },
            Protocol,
        ),
        ("priority of itself", after(never(), frame_of(2, 0, 1, &[0, 0, 0, 1, 9])), Protocol),
        ("short priority", after(never(), frame_of(2, 0, 1, &[0, 0, 0, 3])), FrameSize),
        (
            "trailers, and not the end",
            { after(open(&[]), frame_of(1, 4, 1, &block(&[("x", "1")]))) },
            Protocol,
        ),
        (
            "a pseudo-field in trailers",
            { after(open(&[]), frame_of(1, 5, 1, &block(&[(":path", "/b")]))) },
            Protocol,
        ),
        ("data after the end", after(never(), data_of(1, b"x", false)), StreamClosed),
        (
            "fields after the end",
            { after(never(), frame_of(1, 5, 1, &block(&[("x", "1")]))) },
            StreamClosed,
        ),
        ("a window by nothing", after(never(), frame_of(8, 0, 1, &[0; 4])), Protocol),
        (
            "a window too large",
            { after(never(), frame_of(8, 0, 1, &[0x7f, 0xff, 0xff, 0xff])) },
            FlowControl,
        ),
    ];
    for (what, sent, code) in cases {
        let mut client = Client::new().await;
        client.send(&sent).await;
        let seen = client.message().await;
        assert_eq!(seen, Seen::Reset(1, code), "{what}");
        assert!(!client.app.seen().iter().any(|line| line == "POST /a"), "{what}");
        client.works(3).await;
        assert_eq!(client.app.running(), 0, "{what}");
    }
}

/// What ends the connection.
#[tokio::test]
async fn b_h2_broken_connections_end() {
    let first = || head_of(1, "GET", "/never", true);
    let after = |next: Vec<u8>| [first(), next].concat();
    let whole = |path| head_of(1, "GET", path, true);
    let large = vec![0; (16 << 10) + 1];
    let window = |stream| frame_of(8, 0, stream, &[0x7f, 0xff, 0xff, 0xff]);
    let cases = [
        ("data on stream 0", frame_of(0, 0, 0, b"x"), Protocol),
        ("fields on stream 0", frame_of(1, 5, 0, &request("GET", "/a", &[])), Protocol),
        ("settings on a stream", frame_of(4, 0, 1, b""), Protocol),
        ("an even stream", head_of(2, "GET", "/a", true), Protocol),
        ("a lower stream", [head_of(5, "GET", "/never", true), whole("/a")].concat(), Protocol),
        ("data on an idle stream", data_of(1, b"x", true), Protocol),
        ("reset of an idle stream", frame_of(3, 0, 1, &[0, 0, 0, 8]), Protocol),
        ("window of an idle stream", frame_of(8, 0, 1, &[0, 0, 0, 8]), Protocol),
        ("a window by nothing", frame_of(8, 0, 0, &[0; 4]), Protocol),
        ("a window too large", window(0), FlowControl),
        (
            "windows too large",
            {
                after(frame_of(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]))
                    .into_iter()
                    .chain(frame_of(8, 0, 1, &[0, 0, 0, 1]))
                    .chain(frame_of(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]))
                    .collect()
            },
            FlowControl,
        ),
        ("a pushed stream", after(frame_of(5, 4, 1, &[0, 0, 0, 2, 0x82])), Protocol),
        ("a large frame", frame_of(0, 0, 1, &large), FrameSize),
        ("a large header is enough", vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1], FrameSize),
        ("no fields at all", frame_of(1, 5, 1, &[0x80]), Compression),
        ("a cut field", frame_of(1, 5, 1, &[0x41]), Compression),
        ("a continuation of nothing", frame_of(9, 4, 1, b""), Protocol),
        ("a continuation after the end", after(frame_of(9, 4, 1, b"")), Protocol),
        (
            "a block that is not continued",
            {
                [frame_of(1, 1, 1, &request("GET", "/a", &[])), frame_of(6, 0, 0, &[0; 8])].concat()
            },
            Protocol,
        ),
        (
            "a block continued elsewhere",
            { [frame_of(1, 1, 1, &request("GET", "/a", &[])), frame_of(9, 4, 3, b"")].concat() },
            Protocol,
        ),
        ("an acknowledgement with a payload", frame_of(4, 1, 0, &[0; 6]), FrameSize),
        ("a short ping", frame_of(6, 0, 0, &[0; 7]), FrameSize),
        (
            "data after a reset",
            { [first(), frame_of(3, 0, 1, &[0, 0, 0, 8]), data_of(1, b"x", true)].concat() },
            StreamClosed,
        ),
    ];
    for (what, sent, code) in cases {
        let mut client = Client::new().await;
        client.send(&sent).await;
        let app = Arc::clone(&client.app);
        let (seen, served) = client.rest().await;
        let last = seen.last();
        assert!(matches!(last, Some(Seen::GoAway(_, found)) if *found == code), "{what}: {seen:?}");
        assert_eq!((served, app.running()), (Served::Refused, 0), "{what}");
        assert!(!app.seen().iter().any(|line| line.ends_with("/a")), "{what}");
    }
}

#[tokio::test]
async fn b_h2_frames_after_the_end_of_a_finished_stream_end_the_connection() {
    for next in [data_of(1, b"x", true), head_of(1, "GET", "/a", true)] {
        let mut client = Client::new().await;
        client.works(1).await;
        client.send(&next).await;
        let (seen, _) = client.rest().await;
        assert_eq!(seen, [Seen::GoAway(1, StreamClosed)]);
    }
}

#[tokio::test]
async fn b_h2_what_does_not_begin_as_http_2_ends() {
    for sent in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSN",
        b"\x16\x03\x01\x02\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x01\x00\x00\x00\x00",
    ] {
        let mut client = Client::silent(CONFIG);
        client.send(sent).await;
        let (seen, served) = client.rest().await;
        assert_eq!(seen.last(), Some(&Seen::GoAway(0, Protocol)), "{sent:?}");
        assert_eq!(served, Served::Refused);
    }
}

/// Reading goes on after a body that nobody reads: only its own stream waits.
#[tokio::test]
async fn windows_bound_what_nobody_reads() {
    let mut client = Client::new().await;
    client.send(&head_of(1, "POST", "/never", false)).await;
    for _ in 0..3 {
        client.send(&data_of(1, &[0; 16 << 10], false)).await;
    }
    client.works(3).await;
    client.send(&data_of(1, &[0; (16 << 10) - 1], false)).await;
    client.works(5).await;
    client.send(&data_of(1, b"x", false)).await;
    assert_eq!(client.message().await, Seen::Reset(1, FlowControl));
    client.works(7).await;
    assert_eq!(client.app.running(), 0);

    // paddings count
    client.send(&head_of(9, "POST", "/never", false)).await;
    let padded = [&[255][..], &[0; 255]].concat();
    for _ in 0..255 {
        client.send(&frame_of(0, 8, 9, &padded)).await;
    }
    client.works(11).await;
    client.send(&frame_of(0, 8, 9, &padded)).await;
    assert_eq!(client.message().await, Seen::Reset(9, FlowControl));
}

#[tokio::test]
async fn large_answers_take_turns() {
    let mut client = Client::with(CONFIG, &[(4, 1 << 30)]).await;
    client.send(&frame_of(8, 0, 0, &[0x40, 0, 0, 0])).await;
    for stream in [1, 3] {
        client.send(&head_of(stream, "GET", "/large", true)).await;
    }
    let mut came = [0; 2];
    while came.iter().sum::<usize>() < 4 << 20 {
        if let Seen::Data(stream, data, _) = client.next().await {
            came[usize::try_from(stream / 2).unwrap()] += data.len();
        }
    }
    assert!(came.iter().all(|came| (15 << 17..17 << 17).contains(came)), "{came:?}");
}

#[tokio::test]
async fn b_h2_the_connections_window_is_kept() {
    let mut client = Client::new().await;
    let mut sent = Vec::new();
    for stream in (1..=33).step_by(2) {
        sent.extend(head_of(stream, "POST", "/never", false));
        for _ in 0..3 {
            sent.extend(data_of(stream, &[0; 16 << 10], false));
        }
        sent.extend(data_of(stream, &[0; (16 << 10) - 1], false));
    }
    client.send(&sent).await;
    let (seen, _) = client.rest().await;
    assert_eq!(seen, [Seen::GoAway(33, FlowControl)]);
}
