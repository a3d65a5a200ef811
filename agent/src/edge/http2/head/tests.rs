#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
use super::super::hpack::put_field;
use super::*;

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn read(pairs: Pairs<'_>) -> Fields {
    let mut block = BytesMut::new();
    for (name, value) in pairs {
        put_field(&mut block, name, value.as_bytes(), false);
    }
    fields(&mut Decoder::new(), &block).unwrap()
}

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "orders.mesh"), (":path", "/a?b=1")];

fn get_with<'a>(more: Pairs<'a>) -> Vec<(&'a str, &'a str)> {
    GET.iter().chain(more).copied().collect()
}

/// `GET` with one pseudo-field changed, or left out.
fn get_but<'a>(name: &str, value: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
    let changed = |(known, old): &(&'static str, &'static str)| {
        if *known == name { value.map(|value| (*known, value)) } else { Some((*known, *old)) }
    };
    GET.iter().filter_map(changed).collect()
}

#[test]
fn a_plain_request_is_read_whole() {
    let more = [("content-length", "007"), ("te", "Trailers"), ("x-a", "1"), ("x-a", "2")];
    let (request, length) = request(read(&get_with(&more))).unwrap();
    assert_eq!(request.uri().to_string(), "http://orders.mesh/a?b=1");
    assert_eq!((request.method(), request.version()), (&Method::GET, Version::HTTP_2));
    assert_eq!((length, request.headers().len()), (Some(7), 4));
    let values: Vec<_> = request.headers().get_all("x-a").iter().collect();
    assert_eq!(values, ["1", "2"]);

    let (request, _) = super::request(read(&get_but(":authority", None))).unwrap();
    assert_eq!(request.uri().to_string(), "/a?b=1");
    let star = [(":method", "OPTIONS"), (":scheme", "https"), (":path", "*")];
    assert_eq!(super::request(read(&star)).unwrap().0.uri().path(), "*");
    let same = get_with(&[("host", "ORDERS.mesh")]);
    assert!(super::request(read(&same)).is_ok());
}

