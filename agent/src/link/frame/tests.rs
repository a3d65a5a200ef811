#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use http::{Method, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::link::head::{RequestHead, Target, TcpOpen};

const FLOOR: Settings = Settings::FLOOR;

fn raw(len: usize, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let mut bytes = u16::try_from(len).unwrap().to_be_bytes().to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.resize(HEADER + len, 0);
    bytes
}

fn decode(mut bytes: &[u8]) -> Result<Option<Frame>, LinkError> {
    Decoder::default().next(&mut bytes, &FLOOR)
}

#[test]
fn headers_are_taken_only_within_their_bounds() {
    let data_max = FLOOR.data_max as usize;
    let head_max = FLOOR.head_max as usize;
    let cases: &[(&str, Vec<u8>, Result<(), &str>)] = &[
        ("data at bound", raw(data_max, DATA, 0, 1), Ok(())),
        ("data over bound", raw(data_max + 1, DATA, 0, 1), Err("at most 16376")),
        ("data of one byte", raw(1, DATA, 0, 1), Ok(())),
        ("empty data", raw(0, DATA, 0, 1), Err("1 or more without end")),
        ("empty data at the end", raw(0, DATA, END, 1), Ok(())),
        ("data of no stream", raw(1, DATA, 0, 0), Err("expected 1 or more")),
        ("data with a strange flag", raw(1, DATA, 2, 1), Err("flags 0x02")),
        ("open over bound", raw(head_max + 1, OPEN, 0, 1), Err("at most 16384")),
        ("open at bound, of zeros", raw(head_max, OPEN, 0, 1), Err("stream kind")),
        ("trailers without end", raw(2, TRAILERS, 0, 1), Err("flags 0x00")),
        ("trailers", raw(2, TRAILERS, END, 1), Ok(())),
        ("head, status 0", raw(4, HEAD, 0, 1), Err("status")),
        ("reset", raw(4, RESET, 0, 1), Ok(())),
        ("reset short", raw(3, RESET, 0, 1), Err("expected 4")),
        ("reset long", raw(5, RESET, 0, 1), Err("expected 4")),
        ("reset of no stream", raw(4, RESET, 0, 0), Err("expected 1 or more")),
        ("reset with end", raw(4, RESET, END, 1), Err("flags 0x01")),
        ("window of the connection", raw(4, WINDOW, 0, 0), Ok(())),
        ("window of a stream", raw(4, WINDOW, 0, 7), Ok(())),
        ("window short", raw(3, WINDOW, 0, 7), Err("expected 4")),
        ("ping", raw(8, PING, 0, 0), Ok(())),
        ("ping short", raw(7, PING, 0, 0), Err("expected 8")),
        ("ping on a stream", raw(8, PING, 0, 1), Err("expected 0")),
        ("pong long", raw(9, PONG, 0, 0), Err("expected 8")),
        ("goaway", raw(8, GOAWAY, 0, 0), Ok(())),
        ("goaway on a stream", raw(8, GOAWAY, 0, 3), Err("expected 0")),
        ("settings, none", raw(0, SETTINGS, 0, 0), Ok(())),
        ("settings, id 0", raw(192, SETTINGS, 0, 0), Err("ascend")),
        ("settings over bound", raw(193, SETTINGS, 0, 0), Err("at most 192")),
        ("settings on a stream", raw(0, SETTINGS, 0, 1), Err("expected 0")),
        ("kind 0", raw(0, 0, 0, 0), Err("kind 0x00 is unknown")),
        ("first unknown", raw(0, GOAWAY + 1, 0, 0), Err("kind 0x0b is unknown")),
        ("last unknown", raw(0, IGNORABLE - 1, 0, 0), Err("kind 0xbf is unknown")),
        ("first ignorable", raw(9, IGNORABLE, 0xff, 9), Ok(())),
        ("last ignorable", raw(0, 0xff, 0, 0), Ok(())),
        ("ignorable over bound", raw(data_max + 1, 0xff, 0, 0), Err("at most 16376")),
    ];
    for (name, bytes, want) in cases {
        match (decode(bytes), want) {
            (Ok(Some(_)), Ok(())) => {}
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "case: {name}: {error}");
            }
            (got, _) => panic!("case: {name}: {got:?}"),
        }
    }
}

#[test]
fn an_oversized_frame_is_refused_by_its_header_alone() {
    let bytes = raw(FLOOR.data_max as usize + 1, DATA, 0, 1);
    assert!(decode(&bytes[..HEADER]).is_err());
    assert!(matches!(decode(&bytes[..HEADER - 1]), Ok(None)));
}

