//! A link fed by a hostile peer, in any cuts, while this side works on it: nothing panics, what is
//! read does not depend on the cuts, what is sent is well-formed, and every bound holds.
#![no_main]

use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use libfuzzer_sys::fuzz_target;
use mesh_agent::link::{
    Chunk, Code, Connection, Decoder, Frame, HEADER, Limits, Open, RequestHead, ResponseHead, Role,
    Settings, Target,
};

// the first byte chooses the side and its limits; then come steps, each a byte with its arguments
fuzz_target!(|data: &[u8]| {
    let Some((first, mut steps)) = data.split_first() else { return };
    let mut world = World::new(*first);
    while steps.has_remaining() {
        world.step(&mut steps);
        world.check();
    }
    decoded_alike(&world.fed, usize::from(*first));
    world.drain();
});

struct World {
    role: Role,
    limits: Limits,
    connection: Connection,
    /// One instant for all: that floods are bounded in time is for other tests.
    now: Instant,
    fed: Vec<u8>,
    /// Bytes of bodies that were read.
    read: usize,
    /// Streams that were opened or accepted here and not yet let go.
    streams: Vec<u32>,
    /// What was sent, as the peer decodes it.
    peer: Decoder,
    /// Bytes of bodies that were fed, and those that the peer was told it may send again.
    received: u64,
    credited: u64,
    decoder: Decoder,
    /// Whether bytes may have been dropped unread: with a stream that was reset or let go.
    dropped: bool,
}

impl World {
    fn new(first: u8) -> Self {
        let role = if first & 1 == 0 { Role::Server } else { Role::Client };
        let tight = Limits {
            connection_window: 256 << 10,
            unread_max: 300 << 10,
            streams_max: 64,
            backlog_max: 4,
            send_queue: 1 << 10,
            ..Limits::default()
        };
        let limits = if first & 2 == 0 { tight } else { Limits::default() };
        Self {
            role,
            limits,
            connection: Connection::new(role, limits),
            now: Instant::now(),
            fed: Vec::new(),
            read: 0,
            streams: Vec::new(),
            peer: Decoder::default(),
            received: 0,
            credited: 0,
            decoder: Decoder::default(),
            dropped: false,
        }
    }

