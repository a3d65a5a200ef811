//! Random calls through the thread, with reopening, against a plain vector.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use crate::raft::wal::sim::{Rng, Sim};
use crate::raft::wal::{Mark, Wal, WalState};

use super::{body, ignore, mark, small};

#[derive(Clone, Debug)]
enum Call {
    Append(Vec<usize>),
    AppendHole,
    Vote(u64),
    Committed(Option<u64>),
    /// Counted back from the last entry.
    TruncateLast(u64),
    TruncateAll,
    /// Counted on from the first entry.
    Purge(u64),
    Reopen,
    PowerCycle(u64),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = prop_oneof![
        6 => prop::collection::vec(0_usize..400, 0..8).prop_map(Call::Append),
        1 => Just(Call::AppendHole),
        2 => any::<u64>().prop_map(Call::Vote),
        2 => prop::option::of(0_u64..100).prop_map(Call::Committed),
        2 => (0_u64..6).prop_map(Call::TruncateLast),
        1 => Just(Call::TruncateAll),
        2 => (0_u64..12).prop_map(Call::Purge),
        2 => Just(Call::Reopen),
        1 => any::<u64>().prop_map(Call::PowerCycle),
    ];
    prop::collection::vec(call, 1..40)
}

#[derive(Default)]
struct Model {
    entries: Vec<(u64, Bytes)>,
    vote: Option<Bytes>,
    committed: Option<Mark>,
    purged: Option<Mark>,
}

impl Model {
    fn next(&self) -> u64 {
        let last = self.entries.last().map(|(index, _)| *index);
        last.max(self.purged.as_ref().map(|mark| mark.index)).map_or(1, |last| last + 1)
    }

    fn state(&self) -> WalState {
        WalState {
            vote: self.vote.clone(),
            committed: self.committed.clone(),
            purged: self.purged.clone(),
            first: self.entries.first().map(|(index, _)| *index),
            last: self
                .entries
                .last()
                .map(|(index, body)| Mark { index: *index, body: body.clone() }),
            live_bytes: self.entries.iter().map(|(_, body)| body.len()).sum(),
        }
    }

    fn append(&mut self, sizes: &[usize]) -> Vec<(u64, Bytes)> {
        let first = self.next();
        let new: Vec<(u64, Bytes)> =
            (first..).zip(sizes).map(|(i, n)| (i, body(format!("{i} ").repeat(*n)))).collect();
        self.entries.extend(new.clone());
        new
    }

    fn purge(&mut self, mark: Mark) {
        self.entries.retain(|(index, _)| *index > mark.index);
        if self.purged.as_ref().is_none_or(|purged| purged.index < mark.index) {
            self.purged = Some(mark);
        }
    }
}

fn run(calls: &[Call]) {
    let sim = Sim::default();
    let open = || Wal::open_on(Arc::new(sim.mount()), Path::new("/w"), small()).unwrap();
    let (mut wal, mut model) = (open(), Model::default());
    for call in calls {
        match call {
            Call::Append(sizes) => wal.append(model.append(sizes), ignore()).unwrap(),
            Call::AppendHole => {
                // An empty log may start anywhere, so only a hole inside the call is one.
                let next = model.next();
                let entries = vec![(next, Bytes::new()), (next + 2, Bytes::new())];
                wal.append(entries, ignore()).unwrap_err();
            }
            Call::Vote(vote) => {
                model.vote = Some(body(vote.to_string()));
                wal.save_vote(body(vote.to_string()), ignore()).unwrap();
            }
            Call::Committed(index) => {
                model.committed = index.map(mark);
                wal.save_committed(index.map(mark)).unwrap();
            }
            Call::TruncateLast(count) => {
                let last = model.next().saturating_sub(1 + count);
                model.entries.retain(|(index, _)| *index <= last);
                wal.truncate_after(Some(last)).unwrap();
            }
            Call::TruncateAll => {
                model.entries.clear();
                wal.truncate_after(None).unwrap();
            }
            Call::Purge(count) => {
                let first = model.entries.first().map_or(model.next(), |(index, _)| *index);
                model.purge(mark(first + count));
                wal.purge(mark(first + count)).unwrap();
            }
            Call::Reopen => {
                wal.close().unwrap();
                wal = open();
            }
            Call::PowerCycle(seed) => {
                // An empty append is answered once all before it is on disk.
                wal.append_blocking(Vec::new()).unwrap();
                sim.power_cycle(&mut Rng(*seed));
                wal = open();
            }
        }
        assert_eq!(wal.state().unwrap(), model.state(), "after {call:?}");
        assert_eq!(wal.read(.., usize::MAX).unwrap(), model.entries, "after {call:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_log_is_a_vector_that_survives(calls in calls()) {
        run(&calls);
    }
}