/// The wire is fixed: these bytes never change.
#[test]
fn frames_have_these_bytes() {
    let mut headers = HeaderMap::new();
    headers.insert("a", "b".parse().unwrap());
    let target = Target { instance: "i-1".into(), port: 80 };
    let open = Open::Http(RequestHead {
        target: target.clone(),
        method: Method::GET,
        path: Some("/x".parse().unwrap()),
        authority: Some("web".parse().unwrap()),
        upgrade: String::new(),
        headers: headers.clone(),
    });
    let tcp = Open::Tcp(TcpOpen { target, headers: HeaderMap::new() });
    let head = ResponseHead { status: StatusCode::OK, headers: headers.clone() };
    let data = Bytes::from_static(b"hi");
    let cases: &[(Frame, &str)] = &[
        (
            Frame::Open { stream: 1, end: true, open },
            "001c 02 01 00000001 01 03692d31 0050 03474554 0002 2f78 0003 776562 00 \
             0001 0161 0001 62",
        ),
        (
            Frame::Open { stream: 2, end: false, open: tcp },
            "0009 02 00 00000002 02 03692d31 0050 0000",
        ),
        (Frame::Head { stream: 1, end: false, head }, "0009 03 00 00000001 00c8 0001 0161 0001 62"),
        (Frame::Data { stream: 258, end: true, data }, "0002 04 01 00000102 6869"),
        (Frame::Trailers { stream: 1, trailers: headers }, "0007 05 01 00000001 0001 0161 0001 62"),
        (Frame::Reset { stream: 1, code: Code::CANCELLED }, "0004 06 00 00000001 00000007"),
        (Frame::Window { stream: 0, credit: 65536 }, "0004 07 00 00000000 00010000"),
        (Frame::Ping(1), "0008 08 00 00000000 0000000000000001"),
        (Frame::Pong(2), "0008 09 00 00000000 0000000000000002"),
        (Frame::GoAway { last: 9, code: Code::FLOOD }, "0008 0a 00 00000000 00000009 00000004"),
        (Frame::Ignored, "0000 c0 00 00000000"),
        (
            Frame::Settings(FLOOR),
            "002a 01 00 00000000 0001 00000000 0002 00008000 0003 00040000 0004 00003ff8 \
             0005 00004000 0006 00000064 0007 00000040",
        ),
    ];
    for (frame, want) in cases {
        let mut out = BytesMut::new();
        frame.encode(&mut out, &FLOOR).unwrap();
        let found: String = out.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(found, want.replace(' ', ""), "{frame:?}");
        assert_eq!(decode(&out).unwrap().as_ref(), Some(frame));
    }
}

fn text(pattern: &'static str) -> impl Strategy<Value = String> {
    let alphabet: Vec<char> = pattern.chars().collect();
    prop::collection::vec(prop::sample::select(alphabet), 1..12)
        .prop_map(|chars| chars.into_iter().collect())
}

fn headers() -> impl Strategy<Value = HeaderMap> {
    prop::collection::vec((text("abcz09-_"), text("aZ 09=;,\"\u{e9}")), 0..9).prop_map(|pairs| {
        let pairs = pairs.into_iter().map(|(name, value)| {
            let name = format!("x{name}");
            (name.parse::<http::HeaderName>().unwrap(), value.trim().parse().unwrap())
        });
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    })
}

fn open() -> impl Strategy<Value = Open> {
    let target =
        || (text("abc-0"), any::<u16>()).prop_map(|(instance, port)| Target { instance, port });
    let http = (target(), text("GETPOS"), text("abc/%?=."), text("abc.-"), headers());
    prop_oneof![
        http.prop_map(|(target, method, path, authority, headers)| {
            Open::Http(RequestHead {
                target,
                method: method.parse().unwrap(),
                path: Some(format!("/{path}").parse().unwrap()),
                authority: Some(format!("a{authority}").parse().unwrap()),
                upgrade: "websocket".into(),
                headers,
            })
        }),
        (target(), headers()).prop_map(|(target, headers)| Open::Tcp(TcpOpen { target, headers })),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let stream = 1..u32::MAX;
    let data = prop::collection::vec(any::<u8>(), 1..2000).prop_map(Bytes::from);
    prop_oneof![
        (stream.clone(), any::<bool>(), open()).prop_map(|(stream, end, open)| Frame::Open {
            stream,
            end,
            open
        }),
        (stream.clone(), any::<bool>(), 100u16..1000, headers()).prop_map(
            |(stream, end, status, headers)| {
                let status = StatusCode::from_u16(status).unwrap();
                Frame::Head { stream, end, head: ResponseHead { status, headers } }
            }
        ),
        (stream.clone(), any::<bool>(), data).prop_map(|(stream, end, data)| Frame::Data {
            stream,
            end,
            data
        }),
        (stream.clone(), headers())
            .prop_map(|(stream, trailers)| Frame::Trailers { stream, trailers }),
        (stream, any::<u32>()).prop_map(|(stream, code)| Frame::Reset { stream, code: Code(code) }),
        (any::<u32>(), any::<u32>()).prop_map(|(stream, credit)| Frame::Window { stream, credit }),
        any::<u64>().prop_map(Frame::Ping),
        any::<u64>().prop_map(Frame::Pong),
        (any::<u32>(), any::<u32>())
            .prop_map(|(last, code)| Frame::GoAway { last, code: Code(code) }),
        Just(Frame::Settings(Settings::CEILING)),
        Just(Frame::Ignored),
    ]
}

fn decode_all(bytes: &[u8], chunk: usize) -> Result<Vec<Frame>, LinkError> {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for mut part in bytes.chunks(chunk) {
        while let Some(frame) = decoder.next(&mut part, &FLOOR)? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn frames_round_trip_however_they_are_cut(
        frames in prop::collection::vec(frame(), 1..6), chunk in 1usize..700,
    ) {
        let mut out = BytesMut::new();
        for frame in &frames {
            frame.encode(&mut out, &FLOOR).unwrap();
        }
        for chunk in [1, chunk, out.len()] {
            prop_assert_eq!(&decode_all(&out, chunk).unwrap(), &frames);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_decode_alike_however_cut(
        kind in any::<u8>(), flags in 0u8..2, payload in prop::collection::vec(any::<u8>(), 0..300),
        tail in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = raw(payload.len(), kind % 14, flags, 1);
        bytes.splice(HEADER.., payload);
        bytes.extend(tail);
        prop_assert_eq!(decode_all(&bytes, 1), decode_all(&bytes, bytes.len()));
    }

    #[test]
    fn damaged_frames_never_panic(frame in frame(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut out = BytesMut::new();
        frame.encode(&mut out, &FLOOR).unwrap();
        let at = at.index(out.len());
        out[at] = byte;
        prop_assert_eq!(decode_all(&out, 1), decode_all(&out, out.len()));
    }
}
