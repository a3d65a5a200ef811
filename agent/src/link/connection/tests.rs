#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use http::StatusCode;

use super::*;
use crate::link::head::{RequestHead, ResponseHead, Target, TcpOpen};

mod simulation;
mod violations;

fn http() -> Open {
    Open::Http(RequestHead {
        target: Target::default(),
        method: http::Method::POST,
        path: Some("/".parse().unwrap()),
        authority: None,
        upgrade: String::new(),
        headers: HeaderMap::new(),
    })
}

fn ok() -> ResponseHead {
    ResponseHead::new(StatusCode::OK)
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A client and a server, and what is under way between them.
struct Pair {
    client: Connection,
    server: Connection,
    now: Instant,
}

impl Pair {
    fn new(limits: Limits) -> Self {
        let mut pair = Self {
            client: Connection::new(Role::Client, limits),
            server: Connection::new(Role::Server, limits),
            now: Instant::now(),
        };
        pair.settle();
        pair
    }

    /// Delivers all, until neither has more to say.
    fn settle(&mut self) {
        while self.client.has_output() || self.server.has_output() {
            let mut out = BytesMut::new();
            self.client.output(&mut out);
            self.server.input(self.now, &out).unwrap();
            out.clear();
            self.server.output(&mut out);
            self.client.input(self.now, &out).unwrap();
        }
    }

    /// A stream open at both ends, its answer begun.
    fn stream(&mut self) -> u32 {
        let id = self.client.open(&http(), false).unwrap();
        self.settle();
        let Poll::Ready(Some((seen, _))) = self.server.poll_accept(&cx()) else {
            panic!("nothing to accept");
        };
        assert_eq!(seen, id);
        self.server.send_head(id, &ok(), false).unwrap();
        self.settle();
        assert!(matches!(self.client.poll_head(id, &cx()), Poll::Ready(Ok(_))));
        id
    }
}

/// All that can be read now, and whether the end was seen.
fn read(connection: &mut Connection, id: u32) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    loop {
        match connection.poll_chunk(id, &cx()) {
            Poll::Ready(Some(Ok(Chunk::Data(data)))) => all.extend_from_slice(&data),
            Poll::Ready(Some(Ok(Chunk::Trailers(_)))) => {}
            Poll::Ready(Some(Err(error))) => panic!("stream {id}: {error}"),
            Poll::Ready(None) => return (all, true),
            Poll::Pending => return (all, false),
        }
    }
}

#[test]
fn half_closes_are_carried_one_by_one() {
    let mut pair = Pair::new(Limits::default());
    let id = pair.stream();
    pair.client.send_data(id, Bytes::from_static(b"ask"), true).unwrap();
    pair.settle();
    assert_eq!(read(&mut pair.server, id), (b"ask".to_vec(), true));
    assert_eq!((pair.client.active(), pair.server.active()), (1, 1));
    pair.server.send_data(id, Bytes::from_static(b"answer"), true).unwrap();
    pair.settle();
    assert_eq!((pair.client.active(), pair.server.active()), (0, 0));
    assert_eq!(read(&mut pair.client, id), (b"answer".to_vec(), true), "readable after the end");
}

#[test]
fn resets_are_carried_both_ways() {
    let mut pair = Pair::new(Limits::default());
    let (first, second) = (pair.stream(), pair.stream());
    pair.client.reset(first, Code::CANCELLED);
    pair.server.reset(second, Code::BROKEN);
    pair.settle();
    let failed = |connection: &mut Connection, id| connection.poll_chunk(id, &cx());
    let reset = |code| Poll::Ready(Some(Err(LinkError::Reset(code))));
    assert_eq!(failed(&mut pair.server, first), reset(Code::CANCELLED));
    assert_eq!(failed(&mut pair.client, second), reset(Code::BROKEN));
    assert_eq!((pair.client.active(), pair.server.active()), (0, 0));
}

