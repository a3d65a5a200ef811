#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use super::*;

const FLOOR: Settings = Settings::FLOOR;

fn request(headers: &[(&'static str, &'static str)]) -> RequestHead {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_static(value));
    }
    RequestHead {
        target: Target::default(),
        method: Method::GET,
        path: Some(PathAndQuery::from_static("/")),
        authority: Some(Authority::from_static("web.mesh")),
        upgrade: String::new(),
        headers: map,
    }
}

fn encode(head: RequestHead) -> Result<Bytes, LinkError> {
    Open::Http(head).encode(&FLOOR)
}

#[test]
fn fields_of_other_hops_are_not_sent() {
    let bad = |what| Err(LinkError::BadHead(what));
    let hop = "hop-by-hop field";
    let length = "content-length is not one number";
    type Case<'a> = (&'a str, &'a [(&'static str, &'static str)], Result<(), LinkError>);
    let cases: &[Case<'_>] = &[
        ("plain", &[("accept", "*/*")], Ok(())),
        ("host", &[("host", "a")], bad(hop)),
        ("connection", &[("connection", "close")], bad(hop)),
        ("keep-alive", &[("keep-alive", "1")], bad(hop)),
        ("proxy-connection", &[("proxy-connection", "close")], bad(hop)),
        ("transfer-encoding", &[("transfer-encoding", "chunked")], bad(hop)),
        ("upgrade", &[("upgrade", "h2c")], bad(hop)),
        ("http2-settings", &[("http2-settings", "")], bad(hop)),
        ("te trailers", &[("te", "trailers")], Ok(())),
        ("te gzip", &[("te", "gzip, trailers")], bad("te is not trailers")),
        ("length", &[("content-length", "0")], Ok(())),
        ("length of 19 digits", &[("content-length", "1234567890123456789")], Ok(())),
        ("length of 20 digits", &[("content-length", "12345678901234567890")], bad(length)),
        ("length twice", &[("content-length", "1"), ("content-length", "1")], bad(length)),
        ("length list", &[("content-length", "1, 1")], bad(length)),
        ("length signed", &[("content-length", "+1")], bad(length)),
        ("length empty", &[("content-length", "")], bad(length)),
        ("outer blank", &[("a", " b")], bad("field value has outer blanks")),
    ];
    for (name, headers, want) in cases {
        assert_eq!(encode(request(headers)).map(drop), *want, "case: {name}");
    }
}

#[test]
fn targets_of_requests_are_checked() {
    let plain = || request(&[]);
    let with = |change: fn(&mut RequestHead)| {
        let mut head = plain();
        change(&mut head);
        encode(head).map(drop)
    };
    let bad = |what| Err(LinkError::BadHead(what));
    assert_eq!(with(|h| h.path = None), bad("path is missing"));
    assert_eq!(with(|h| h.path = Some(PathAndQuery::from_static("*"))), Ok(()));
    assert_eq!(with(|h| (h.path, h.method) = (None, Method::CONNECT)), Ok(()));
    assert_eq!(
        with(|h| h.authority = Some(Authority::from_static("u@web"))),
        bad("authority has user information")
    );
    assert_eq!(with(|h| h.upgrade = "web socket".into()), bad("upgrade is not a protocol name"));
    assert_eq!(with(|h| h.target.instance = "a b".into()), bad(INSTANCE));
    assert_eq!(with(|h| h.target.instance = "a".repeat(255)), Ok(()));
    assert_eq!(with(|h| h.target.instance = "a".repeat(256)), bad("text of more than 255 bytes"));
}

#[test]
fn heads_are_bounded_on_both_sides() {
    let with = |count: usize| {
        let mut head = request(&[]);
        for at in 0..count {
            let name = HeaderName::try_from(format!("x-{at}")).unwrap();
            head.headers.append(name, HeaderValue::from_static("v"));
        }
        head
    };
    let payload = encode(with(100)).unwrap();
    assert!(Open::decode(payload, &FLOOR).is_ok());
    let (found, max) = (101, 100);
    assert_eq!(encode(with(101)), Err(LinkError::TooManyHeaders { found, max }));
    let wide = Settings { headers_max: 101, ..FLOOR };
    let payload = Open::Http(with(101)).encode(&wide).unwrap();
    let refused = Open::decode(payload, &FLOOR);
    assert_eq!(refused, Err(LinkError::TooManyHeaders { found, max }));

    let sized = |len: usize| {
        let mut head = request(&[]);
        head.headers.insert("a", "v".repeat(len).parse().unwrap());
        head
    };
    let rest = encode(sized(0)).unwrap().len();
    assert_eq!(encode(sized((16 << 10) - rest)).unwrap().len(), 16 << 10);
    let over = encode(sized((16 << 10) - rest + 1));
    assert_eq!(over, Err(LinkError::HeadTooLarge { found: 16_385, max: 16_384 }));
}

#[test]
fn malformed_blocks_are_refused() {
    let good = encode(request(&[("a", "b")])).unwrap();
    for cut in 0..good.len() {
        assert!(Open::decode(good.slice(..cut), &FLOOR).is_err(), "cut at {cut}");
    }
    let edit = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|part| part == from).unwrap();
        Open::decode([&good[..at], to, &good[at + from.len()..]].concat().into(), &FLOOR)
    };
    let cases: &[(&str, &[u8], &[u8], &str)] = &[
        ("upper case name", b"\x01a", b"\x01A", "upper case"),
        ("name with a colon", b"\x01a", b"\x01:", "token"),
        ("empty name", b"\x01a", b"\x00", "token"),
        ("newline in value", b"\x01b", b"\x01\n", "control"),
        ("blank value", b"\x01b", b"\x01 ", "outer blanks"),
        ("method of blanks", b"GET", b"G T", "method"),
        ("fragment", b"\x01/", b"\x03/#a", "fragment"),
        ("relative path", b"\x01/", b"\x01a", "path"),
        ("bytes after", b"\x00\x01b", b"\x00\x01bb", "after"),
        ("bad authority", b"web.mesh", b"web mesh", "authority"),
    ];
    for (name, from, to, part) in cases {
        let error = edit(from, to).expect_err(name);
        assert!(error.to_string().contains(part), "case: {name}: {error}");
    }
}

#[test]
fn trailers_frame_nothing() {
    let trailers = |name: &'static str, value: &'static str| {
        let mut map = HeaderMap::new();
        map.insert(name, HeaderValue::from_static(value));
        encode_trailers(&map, &FLOOR).map(drop)
    };
    let bad = |what| Err(LinkError::BadHead(what));
    assert_eq!(trailers("grpc-status", "0"), Ok(()));
    assert_eq!(trailers("content-length", "1"), bad("framing field in trailers"));
    assert_eq!(trailers("te", "trailers"), bad("framing field in trailers"));
    assert_eq!(trailers("host", "a"), bad("hop-by-hop field"));
}
