//! Too much of what carries no message, and what does not move: an end within a second, and
//! memory that stays small.

use std::time::Instant;

use super::super::error::Code;
use super::super::frame::PREFACE;
use super::raw::{Client, Seen, block, data_of, frame_of, head_of, request};
use super::*;
use crate::edge::limits::{BLOCK_BYTES_MAX, IDLE_FRAMES_MAX, OWED_MAX, RESETS_MAX, STREAMS_MAX};

/// Sends what a flood is made of, and asserts that it ended.
async fn ends(what: &str, begin: &[u8], again: impl Fn(u32) -> Vec<u8>) {
    let mut client = Client::new().await;
    client.send(begin).await;
    let app = Arc::clone(&client.app);
    let start = Instant::now();
    let mut flood = Vec::new();
    for round in 0..10_000 {
        flood.extend(again(round));
    }
    client.send(&flood).await;
    let (seen, served) = client.rest().await;
    let last = seen.last();
    assert!(matches!(last, Some(Seen::GoAway(_, Code::Calm))), "{what}: {last:?}");
    assert_eq!((served, app.running()), (Served::Refused, 0), "{what}");
    assert!(start.elapsed() < Duration::from_secs(1), "{what}: {:?}", start.elapsed());
    let answers = seen.iter().filter(|seen| !matches!(seen, Seen::GoAway(..))).count();
    let most = usize::try_from(IDLE_FRAMES_MAX).unwrap();
    assert!(answers <= most, "{what}: {answers} answers");
    let calls = app.begun.load(Ordering::SeqCst);
    assert!(calls <= usize::try_from(RESETS_MAX).unwrap() + 1, "{what}: {calls} calls");
}

fn reset_of(stream: u32) -> Vec<u8> {
    frame_of(3, 0, stream, &[0, 0, 0, 8])
}

#[tokio::test]
async fn cve_2023_44487_rapid_reset() {
    let again = |round| {
        let stream = round * 2 + 1;
        [head_of(stream, "GET", "/never", true), reset_of(stream)].concat()
    };
    ends("rapid reset", b"", again).await;
}

/// The client has the server do the resetting.
#[tokio::test]
async fn cve_2025_8671_made_you_reset() {
    let window = |stream| frame_of(8, 0, stream, &[0x7f, 0xff, 0xff, 0xff]);
    let again = |round| {
        let stream = round * 2 + 1;
        [head_of(stream, "GET", "/never", true), window(stream)].concat()
    };
    ends("windows too large", b"", again).await;
    let upper = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("X", "1")]);
    ends("malformed", b"", |round| frame_of(1, 5, round * 2 + 1, &upper)).await;
}

#[tokio::test]
async fn b_h2_streams_over_the_limit_are_refused_and_many_are_a_flood() {
    let mut client = Client::new().await;
    let most = u32::try_from(STREAMS_MAX).unwrap();
    for round in 0..=most {
        client.send(&head_of(round * 2 + 1, "GET", "/never", true)).await;
    }
    assert_eq!(client.next().await, Seen::Reset(most * 2 + 1, Code::Refused));
    assert_eq!(client.app.begun.load(Ordering::SeqCst), STREAMS_MAX);
    client.send(&reset_of(1)).await;
    client.works(most * 2 + 3).await;
    ends("streams", b"", |round| head_of(round * 2 + 1, "GET", "/never", true)).await;
}

#[tokio::test]
async fn cve_2024_30255_continuations() {
    let begin = frame_of(1, 1, 1, &request("GET", "/never", &[]));
    ends("empty continuations", &begin, |_| frame_of(9, 0, 1, b"")).await;
    let part = block(&[("x", &"y".repeat(4000))]);
    ends("full continuations", &begin, |_| frame_of(9, 0, 1, &part)).await;
}

#[tokio::test]
async fn rustsec_2026_0258_empty_data() {
    let begin = head_of(1, "POST", "/never", false);
    ends("empty data", &begin, |_| data_of(1, b"", false)).await;
    ends("padded data", &begin, |_| frame_of(0, 8, 1, &[0])).await;
}