#[test]
fn a_reader_that_stalls_holds_up_only_itself() {
    let mut pair = Pair::new(Limits::default());
    let stalled: Vec<u32> = (0..200).map(|_| pair.stream()).collect();
    for id in &stalled {
        pair.server.send_data(*id, vec![1; 1 << 20].into(), false).unwrap();
    }
    pair.settle();
    let live = pair.stream();
    let sent = vec![2; 8 << 20];
    pair.server.send_data(live, sent.clone().into(), true).unwrap();
    let mut got = Vec::new();
    for _ in 0..10_000 {
        pair.settle();
        let (part, ended) = read(&mut pair.client, live);
        got.extend(part);
        if ended {
            break;
        }
    }
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    assert_eq!(pair.client.unread, 200 * Settings::FLOOR.stream_window, "no more is held");
    assert!(pair.server.poll_room(stalled[0], &cx()).is_pending(), "its sender waits");
}

#[test]
fn unread_bytes_never_pass_their_bound_and_the_link_recovers() {
    let limits = Limits { connection_window: 256 << 10, unread_max: 1 << 20, ..Limits::default() };
    let mut pair = Pair::new(limits);
    let ids: Vec<u32> = (0..60).map(|_| pair.stream()).collect();
    for id in &ids {
        pair.server.send_data(*id, vec![1; 100_000].into(), true).unwrap();
    }
    pair.settle();
    assert!(pair.client.unread <= limits.unread_max, "{}", pair.client.unread);
    let mut got = vec![0; ids.len()];
    for _ in 0..100 {
        for (at, id) in ids.iter().enumerate() {
            got[at] += read(&mut pair.client, *id).0.len();
        }
        pair.settle();
        assert!(pair.client.unread <= limits.unread_max, "{}", pair.client.unread);
    }
    assert_eq!(got, vec![100_000; ids.len()]);
}

#[test]
fn streams_take_turns() {
    let mut pair = Pair::new(Limits::default());
    let (large, small) = (pair.stream(), pair.stream());
    pair.server.send_data(large, vec![1; 32 << 10].into(), true).unwrap();
    pair.server.send_data(small, Bytes::from_static(b"x"), true).unwrap();
    let mut out = BytesMut::new();
    pair.server.output(&mut out);
    let mut decoder = Decoder::default();
    let mut bytes = &out[..];
    let mut order = Vec::new();
    while let Some(frame) = decoder.next(&mut bytes, &Settings::FLOOR).unwrap() {
        if let Frame::Data { stream, .. } = frame {
            order.push(stream);
        }
    }
    assert_eq!(order, [large, small, large, large]);
}

#[test]
fn a_retired_server_finishes_what_is_open() {
    let mut pair = Pair::new(Limits::default());
    let id = pair.stream();
    // Crosses the notice: still served.
    let crossing = pair.client.open(&http(), true).unwrap();
    pair.server.shutdown();
    pair.settle();
    assert!(pair.client.draining() && !pair.client.finished());
    assert_eq!(pair.client.open(&http(), true), Err(LinkError::Draining));
    assert!(
        matches!(pair.server.poll_accept(&cx()), Poll::Ready(Some((seen, _))) if seen == crossing)
    );
    pair.server.send_head(crossing, &ok(), true).unwrap();
    pair.client.send_data(id, Bytes::new(), true).unwrap();
    pair.server.send_data(id, Bytes::new(), true).unwrap();
    pair.settle();
    assert!(pair.client.finished() && pair.server.finished());
    assert!(matches!(pair.server.poll_accept(&cx()), Poll::Ready(None)));
}

#[test]
fn a_stream_above_the_final_goaway_is_refused_and_may_go_elsewhere() {
    let mut pair = Pair::new(Limits::default());
    let id = pair.stream();
    let beyond = pair.client.open(&http(), true).unwrap();
    let mut wire = BytesMut::new();
    Frame::GoAway { last: id, code: Code::DONE }.encode(&mut wire, &Settings::FLOOR).unwrap();
    pair.client.input(pair.now, &wire).unwrap();
    let Poll::Ready(Err(error)) = pair.client.poll_head(beyond, &cx()) else {
        panic!("still waits");
    };
    assert!(error.unprocessed(), "{error}");
    assert_eq!(pair.client.active(), 1, "the one below goes on");
}

#[test]
fn streams_are_bounded_and_a_place_is_given_back() {
    let limits = Limits { streams_max: 64, ..Limits::default() };
    let mut pair = Pair::new(limits);
    let ids: Vec<u32> = (0..64).map(|_| pair.stream()).collect();
    let full = Err(LinkError::TooManyStreams { max: 64 });
    assert_eq!(pair.client.open(&http(), true), full);
    pair.client.reset(ids[0], Code::CANCELLED);
    assert!(pair.client.open(&http(), true).is_ok());
    pair.settle();
    assert_eq!(pair.server.active(), 64);
}

