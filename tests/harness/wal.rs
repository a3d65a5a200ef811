//! What the log's writer and its checker agree on, and what must hold after every end.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use meshd::raft::wal::{Options, Wal};

/// Small segments, so that a short run makes many.
pub fn options() -> Options {
    Options { segment_bytes: 64 << 10, ..Options::default() }
}

/// A body that says which entry (or vote) it is, with `size` more bytes.
pub fn body(index: u64, term: u64, size: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(16 + size);
    bytes.extend_from_slice(&index.to_be_bytes());
    bytes.extend_from_slice(&term.to_be_bytes());
    bytes.resize(16 + size, index as u8);
    bytes.into()
}

/// The term that [`body`] was given.
///
/// # Panics
/// If `bytes` are not of [`body`].
pub fn term_of(bytes: &[u8]) -> u64 {
    let (index, rest) = bytes.split_first_chunk::<8>().expect("an index");
    let (term, fill) = rest.split_first_chunk::<8>().expect("a term");
    let index = u64::from_be_bytes(*index);
    assert!(fill.iter().all(|byte| *byte == index as u8), "bytes of entry {index} are another's");
    u64::from_be_bytes(*term)
}

/// What was acknowledged, over the life of one log.
#[derive(Debug, Default)]
pub struct Acknowledged {
    vote: u64,
    entries: BTreeMap<u64, u64>,
    purged: u64,
    /// How many acknowledgements were read.
    pub count: u64,
}

impl Acknowledged {
    /// Takes in what one writer printed; a last line cut short counts for nothing.
    ///
    /// # Panics
    /// On a line that no writer prints.
    pub fn read(&mut self, printed: &str) {
        let whole = printed.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<u64>().expect("a number");
            self.count += 1;
            match words[0] {
                "vote" => self.vote = number(1),
                "entry" => drop(self.entries.insert(number(1), number(2))),
                "truncate" => drop(self.entries.split_off(&(number(1) + 1))),
                "purge" => {
                    self.purged = self.purged.max(number(1));
                    self.entries = self.entries.split_off(&(self.purged + 1));
                }
                _ => panic!("unexpected line: {line:?}"),
            }
        }
    }

    /// Opens the log in `dir` and holds it to what was acknowledged.
    ///
    /// # Panics
    /// If anything acknowledged is missing or changed.
    pub fn check(&self, dir: &Path) {
        let wal = Wal::open(dir, options()).expect("the log opens");
        let state = wal.state().expect("state");
        let vote = state.vote.as_ref().map_or(0, |vote| term_of(vote));
        assert!(vote >= self.vote, "vote {vote} came back, {} was acknowledged", self.vote);
        let purged = state.purged.map_or(0, |mark| mark.index);
        assert!(purged <= self.purged, "purged up to {purged}, asked for {}", self.purged);
        let found = wal.read(.., usize::MAX).expect("read");
        let indices = found.iter().map(|(index, _)| *index);
        assert!(indices.zip(purged + 1..).all(|(index, next)| index == next), "a hole");
        let found: BTreeMap<u64, u64> =
            found.iter().map(|(index, bytes)| (*index, term_of(bytes))).collect();
        for (index, term) in &self.entries {
            assert_eq!(found.get(index), Some(term), "acknowledged entry {index}");
        }
        wal.close().expect("close");
    }
}
