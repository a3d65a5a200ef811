//! What a peer must not do: each closes the link with a GOAWAY of the right code.

use super::*;

fn bytes(frames: &[Frame]) -> BytesMut {
    let mut out = BytesMut::new();
    for frame in frames {
        frame.encode(&mut out, &Settings::CEILING).unwrap();
    }
    out
}

fn hello() -> Frame {
    Frame::Settings(Settings::FLOOR)
}

fn open(stream: u32) -> Frame {
    Frame::Open { stream, end: false, open: http() }
}

fn tcp(stream: u32) -> Frame {
    Frame::Open { stream, end: false, open: Open::Tcp(TcpOpen::default()) }
}

fn head(stream: u32, status: u16) -> Frame {
    let head = ResponseHead::new(StatusCode::from_u16(status).unwrap());
    Frame::Head { stream, end: false, head }
}

fn data(stream: u32, len: usize, end: bool) -> Frame {
    Frame::Data { stream, end, data: vec![0; len].into() }
}

fn trailers(stream: u32) -> Frame {
    Frame::Trailers { stream, trailers: HeaderMap::new() }
}

fn window(stream: u32, credit: u32) -> Frame {
    Frame::Window { stream, credit }
}

/// Feeds `frames` to a fresh side, which as a client has stream 1 (http) and 2 (tcp) open;
/// gives the code of the GOAWAY it answers with, if it does.
fn verdict(role: Role, limits: Limits, frames: &[Frame]) -> Option<Code> {
    let mut side = Connection::new(role, limits);
    if role == Role::Client {
        side.open(&http(), false).unwrap();
        side.open(&Open::Tcp(TcpOpen::default()), false).unwrap();
    }
    side.output(&mut BytesMut::new());
    let error = side.input(Instant::now(), &bytes(frames)).err()?;
    let mut out = BytesMut::new();
    side.output(&mut out);
    let mut sent = None;
    let (mut decoder, mut rest) = (Decoder::default(), &out[..]);
    while let Some(frame) = decoder.next(&mut rest, &Settings::FLOOR).unwrap() {
        sent = Some(frame);
    }
    let Some(Frame::GoAway { code, .. }) = sent else { panic!("no goaway last: {sent:?}") };
    assert_eq!(code, error.code());
    assert_eq!(side.active(), 0);
    Some(code)
}

#[test]
fn servers_refuse_what_clients_must_not_send() {
    let (protocol, flow) = (Some(Code::PROTOCOL), Some(Code::FLOW));
    let full: Vec<Frame> =
        [hello(), open(1), data(1, 16_376, false), data(1, 16_376, false), data(1, 16, false)]
            .into();
    let over = [full.clone(), vec![data(1, 1, false)]].concat();
    let most = (1 << 31) - 1 - (32 << 10);
    let cases: &[(&str, Vec<Frame>, Option<Code>)] = &[
        ("no hello", vec![open(1)], protocol),
        ("hello twice", vec![hello(), hello()], protocol),
        ("ascending with gaps", vec![hello(), open(3), open(9)], None),
        ("same id", vec![hello(), open(3), open(3)], protocol),
        ("lower id", vec![hello(), open(3), open(2)], protocol),
        ("highest id", vec![hello(), open(u32::MAX)], protocol),
        ("data before open", vec![hello(), data(1, 1, false)], protocol),
        ("head from a client", vec![hello(), open(1), head(1, 200)], protocol),
        (
            "data after the end",
            vec![hello(), open(1), data(1, 1, true), data(1, 1, false)],
            protocol,
        ),
        ("trailers twice", vec![hello(), open(1), trailers(1), trailers(1)], protocol),
        ("trailers on tcp", vec![hello(), tcp(1), trailers(1)], protocol),
        ("the window, filled", full, None),
        ("the window, exceeded", over, flow),
        ("credit of zero", vec![hello(), open(1), window(1, 0)], flow),
        ("most credit", vec![hello(), open(1), window(1, most)], None),
        ("too much credit", vec![hello(), open(1), window(1, most + 1)], flow),
        ("too much for the link", vec![hello(), window(0, (1 << 31) - 1)], flow),
        ("credit for no stream", vec![hello(), window(1, 1)], protocol),
        (
            "reset of no stream",
            vec![hello(), Frame::Reset { stream: 1, code: Code::DONE }],
            protocol,
        ),
        ("unasked pong", vec![hello(), Frame::Pong(1)], protocol),
        ("goaway", vec![hello(), Frame::GoAway { last: 0, code: Code::DONE }], None),
        (
            "goaway naming streams",
            vec![hello(), Frame::GoAway { last: 1, code: Code::DONE }],
            protocol,
        ),
        ("ignorable", vec![hello(), Frame::Ignored], None),
    ];
    for (name, frames, want) in cases {
        assert_eq!(verdict(Role::Server, Limits::default(), frames), *want, "case: {name}");
    }
}

