//! Two sides, any chunking, any order of readiness: every stream ends with the bytes meant for
//! it, all of them and no others, or with the reset that was sent. The seed is the whole run.

use std::collections::BTreeMap;

use super::*;

struct World {
    rng: u64,
    pair: Pair,
    to_server: BytesMut,
    to_client: BytesMut,
    streams: BTreeMap<u32, Flow>,
    opened: u32,
}

/// What one stream was given and gave, from client (0) and from server (1).
#[derive(Default)]
struct Flow {
    sent: [usize; 2],
    got: [usize; 2],
    ended: [bool; 2],
    seen_end: [bool; 2],
    accepted: bool,
    reset: bool,
}

/// The byte a stream carries at an offset: its own pattern in each direction.
fn pattern(id: u32, side: usize, at: usize) -> u8 {
    let mixed =
        (u64::from(id) << 33 | (side as u64) << 32 | at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

impl World {
    fn new(seed: u64) -> Self {
        let limits = Limits {
            connection_window: 256 << 10,
            unread_max: 1 << 20,
            stream_window_max: 128 << 10,
            quiet_max: 100_000,
            ..Limits::default()
        };
        let pair = Pair {
            client: Connection::new(Role::Client, limits),
            server: Connection::new(Role::Server, limits),
            now: Instant::now(),
        };
        Self {
            rng: seed,
            pair,
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
            streams: BTreeMap::new(),
            opened: 0,
        }
    }

    /// SplitMix64.
    fn draw(&mut self, below: usize) -> usize {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    }

    fn side(&mut self, side: usize) -> &mut Connection {
        if side == 0 { &mut self.pair.client } else { &mut self.pair.server }
    }

    fn pick(&mut self) -> Option<u32> {
        let ids: Vec<u32> =
            self.streams.iter().filter(|(_, f)| !f.reset).map(|(id, _)| *id).collect();
        if ids.is_empty() { None } else { Some(ids[self.draw(ids.len())]) }
    }

    fn step(&mut self) {
        match self.draw(20) {
            0 | 1 if self.opened < 40 => self.open(),
            2..=5 => self.deliver(0),
            6..=9 => self.deliver(1),
            10 => self.accept(),
            11 if self.draw(8) == 0 => self.reset(),
            side @ 12..=15 => self.send(side % 2),
            side => self.receive(side % 2),
        }
    }

    fn open(&mut self) {
        let id = self.pair.client.open(&http(), false).unwrap();
        self.streams.insert(id, Flow::default());
        self.opened += 1;
    }

    fn accept(&mut self) {
        if let Poll::Ready(Some((id, _))) = self.pair.server.poll_accept(&cx()) {
            self.pair.server.send_head(id, &ok(), false).unwrap();
            self.streams.get_mut(&id).unwrap().accepted = true;
        }
    }

    fn reset(&mut self) {
        let Some(id) = self.pick() else { return };
        let flow = self.streams.get_mut(&id).unwrap();
        let side = usize::from(flow.accepted && flow.got[0].is_multiple_of(2));
        flow.reset = true;
        self.side(side).reset(id, Code::CANCELLED);
    }

    fn send(&mut self, side: usize) {
        let Some(id) = self.pick() else { return };
        let flow = &self.streams[&id];
        if flow.ended[side] || (side == 1 && !flow.accepted) {
            return;
        }
        let (from, len, end) = (flow.sent[side], self.draw(60_000), self.draw(6) == 0);
        let Poll::Ready(Ok(room)) = self.side(side).poll_room(id, &cx()) else { return };
        let len = len.min(room);
        let data: Vec<u8> = (from..from + len).map(|at| pattern(id, side, at)).collect();
        self.side(side).send_data(id, data.into(), end).unwrap();
        let flow = self.streams.get_mut(&id).unwrap();
        flow.sent[side] += len;
        flow.ended[side] = end;
    }

    /// The other side of `side` reads a chunk of what `side` sent.
    fn receive(&mut self, side: usize) {
        let Some(id) = self.pick() else { return };
        match self.side(1 - side).poll_chunk(id, &cx()) {
            Poll::Ready(Some(Ok(Chunk::Data(data)))) => {
                let flow = self.streams.get_mut(&id).unwrap();
                let from = flow.got[side];
                for (at, byte) in (from..).zip(&data) {
                    assert_eq!(*byte, pattern(id, side, at), "stream {id} side {side} at {at}");
                }
                flow.got[side] += data.len();
                assert!(flow.got[side] <= flow.sent[side], "stream {id} got more than was sent");
            }
            Poll::Ready(None) if side == 1 || self.streams[&id].accepted => {
                let flow = self.streams.get_mut(&id).unwrap();
                assert!(flow.ended[side] && flow.got[side] == flow.sent[side], "stream {id} cut");
                flow.seen_end[side] = true;
            }
            Poll::Ready(Some(other)) => panic!("stream {id}: {other:?}"),
            Poll::Ready(None) | Poll::Pending => {}
        }
    }

    /// Moves some bytes of what is under way from `side` to the other, cut anywhere.
    fn deliver(&mut self, side: usize) {
        let part = self.draw(20_000) + 1;
        let now = self.pair.now;
        let (from, wire, to) = if side == 0 {
            (&mut self.pair.client, &mut self.to_server, &mut self.pair.server)
        } else {
            (&mut self.pair.server, &mut self.to_client, &mut self.pair.client)
        };
        if wire.len() < 64 << 10 {
            from.output(wire);
        }
        let part = wire.split_to(part.min(wire.len()));
        to.input(now, &part).unwrap();
    }

    fn check(&self) {
        for connection in [&self.pair.client, &self.pair.server] {
            let unread: usize = connection.streams.values().map(|s| s.recv.data.len()).sum();
            assert_eq!(connection.unread as usize, unread);
            assert!(connection.unread <= connection.limits.unread_max);
            let active = connection.streams.values().filter(|s| s.active).count();
            assert_eq!(connection.active as usize, active);
        }
    }

    /// Ends every stream, lets everything arrive, and looks at what became of it.
    fn converge(&mut self, seed: u64) {
        for _ in 0..200_000 {
            for side in [0, 1] {
                self.deliver(side);
                self.receive(side);
                if let Some(id) = self.pick() {
                    self.finish(id, side);
                }
            }
            self.accept();
            let done = |f: &Flow| f.reset || f.seen_end == [true; 2];
            if self.streams.values().all(done) && self.pair.client.active() == 0 {
                self.check();
                return;
            }
        }
        panic!("seed {seed}: did not converge");
    }

    fn finish(&mut self, id: u32, side: usize) {
        let flow = self.streams.get_mut(&id).unwrap();
        if !flow.ended[side] && (side == 0 || flow.accepted) {
            flow.ended[side] = true;
            self.side(side).send_data(id, Bytes::new(), true).unwrap();
        }
    }
}

#[test]
fn no_byte_reaches_another_stream_and_none_is_lost() {
    for seed in 0..24 {
        let mut world = World::new(seed);
        for _ in 0..1_500 {
            world.step();
            world.check();
        }
        world.converge(seed);
    }
}