    fn step(&mut self, steps: &mut &[u8]) {
        let mut byte = || steps.try_get_u8().unwrap_or(0);
        let (step, argument) = (byte(), byte());
        let stream = self.streams.get(usize::from(argument) % self.streams.len().max(1)).copied();
        let id = stream.unwrap_or(u32::from(argument));
        let mut rest = |len: usize| {
            let (bytes, left) = steps.split_at(len.min(steps.len()));
            *steps = left;
            bytes
        };
        if step >= 0xf0 {
            // much data in few bytes, or no window would ever be full
            let stream = rest(1).first().copied().unwrap_or(0);
            let len = u16::from(argument) << 6;
            let mut frame = [&len.to_be_bytes()[..], &[4, 0, 0, 0, 0, stream]].concat();
            frame.resize(HEADER + usize::from(len), b'x');
            (0..step & 15).for_each(|_| self.feed(&frame));
            return;
        }
        self.dropped |= matches!(step % 12, 8 | 9 | 11);
        match step % 12 {
            // bytes as they are, and as the payload of a frame whose header is sound
            0 => self.feed(rest(usize::from(argument))),
            1 => {
                let header: Vec<u8> = rest(3).to_vec();
                let payload = rest(usize::from(argument));
                let mut frame = vec![0, argument];
                frame.extend(header.iter().take(2));
                frame.extend([0, 0, 0]);
                frame.extend(header.get(2));
                frame.resize(HEADER, 0);
                frame.extend(payload);
                frame[1] = u8::try_from(frame.len() - HEADER).unwrap_or(u8::MAX);
                self.feed(&frame);
            }
            2 => self.accept(),
            3 => self.read(),
            4 => self.send(),
            5 => drop(
                self.connection.open(&open(), argument & 1 == 0).map(|id| self.streams.push(id)),
            ),
            6 => {
                let head = match argument {
                    0..8 => ResponseHead::new(StatusCode::EARLY_HINTS),
                    _ => ResponseHead::connected(),
                };
                drop(self.connection.send_head(id, &head, argument & 8 == 0));
            }
            7 => self.send_data(id, usize::from(argument) << 8),
            8 => self.connection.reset(id, Code::CANCELLED),
            9 => match argument % 4 {
                0 => self.connection.release_recv(id),
                1 => self.connection.release_send(id),
                _ => drop(self.connection.send_trailers(id, &HeaderMap::new())),
            },
            10 => self.connection.ping(),
            _ => match argument {
                0..16 => self.connection.shutdown(),
                16..20 => self.connection.refuse_all(),
                _ => self.accept(),
            },
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let over = self.connection.error().is_some();
        let taken = self.connection.input(self.now, bytes);
        assert!(!over || taken.is_err(), "a link that is over takes nothing");
        assert_eq!(taken.is_err(), self.connection.error().is_some());
        if over {
            return;
        }
        self.fed.extend_from_slice(bytes);
        let (mut bytes, ours) = (bytes, self.limits.settings());
        while let Ok(Some(frame)) = self.decoder.next(&mut bytes, &ours) {
            match frame {
                Frame::Data { stream, data, .. } => {
                    self.received += data.len() as u64;
                    self.dropped |= !self.streams.contains(&stream);
                }
                Frame::Reset { .. } | Frame::GoAway { .. } => self.dropped = true,
                _ => {}
            }
        }
    }

    fn accept(&mut self) {
        if let Poll::Ready(Some((id, _))) = self.connection.poll_accept(&waiting()) {
            assert_eq!(self.role, Role::Server, "only clients open streams");
            assert!(!self.streams.contains(&id), "accepted twice");
            self.streams.push(id);
        }
    }

    fn read(&mut self) {
        for id in self.streams.clone() {
            while let Poll::Ready(Ok(_)) = self.connection.poll_head(id, &waiting()) {}
            while let Poll::Ready(Some(Ok(chunk))) = self.connection.poll_chunk(id, &waiting()) {
                if let Chunk::Data(data) = chunk {
                    assert!(!data.is_empty());
                    self.read += data.len();
                }
            }
        }
    }

    fn send_data(&mut self, id: u32, len: usize) {
        if let Poll::Ready(Ok(room)) = self.connection.poll_room(id, &waiting()) {
            assert!((1..=self.limits.send_queue).contains(&room));
            let data = Bytes::from(vec![b'x'; len.min(room)]);
            drop(self.connection.send_data(id, data, len % 512 == 0));
        }
    }

    /// What goes out is what such a peer takes.
    fn send(&mut self) {
        let mut out = BytesMut::new();
        self.connection.output(&mut out);
        let mut bytes = &out[..];
        while let Some(frame) = self.peer.next(&mut bytes, &Settings::CEILING).expect("sound") {
            assert!(frame != Frame::Ignored, "nothing is sent that means nothing");
            match frame {
                Frame::Window { stream: 0, credit } => self.credited += u64::from(credit),
                Frame::Reset { .. } | Frame::GoAway { .. } => self.dropped = true,
                _ => {}
            }
        }
        self.check_credit();
    }

    /// So much may be under way and so much may lie here unread, once the peer was told.
    fn check_credit(&self) {
        assert!(self.credited <= self.received, "{} of {}", self.credited, self.received);
        if self.connection.error().is_some() {
            return; // what was unread is gone with the link
        }
        let window = u64::from(self.limits.settings().connection_window);
        let (most, room) = (window + self.credited, u64::from(self.limits.unread_max));
        assert!(self.received <= most, "{} bytes, {most} allowed", self.received);
        assert!(self.dropped || most <= self.read as u64 + room, "more credit than there is room");
    }

    fn check(&self) {
        let most = match self.role {
            Role::Server => self.limits.settings().streams_max,
            Role::Client => Settings::CEILING.streams_max,
        };
        assert!(self.connection.active() <= most, "{} streams", self.connection.active());
        assert!(self.read <= self.fed.len(), "{} bytes of {}", self.read, self.fed.len());
    }

    /// All that is left goes out, and what remains of the streams can be let go.
    fn drain(mut self) {
        for turn in 0.. {
            assert!(turn < 10_000, "output never ends");
            if !self.connection.has_output() {
                break;
            }
            self.send();
        }
        for id in std::mem::take(&mut self.streams) {
            self.connection.reset(id, Code::CANCELLED);
            self.connection.release_recv(id);
            self.connection.release_send(id);
        }
        self.connection.refuse_all();
        assert_eq!(self.connection.active(), 0, "a stream that nobody holds");
        self.send();
    }
}

/// Frames do not depend on how their bytes are cut.
fn decoded_alike(bytes: &[u8], step: usize) {
    let ours = Limits::default().settings();
    let read = |step: usize| {
        let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
        for mut part in bytes.chunks(step) {
            loop {
                match decoder.next(&mut part, &ours) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None)
    };
    let whole = read(bytes.len().max(1));
    assert_eq!(whole, read(step % 13 + 1));
    for frame in whole.0 {
        let mut out = BytesMut::new();
        frame.encode(&mut out, &Settings::CEILING).expect("what is taken can be sent");
        let again = Decoder::default().next(&mut &out[..], &Settings::CEILING);
        assert_eq!(again, Ok(Some(frame)));
    }
}

fn open() -> Open {
    Open::Http(RequestHead {
        target: Target::default(),
        method: Method::POST,
        path: Some("/".parse().expect("a path")),
        authority: None,
        upgrade: String::new(),
        headers: HeaderMap::new(),
    })
}

fn waiting() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