#[test]
fn clients_refuse_what_servers_must_not_send() {
    let protocol = Some(Code::PROTOCOL);
    let goaway = |last| Frame::GoAway { last, code: Code::DONE };
    let early_end =
        Frame::Head { stream: 1, end: true, head: ResponseHead::new(StatusCode::CONTINUE) };
    let informed = |count| [vec![hello()], vec![head(1, 103); count]].concat();
    let cases: &[(&str, Vec<Frame>, Option<Code>)] = &[
        ("open from a server", vec![hello(), open(1)], protocol),
        ("data before the head", vec![hello(), data(1, 1, false)], protocol),
        ("trailers before the head", vec![hello(), trailers(1)], protocol),
        ("head, data", vec![hello(), head(1, 200), data(1, 1, false)], None),
        ("two final heads", vec![hello(), head(1, 200), head(1, 200)], protocol),
        ("continue, final", vec![hello(), head(1, 100), head(1, 200)], None),
        ("switching is final", vec![hello(), head(1, 101), head(1, 200)], protocol),
        ("eight early hints", [informed(8), vec![head(1, 200)]].concat(), None),
        ("nine early hints", informed(9), protocol),
        ("end with continue", vec![hello(), early_end], protocol),
        ("data after continue", vec![hello(), head(1, 100), data(1, 1, false)], protocol),
        ("tcp connected", vec![hello(), head(2, 200), data(2, 1, true)], None),
        ("tcp, other status", vec![hello(), head(2, 204)], protocol),
        ("head of no stream", vec![hello(), head(3, 200)], protocol),
        ("goaway falls", vec![hello(), goaway(u32::MAX), goaway(2)], None),
        ("goaway rises", vec![hello(), goaway(2), goaway(3)], protocol),
    ];
    for (name, frames, want) in cases {
        assert_eq!(verdict(Role::Client, Limits::default(), frames), *want, "case: {name}");
    }
}

#[test]
fn floods_end_the_link_and_lively_links_do_not() {
    let limits = Limits { quiet_max: 10, ..Limits::default() };
    let of = |count, frame: Frame| [vec![hello()], vec![frame; count]].concat();
    let flood = Some(Code::FLOOD);
    let rapid = |count: u32| {
        let one = |id| [open(id), Frame::Reset { stream: id, code: Code::CANCELLED }];
        [vec![hello()], (1..=count).flat_map(one).collect()].concat()
    };
    let crumbs = [vec![hello(), open(1)], vec![window(1, 1); 11]].concat();
    let pulse = |_| [data(1, 1, false), Frame::Ping(1)];
    let lively = [vec![hello(), open(1)], (0..500).flat_map(pulse).collect()].concat();
    let cases: &[(&str, Vec<Frame>, Option<Code>)] = &[
        ("pings at the bound", of(10, Frame::Ping(1)), None),
        ("pings over the bound", of(11, Frame::Ping(1)), flood),
        ("ignorable frames", of(11, Frame::Ignored), flood),
        ("rapid resets at the bound", rapid(10), None),
        ("rapid resets over the bound", rapid(11), flood),
        ("credit in crumbs", crumbs, flood),
        ("a ping for each data", lively, None),
    ];
    for (name, frames, want) in cases {
        assert_eq!(verdict(Role::Server, limits, frames), *want, "case: {name}");
    }
}

#[test]
fn frames_that_cross_a_reset_are_dropped() {
    let mut pair = Pair::new(Limits::default());
    let id = pair.stream();
    pair.server.send_data(id, vec![1; 30_000].into(), false).unwrap();
    let mut crossing = BytesMut::new();
    pair.server.output(&mut crossing);
    let before = pair.client.recv_window;
    pair.client.reset(id, Code::CANCELLED);
    pair.client.input(pair.now, &crossing).unwrap();
    pair.settle();
    assert_eq!(pair.client.unread, 0);
    assert_eq!(pair.client.recv_window, before - 30_000, "counted, to be given back in bulk");
}

#[test]
fn quiet_links_may_ping_for_ever() {
    let mut side = Connection::new(Role::Server, Limits { quiet_max: 2, ..Limits::default() });
    let mut now = Instant::now();
    side.input(now, &bytes(&[hello()])).unwrap();
    for _ in 0..100 {
        now += Duration::from_secs(5);
        side.input(now, &bytes(&[Frame::Ping(1)])).unwrap();
    }
}
