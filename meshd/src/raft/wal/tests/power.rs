//! Power cuts at any call, with any part of the unsynced kept: what recovery reads is what was
//! acknowledged, plus a beginning of the one batch that was under way.

use std::path::Path;
use std::sync::Arc;

use crate::raft::wal::disk::Disk;
use crate::raft::wal::image::Image;
use crate::raft::wal::record::Record;
use crate::raft::wal::sim::{On, Rng, Sim};
use crate::raft::wal::{Options, WalError};

use super::{body, mark, small};

const SEEDS: u64 = 1_000;
const EIO: i32 = 5;

struct World {
    seed: u64,
    rng: Rng,
    sim: Sim,
    options: Options,
    /// What the log said was on disk.
    acked: Image,
    /// The batch that was not answered.
    under_way: Vec<Record>,
    vote: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let options = Options { segment_bytes: 600 + rng.draw(6_000), ..small() };
        let (acked, under_way) = (Image::default(), Vec::new());
        Self { seed, rng, sim: Sim::default(), options, acked, under_way, vote: 0 }
    }

    fn open(&self) -> Result<(Disk, Image), WalError> {
        Disk::open(Arc::new(self.sim.mount()), Path::new("/w"), &self.options)
    }

    /// Opens, with power cuts during recovery too, and compares.
    fn recover(&mut self) -> Disk {
        for _ in 0..self.rng.draw(3) {
            self.sim.cut_in(1 + self.rng.draw(8));
            match self.open() {
                Ok((_, image)) => self.check(image),
                Err(WalError::Io { .. }) => {}
                Err(other) => panic!("seed {}: {other}", self.seed),
            }
            self.sim.power_cycle(&mut self.rng);
        }
        let (disk, image) = self.open().unwrap_or_else(|e| panic!("seed {}: {e}", self.seed));
        self.check(image);
        disk
    }

    /// What recovery reports is from then on acknowledged: Raft answers from it.
    fn check(&mut self, found: Image) {
        let mut want = self.acked.clone();
        let mut step = self.under_way.iter();
        while want != found {
            let next = step.next();
            let next = next.unwrap_or_else(|| panic!("seed {}: read {found:#?}", self.seed));
            want.apply(next);
        }
        let indices: Vec<u64> = found.entries.keys().copied().collect();
        assert!(indices.windows(2).all(|pair| pair[0] + 1 == pair[1]), "seed {}", self.seed);
        self.acked = found;
        self.under_way.clear();
    }

    /// Writes batches until the disk refuses, at most `batches`.
    fn write(&mut self, disk: &mut Disk, batches: u64) {
        for _ in 0..batches {
            self.under_way = self.batch();
            if disk.commit(&self.under_way).is_err() {
                return;
            }
            self.under_way.iter().for_each(|record| self.acked.apply(record));
            self.under_way.clear();
            if disk.drop_purged().is_err() {
                return;
            }
        }
    }

    fn batch(&mut self) -> Vec<Record> {
        let mut image = self.acked.clone();
        let count = 1 + self.rng.draw(6);
        (0..count)
            .map(|_| {
                let record = self.record(&image);
                image.apply(&record);
                record
            })
            .collect()
    }

    fn record(&mut self, image: &Image) -> Record {
        let last = image.last_index().max(image.kept.purged_index());
        let first = image.kept.purged_index().map_or(1, |index| index + 1);
        let span = last.unwrap_or(0).saturating_sub(first) + 1;
        match self.rng.draw(12) {
            0 | 1 => {
                self.vote += 1;
                Record::Vote(body(format!("term {}", self.vote)))
            }
            2 => Record::Committed(Some(mark(first + self.rng.draw(span)))),
            3 => Record::TruncateAfter(Some(first + self.rng.draw(span))),
            4 => Record::Purge(mark(first + self.rng.draw(span + 2))),
            _ => {
                let size = [0, 10, 100, 700, 3_000][self.rng.draw(5) as usize];
                let fill = (self.rng.next() as u8).to_string().repeat(size);
                Record::Entry { index: last.map_or(1, |last| last + 1), body: body(fill) }
            }
        }
    }
}

#[test]
fn what_was_acknowledged_survives_any_power_cut() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..6 {
            let mut disk = world.recover();
            let calls = 1 + world.rng.draw(60);
            world.sim.cut_in(calls);
            world.write(&mut disk, 100);
            drop(disk);
            world.sim.power_cycle(&mut world.rng);
        }
        world.recover();
    }
}

#[test]
fn a_failed_sync_then_a_restart_then_a_power_cut_loses_nothing_that_was_read() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..4 {
            let mut disk = world.recover();
            let batches = world.rng.draw(8);
            world.write(&mut disk, batches);
            world.sim.fail_next(On::Sync, EIO);
            world.write(&mut disk, 1);
            drop(disk);
            world.sim.process_restart();
            let (disk, image) = world.open().unwrap();
            world.check(image);
            drop(disk);
            world.sim.power_cycle(&mut world.rng);
        }
        world.recover();
    }
}

#[test]
fn any_failing_call_leaves_a_log_that_opens() {
    let faults = [On::Write, On::Sync, On::SyncDir, On::Rename, On::Remove];
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for fault in faults {
            let mut disk = world.recover();
            let batches = world.rng.draw(10);
            world.write(&mut disk, batches);
            world.sim.fail_next(fault, EIO);
            world.write(&mut disk, 10);
            drop(disk);
            if world.rng.draw(2) == 0 {
                world.sim.power_cycle(&mut world.rng);
            } else {
                world.sim.process_restart();
            }
        }
        world.recover();
    }
}

/// Found at seed 1586 of a long run: the marker alone was written, read back from the cache, and
/// believed; the next segment counted on from it.
#[test]
fn a_marker_left_by_a_failed_write_does_not_outlive_a_power_cut_in_memory_only() {
    for seed in 0..64 {
        let world = World::new(seed);
        let (mut disk, _) = world.open().unwrap();
        disk.commit(&[Record::Vote(body("term 1"))]).unwrap();
        world.sim.fail_next(On::Write, EIO);
        // As long as its marker: the sim writes the first half.
        disk.commit(&[Record::TruncateAfter(Some(9))]).unwrap_err();
        drop(disk);
        world.sim.process_restart();
        let (mut disk, _) = world.open().unwrap();
        let large = body("x".repeat(10_000));
        disk.commit(&[Record::Vote(large.clone())]).unwrap();
        drop(disk);
        world.sim.power_cycle(&mut Rng(seed));
        let (_, image) = world.open().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(image.kept.vote, Some(large), "seed {seed}");
    }
}