#[test]
fn cookie_crumbs_become_one() {
    let crumbs = get_with(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")]);
    let (request, _) = request(read(&crumbs)).unwrap();
    let cookies: Vec<_> = request.headers().get_all("cookie").iter().collect();
    assert_eq!(cookies, ["a=1; b=2; c=3"]);
    let (request, _) = super::request(read(&get_with(&[("cookie", "a=1")]))).unwrap();
    assert_eq!(request.headers()["cookie"], "a=1");
}

#[test]
fn b_smug_requests_with_two_readings_are_no_requests() {
    let cases = [
        get_but(":method", None),
        get_but(":scheme", None),
        get_but(":path", None),
        get_but(":path", Some("")),
        get_but(":path", Some("a")),
        get_but(":path", Some("*")),
        get_but(":path", Some("/a b")),
        get_but(":path", Some("/a#b")),
        get_but(":path", Some("/a HTTP/1.1\r\nhost: evil")),
        get_but(":path", Some("http://evil/")),
        get_but(":path", Some("/\u{e4}")),
        get_but(":method", Some("G ET")),
        get_but(":method", Some("")),
        get_but(":method", Some("GET / HTTP/1.1\r\n\r\n")),
        get_but(":scheme", Some("ftp")),
        get_but(":scheme", Some("http://evil/?")),
        get_but(":authority", Some("user@orders.mesh")),
        get_but(":authority", Some("a/b")),
        get_but(":authority", Some("a\r\nb")),
        get_with(&[(":path", "/b")]),
        get_with(&[(":authority", "evil")]),
        get_with(&[(":status", "200")]),
        get_with(&[(":protocol", "websocket")]),
        get_with(&[(":unknown", "1")]),
        get_with(&[("x", "1"), (":path", "/b")]),
        vec![("x", "1"), (":method", "GET"), (":scheme", "http"), (":path", "/")],
        get_with(&[("Host", "orders.mesh")]),
        get_with(&[("X-Upper", "1")]),
        get_with(&[("", "1")]),
        get_with(&[("a b", "1")]),
        get_with(&[("a:", "1")]),
        get_with(&[("a\r\nb", "1")]),
        get_with(&[("connection", "close")]),
        get_with(&[("connection", "")]),
        get_with(&[("keep-alive", "1")]),
        get_with(&[("proxy-connection", "x")]),
        get_with(&[("transfer-encoding", "chunked")]),
        get_with(&[("upgrade", "h2c")]),
        get_with(&[("te", "gzip")]),
        get_with(&[("te", "trailers, gzip")]),
        get_with(&[("te", "")]),
        get_with(&[("x", " 1")]),
        get_with(&[("x", "1\t")]),
        get_with(&[("x", "a\r\nb: c")]),
        get_with(&[("x", "a\nb")]),
        get_with(&[("x", "a\rb")]),
        get_with(&[("x", "a\0b")]),
        get_with(&[("x", "a\x7fb")]),
        get_with(&[("host", "evil")]),
        get_with(&[("host", "orders.mesh"), ("host", "orders.mesh")]),
        get_with(&[("content-length", "1"), ("content-length", "1")]),
        get_with(&[("content-length", "1"), ("content-length", "2")]),
        get_with(&[("content-length", "+1")]),
        get_with(&[("content-length", "")]),
        get_with(&[("content-length", "1, 1")]),
        get_with(&[("content-length", "18446744073709551616")]),
    ];
    for pairs in cases {
        let got = request(read(&pairs));
        assert!(matches!(got, Err(HeadError::Malformed(_))), "{pairs:?}: {got:?}");
    }
}

#[test]
fn what_is_not_served_is_told_so() {
    let connect = vec![(":method", "CONNECT"), (":authority", "db:5432")];
    let extended = get_but(":method", Some("CONNECT"));
    let websocket: Vec<_> = extended.iter().copied().chain([(":protocol", "websocket")]).collect();
    let many: Vec<_> = GET.iter().copied().chain([("x", "1"); 97]).collect();
    let crumbs: Vec<_> = GET.iter().copied().chain([("cookie", "a"); 97]).collect();
    let value = "x".repeat(6_000);
    let fields = [("x", value.as_str()), ("y", &value), ("z", &value)];
    let large = get_with(&fields);
    for (pairs, status) in [
        (connect, 501),
        (extended, 501),
        (websocket, 501),
        (many, 431),
        (crumbs, 431),
        (large, 431),
    ] {
        let Err(HeadError::Refused(reject)) = request(read(&pairs)) else {
            panic!("{pairs:?} is taken");
        };
        assert_eq!(reject.status.as_u16(), status, "{}", reject.why);
    }
    let most: Vec<_> = GET.iter().copied().chain([("x", "1"); 96]).collect();
    assert!(request(read(&most)).is_ok());
}

#[test]
fn answers_have_one_reading() {
    let (response, length) =
        response(read(&[(":status", "404"), ("content-length", "3")])).unwrap();
    assert_eq!((response.status().as_u16(), length), (404, Some(3)));
    let cases: &[Pairs<'_>] = &[
        &[],
        &[("x", "1")],
        &[(":status", "99")],
        &[(":status", "0200")],
        &[(":status", "20")],
        &[(":status", "2x0")],
        &[(":status", "200 OK")],
        &[(":status", "200"), (":status", "200")],
        &[(":status", "200"), (":path", "/")],
        &[("x", "1"), (":status", "200")],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "200"), ("transfer-encoding", "chunked")],
        &[(":status", "200"), ("content-length", "1"), ("content-length", "1")],
        &[(":status", "200"), ("x", "a\nb")],
        &[(":status", "200"), ("X", "a")],
    ];
    for pairs in cases {
        assert!(super::response(read(pairs)).is_err(), "{pairs:?}");
    }
}

#[test]
fn b_smug_trailers_frame_and_route_nothing() {
    let given =
        [("grpc-status", "0"), ("content-length", "5"), ("host", "evil"), ("te", "trailers")];
    let kept = trailers(read(&given)).unwrap().unwrap();
    assert_eq!((kept.len(), &kept["grpc-status"]), (1, &HeaderValue::from_static("0")));
    assert_eq!(trailers(read(&[])).unwrap(), None);
    for bad in [(":path", "/"), (":status", "200"), ("Upper", "1"), ("connection", "close")] {
        assert!(trailers(read(&[bad])).is_err(), "{bad:?}");
    }
}

#[test]
fn what_is_sent_is_read_back() {
    let mut given = Request::new(());
    *given.method_mut() = Method::DELETE;
    *given.uri_mut() = "/a?b".parse().unwrap();
    for (name, value) in [
        ("host", "orders.mesh"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("te", "gzip"),
        ("upgrade", "h2c"),
        ("keep-alive", "5"),
        ("x-a", "1"),
        ("content-type", "text/plain"),
    ] {
        given.headers_mut().append(name, HeaderValue::from_static(value));
    }
    let mut block = BytesMut::new();
    put_request(&mut block, &given.into_parts().0);
    let read = fields(&mut Decoder::new(), &block).unwrap();
    let (got, _) = request(read).unwrap();
    assert_eq!(got.uri().to_string(), "http://orders.mesh/a?b");
    assert_eq!(got.method(), Method::DELETE);
    let names: Vec<_> = got.headers().keys().map(HeaderName::as_str).collect();
    assert_eq!(names, ["x-a", "content-type"]);

    for status in [200, 204, 206, 304, 400, 404, 418, 500, 999] {
        let status = StatusCode::from_u16(status).unwrap();
        let mut block = BytesMut::new();
        put_response(&mut block, status, &HeaderMap::new());
        let read = fields(&mut Decoder::new(), &block).unwrap();
        assert_eq!(response(read).unwrap().0.status(), status);
    }
}