#[test]
fn a_backlog_over_its_bound_is_refused() {
    let mut pair = Pair::new(Limits { backlog_max: 2, ..Limits::default() });
    let ids: Vec<u32> = (0..3).map(|_| pair.client.open(&http(), true).unwrap()).collect();
    pair.settle();
    let Poll::Ready(Err(error)) = pair.client.poll_head(ids[2], &cx()) else {
        panic!("still waits");
    };
    assert!(error.unprocessed(), "{error}");
    assert_eq!(pair.server.active(), 2);
}

#[test]
fn nothing_is_remembered_of_streams_nobody_holds() {
    let mut pair = Pair::new(Limits::default());
    for turn in 0..50 {
        let id = pair.stream();
        if turn % 2 == 0 {
            pair.client.send_data(id, Bytes::from_static(b"x"), true).unwrap();
        }
        pair.settle();
        pair.server.send_data(id, Bytes::from_static(b"unread"), true).unwrap();
        pair.server.release_send(id);
        pair.server.release_recv(id);
        pair.settle();
        pair.client.release_recv(id);
        pair.client.release_send(id);
        pair.settle();
    }
    for connection in [&pair.client, &pair.server] {
        assert_eq!((connection.streams.len(), connection.active, connection.unread), (0, 0, 0));
    }
}

#[test]
fn an_answer_before_the_end_of_the_request_stops_it_and_stays_readable() {
    let mut pair = Pair::new(Limits::default());
    let id = pair.stream();
    pair.client.send_data(id, vec![1; 1 << 20].into(), false).unwrap();
    pair.settle();
    pair.server.release_recv(id);
    pair.server.send_data(id, Bytes::from_static(b"no"), true).unwrap();
    pair.server.release_send(id);
    pair.settle();
    assert_eq!(pair.client.poll_failed(id, &cx()), Poll::Ready(LinkError::Reset(Code::DONE)));
    assert_eq!(read(&mut pair.client, id), (b"no".to_vec(), true));
}

#[test]
fn the_end_of_a_link_reaches_every_stream() {
    let mut pair = Pair::new(Limits::default());
    let ids = [pair.stream(), pair.stream()];
    let unsent = pair.client.open(&http(), true).unwrap();
    pair.client.end(LinkError::PeerGone);
    let Poll::Ready(Err(error)) = pair.client.poll_head(unsent, &cx()) else {
        panic!("still waits");
    };
    assert!(error.unprocessed(), "{error}");
    for id in ids {
        let gone = Poll::Ready(Some(Err(LinkError::PeerGone)));
        assert_eq!(pair.client.poll_chunk(id, &cx()), gone);
    }
    assert_eq!(pair.client.active(), 0);
    let mut out = BytesMut::new();
    pair.client.output(&mut out);
    let told = Err(LinkError::GoneAway(Code::BROKEN));
    assert_eq!(pair.server.input(pair.now, &out), told);
    assert!(matches!(pair.server.poll_accept(&cx()), Poll::Ready(None)));
}

#[test]
fn a_tcp_stream_begins_with_connected() {
    let mut pair = Pair::new(Limits::default());
    let id = pair.client.open(&Open::Tcp(TcpOpen::default()), false).unwrap();
    pair.client.send_data(id, Bytes::from_static(b"early"), false).unwrap();
    pair.settle();
    assert_eq!(read(&mut pair.server, id), (b"early".to_vec(), false));
    let early = pair.server.send_data(id, Bytes::from_static(b"x"), false);
    assert!(matches!(early, Err(LinkError::Misuse(_))));
    let other = pair.server.send_head(id, &ResponseHead::new(StatusCode::CREATED), false);
    assert!(matches!(other, Err(LinkError::Misuse(_))));
    pair.server.send_head(id, &ResponseHead::connected(), false).unwrap();
    let trailers = pair.server.send_trailers(id, &HeaderMap::new());
    assert!(matches!(trailers, Err(LinkError::Misuse(_))));
}