#[tokio::test]
async fn b_h2_frames_without_a_message() {
    ends("pings", b"", |_| frame_of(6, 0, 0, &[0; 8])).await;
    ends("settings", b"", |_| frame_of(4, 0, 0, &[0, 4, 0, 0, 0, 1])).await;
    ends("acknowledgements", b"", |_| frame_of(4, 1, 0, b"")).await;
    ends("priorities", b"", |round| frame_of(2, 0, round * 2 + 1, &[0, 0, 0, 0, 1])).await;
    ends("windows", b"", |_| frame_of(8, 0, 0, &[0, 0, 0, 1])).await;
    ends("unknown frames", b"", |_| frame_of(99, 0, 0, b"")).await;
    ends("goaways", b"", |_| frame_of(7, 0, 0, &[0; 8])).await;
    let begin = head_of(1, "POST", "/early", false);
    ends("data after an early answer", &begin, |_| data_of(1, b"x", false)).await;
}

/// A client that works is never taken for a flood.
#[tokio::test]
async fn clients_that_work_may_ping_and_cancel() {
    let mut client = Client::new().await;
    for round in 0..2_000 {
        let stream = round * 2 + 1;
        client.send(&frame_of(8, 0, 0, &[0, 0, 0, 1])).await;
        client.send(&frame_of(6, 0, 0, &[0; 8])).await;
        client.works(stream).await;
    }
    // what was answered may be given up at will
    for round in 2_000..3_000 {
        let stream = round * 2 + 1;
        client.send(&head_of(stream, "GET", "/endless", true)).await;
        while client.message().await != Seen::Data(stream, b"begun".to_vec(), false) {}
        client.send(&reset_of(stream)).await;
    }
    client.send(&head_of(6_001, "POST", "/count", false)).await;
    for _ in 0..20_000 {
        client.send(&data_of(6_001, b"x", false)).await;
    }
    client.send(&data_of(6_001, b"", true)).await;
    assert_eq!(client.message().await, Seen::Head(6_001, 200, false));
    assert_eq!(client.message().await, Seen::Data(6_001, b"POST /count 20000".to_vec(), true));
}

#[tokio::test]
async fn cve_2026_47774_heads_are_counted_as_decoded() {
    // one entry of the table, referred to again and again
    let crumb = [&[0x40, 6][..], b"cookie", &[127, 0xa1, 0x1e], &[b'c'; 4000]].concat();
    let mut bomb = request("GET", "/never", &[]);
    bomb.extend(&crumb);
    bomb.extend([0x80 | 62; 8192]);
    let mut client = Client::new().await;
    client.send(&frame_of(1, 5, 1, &bomb)).await;
    assert_eq!(client.next().await, Seen::Head(1, 431, false));
    assert_eq!(client.next().await, Seen::Data(1, b"more than 100 header fields".to_vec(), true));
    // few references are still too many bytes, and the table goes on
    let mut few = request("GET", "/never", &[]);
    few.extend([0x80 | 62; 5]);
    client.send(&frame_of(1, 5, 3, &few)).await;
    assert_eq!(client.next().await, Seen::Head(3, 431, false));
    assert_eq!(client.next().await, Seen::Data(3, b"head is larger than 16 KiB".to_vec(), true));
    client.works(5).await;
    assert_eq!(client.app.begun.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn b_limits_large_heads_are_refused() {
    let value = "x".repeat(6_000);
    let fields = [("a", value.as_str()), ("b", &value), ("c", &value)];
    let bytes = request("GET", "/never", &fields);
    assert!(bytes.len() < BLOCK_BYTES_MAX);
    let (first, rest) = bytes.split_at(16 << 10);
    let mut client = Client::new().await;
    client.send(&frame_of(1, 1, 1, first)).await;
    client.send(&frame_of(9, 4, 1, rest)).await;
    assert_eq!(client.next().await, Seen::Head(1, 431, false));
    assert_eq!(client.next().await, Seen::Data(1, b"head is larger than 16 KiB".to_vec(), true));
    client.works(3).await;
}

#[tokio::test]
async fn a_reset_ends_its_call() {
    let mut client = Client::new().await;
    client.send(&head_of(1, "GET", "/never", true)).await;
    client.send(&head_of(3, "GET", "/endless", true)).await;
    assert_eq!(client.next().await, Seen::Head(3, 200, false));
    assert_eq!(client.next().await, Seen::Data(3, b"begun".to_vec(), false));
    assert_eq!(client.app.running(), 1);
    client.send(&[reset_of(1), reset_of(3)].concat()).await;
    client.works(5).await;
    assert_eq!(client.app.running(), 0);
}

#[tokio::test]
async fn calls_end_when_their_client_leaves() {
    let mut client = Client::new().await;
    client.send(&head_of(1, "GET", "/never", true)).await;
    let app = Arc::clone(&client.app);
    eventually("the call begins", || app.running() == 1).await;
    drop(client.io);
    assert_eq!(client.server.await.unwrap(), Served::Gone);
    assert_eq!(client.app.running(), 0);
}

#[tokio::test]
async fn b_slow_heads_that_drip_and_rests_that_last_end() {
    let config = Config { rest: Duration::from_secs(5), head: Duration::from_millis(200) };
    let half = frame_of(1, 1, 1, &request("GET", "/a", &[]));
    for (what, sent) in [("block", &half[..]), ("frame", &half[..20]), ("header", &half[..4])] {
        let mut client = Client::with(config, &[]).await;
        client.send(sent).await;
        let (seen, served) = client.rest().await;
        assert_eq!((seen.len(), served), (1, Served::Refused), "{what}");
        assert!(matches!(seen[0], Seen::GoAway(_, Code::Calm)), "{what}: {seen:?}");
    }
    for sent in [&b"PRI * HT"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = Client::silent(config);
        client.send(sent).await;
        let (seen, served) = client.rest().await;
        assert_eq!(seen.last(), Some(&Seen::GoAway(0, Code::Calm)));
        assert_eq!(served, Served::Refused);
    }
    let config = Config { rest: Duration::from_millis(200), head: Duration::from_secs(5) };
    assert_eq!(Client::silent(config).rest().await, (Vec::new(), Served::Done));
    let mut client = Client::with(config, &[]).await;
    client.works(1).await;
    // a call that lasts is no rest
    client.send(&head_of(3, "GET", "/never", true)).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    client.send(&reset_of(3)).await;
    assert_eq!(client.rest().await, (vec![Seen::GoAway(3, Code::No)], Served::Done));
}

/// A client that makes no room for its answer loses it, and nothing else.
#[tokio::test(start_paused = true)]
async fn b_h2_an_answer_without_room_is_given_up() {
    let mut client = Client::with(
        Config { rest: Duration::from_secs(500), head: Duration::from_secs(5) },
        &[(4, 0)],
    )
    .await;
    client.send(&head_of(1, "GET", "/large", true)).await;
    assert_eq!(client.next().await, Seen::Head(1, 200, false));
    tokio::time::sleep(Duration::from_secs(20)).await;
    client.send(&frame_of(8, 0, 1, &[0, 0, 0, 9])).await;
    assert_eq!(client.next().await, Seen::Data(1, vec![b'x'; 9], false));
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(client.next().await, Seen::Reset(1, Code::Cancel));
    client.send(&frame_of(4, 0, 0, &[0, 4, 0, 0, 255, 255])).await;
    assert_eq!(client.next().await, Seen::Ack);
    client.works(3).await;
}

#[tokio::test]
async fn closing_takes_what_is_on_its_way_and_no_more() {
    let mut client = Client::new().await;
    client.send(&head_of(1, "POST", "/a", false)).await;
    eventually("the call begins", || client.app.running() == 1).await;
    client.closing.cancel();
    assert_eq!(client.next().await, Seen::GoAway(0x7fff_ffff, Code::No));
    let Seen::Ping(asked) = client.next().await else { panic!("no ping") };
    let on_its_way = head_of(3, "GET", "/on-its-way", true);
    let too_late = [head_of(5, "POST", "/too-late", false), data_of(5, b"x", true)].concat();
    client.send(&[on_its_way, frame_of(6, 1, 0, &asked), too_late].concat()).await;
    assert_eq!(client.next().await, Seen::GoAway(3, Code::No));
    assert_eq!(client.next().await, Seen::Head(3, 200, false));
    assert_eq!(client.next().await, Seen::Data(3, b"GET /on-its-way 0".to_vec(), true));
    client.send(&data_of(1, b"hi", true)).await;
    let app = Arc::clone(&client.app);
    let (seen, served) = client.rest().await;
    let want = [Seen::Head(1, 200, false), Seen::Data(1, b"POST /a 2".to_vec(), true)];
    assert_eq!((seen.as_slice(), served), (&want[..], Served::Done));
    assert_eq!(app.seen(), ["GET /on-its-way", "POST /a"]);

    // a client that does not answer the ping
    let client = Client::new().await;
    client.closing.cancel();
    let (app, server) = (Arc::clone(&client.app), client.server);
    let served = tokio::time::timeout(Duration::from_secs(4), server).await;
    assert_eq!(served.unwrap().unwrap(), Served::Done);
    assert_eq!(app.running(), 0);
}

#[tokio::test]
async fn b_limits_a_client_that_does_not_read_is_not_read_from() {
    let app = Arc::<App>::default();
    let (mut io, server) = tokio::io::duplex(4 << 10);
    let server = serving(server, &app, CONFIG, &CancellationToken::new());
    let hello = [PREFACE, &frame_of(4, 0, 0, b"")].concat();
    tokio::io::AsyncWriteExt::write_all(&mut io, &hello).await.unwrap();
    // answers of a kibibyte that nobody takes
    for round in 0..2_000 {
        let sent = head_of(round * 2 + 1, "HEAD", "/wide", true);
        let sending = tokio::io::AsyncWriteExt::write_all(&mut io, &sent);
        if tokio::time::timeout(Duration::from_millis(300), sending).await.is_err() {
            break;
        }
    }
    let most = OWED_MAX / 1_000 + STREAMS_MAX;
    let calls = app.begun.load(Ordering::SeqCst);
    assert!((100..most + 100).contains(&calls), "{calls} calls");
    drop(io);
    server.await.unwrap();
}

mod any_bytes {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::super::super::frame::PREFACE;
    use super::*;

    /// Frames that are nearly right.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let payload = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            Just(request("POST", "/echo", &[])),
            Just(request("GET", "/large", &[])),
            Just(vec![0, 0, 0, 1]),
            Just(vec![0; 8]),
        ];
        let frame = (0_u8..11, any::<u8>(), 0_u32..8, payload);
        let frame = frame.prop_map(|(kind, flags, stream, payload)| {
            frame_of(kind, flags & 0x2d, stream, &payload)
        });
        proptest::collection::vec(frame, 0..30).prop_map(|frames| frames.concat())
    }

    fn run(bytes: &[u8]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let app = Arc::<App>::default();
            let (mut io, server) = duplex(1 << 20);
            let server = serving(server, &app, CONFIG, &CancellationToken::new());
            let (mut read, mut write) = tokio::io::split(&mut io);
            let drain = async {
                let mut sink = vec![0; 64 << 10];
                while read.read(&mut sink).await.is_ok_and(|len| len > 0) {}
            };
            let feed = async {
                let _ = write.write_all(bytes).await;
                let _ = write.shutdown().await;
            };
            let both = futures_util::future::join(drain, feed);
            tokio::time::timeout(Duration::from_secs(5), both).await.expect("an end");
            drop(io);
            tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
            assert_eq!(app.running(), 0);
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn b_h2_any_bytes_end_without_a_panic(bytes: Vec<u8>, greets: bool) {
            let hello = [PREFACE, &frame_of(4, 0, 0, b"")].concat();
            run(&[if greets { &hello[..] } else { b"" }, &bytes].concat());
        }

        #[test]
        fn b_h2_any_frames_end_without_a_panic(frames in frames()) {
            run(&[PREFACE, &frame_of(4, 0, 0, b""), &frames].concat());
        }
    }
}
