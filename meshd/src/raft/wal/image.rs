//! What the log says, in memory: the fold of its records.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::WalError;
use super::record::{Mark, Record};

/// The log's content. Entries are contiguous; the first is the one after `kept.purged`.
///
/// Holds every entry that was not purged: a checkpoint every so many entries bounds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) kept: Kept,
    pub(super) entries: BTreeMap<u64, Bytes>,
    /// Sum of the entries' bodies, in bytes.
    pub(super) live_bytes: usize,
}

/// The part of the log that outlives every segment: each new segment starts with a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Mark>,
    pub(super) purged: Option<Mark>,
}

impl Kept {
    pub(super) fn apply(&mut self, record: &Record) {
        match record {
            Record::Vote(vote) => self.vote = Some(vote.clone()),
            Record::Committed(mark) => self.committed.clone_from(mark),
            Record::Purge(mark) => {
                if self.purged_index() < Some(mark.index) {
                    self.purged = Some(mark.clone());
                }
            }
            Record::Entry { .. } | Record::TruncateAfter(_) | Record::Batch(_) => {}
        }
    }

    pub(super) fn purged_index(&self) -> Option<u64> {
        self.purged.as_ref().map(|mark| mark.index)
    }

    /// The records that bring an empty log to this.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        let vote = self.vote.clone().map(Record::Vote);
        let purged = self.purged.clone().map(Record::Purge);
        let committed = self.committed.clone().map(|mark| Record::Committed(Some(mark)));
        [vote, purged, committed].into_iter().flatten()
    }
}

impl Image {
    pub(super) fn last_index(&self) -> Option<u64> {
        self.entries.last_key_value().map(|(index, _)| *index)
    }

    /// Whether an entry at `index` may come next.
    ///
    /// A log that never held an entry starts anywhere; a purged one goes on where the purge ended.
    pub(super) fn check_next(&self, index: u64) -> Result<(), WalError> {
        let before = self.last_index().max(self.kept.purged_index());
        match before.map(|before| before.saturating_add(1)) {
            Some(expected) if expected != index => Err(WalError::Hole { found: index, expected }),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn apply(&mut self, record: &Record) {
        self.kept.apply(record);
        match record {
            Record::Entry { index, body } => {
                self.live_bytes += body.len();
                if let Some(old) = self.entries.insert(*index, body.clone()) {
                    self.live_bytes -= old.len();
                }
            }
            Record::TruncateAfter(last) => {
                let gone = match last.map(|last| last.checked_add(1)) {
                    Some(Some(first)) => self.entries.split_off(&first),
                    Some(None) => BTreeMap::new(),
                    None => std::mem::take(&mut self.entries),
                };
                self.live_bytes -= body_bytes(&gone);
            }
            Record::Purge(mark) => {
                let first = mark.index.checked_add(1);
                let live = first.map(|first| self.entries.split_off(&first)).unwrap_or_default();
                let gone = std::mem::replace(&mut self.entries, live);
                self.live_bytes -= body_bytes(&gone);
            }
            Record::Vote(_) | Record::Committed(_) | Record::Batch(_) => {}
        }
    }
}

fn body_bytes(entries: &BTreeMap<u64, Bytes>) -> usize {
    entries.values().map(Bytes::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> Record {
        Record::Entry { index, body: Bytes::from(vec![0; 10]) }
    }

    fn purge(index: u64) -> Record {
        Record::Purge(Mark { index, body: Bytes::new() })
    }

    #[test]
    fn truncation_is_exclusive_and_purge_inclusive() {
        let cases: &[(&str, Record, &[u64], Option<u64>)] = &[
            ("truncate inside", Record::TruncateAfter(Some(3)), &[1, 2, 3], None),
            ("truncate at the last", Record::TruncateAfter(Some(5)), &[1, 2, 3, 4, 5], None),
            ("truncate past the end", Record::TruncateAfter(Some(9)), &[1, 2, 3, 4, 5], None),
            ("truncate before the first", Record::TruncateAfter(Some(0)), &[], None),
            ("truncate all", Record::TruncateAfter(None), &[], None),
            ("purge nothing", purge(0), &[1, 2, 3, 4, 5], Some(0)),
            ("purge inside", purge(3), &[4, 5], Some(3)),
            ("purge all", purge(5), &[], Some(5)),
            ("purge past the end", purge(9), &[], Some(9)),
        ];
        for (name, record, left, purged) in cases {
            let mut image = Image::default();
            (1..=5).for_each(|index| image.apply(&entry(index)));
            image.apply(record);
            assert_eq!(image.entries.keys().copied().collect::<Vec<_>>(), *left, "{name}");
            assert_eq!(image.kept.purged_index(), *purged, "{name}");
            assert_eq!(image.live_bytes, left.len() * 10, "{name}");
        }
    }

    #[test]
    fn only_the_next_index_may_come() {
        let mut image = Image::default();
        assert!(image.check_next(7).is_ok(), "an empty log starts anywhere");
        image.apply(&purge(4));
        image.apply(&purge(2));
        assert_eq!(image.kept.purged_index(), Some(4), "a purge never goes back");
        assert!(image.check_next(5).is_ok());
        assert!(matches!(image.check_next(6), Err(WalError::Hole { found: 6, expected: 5 })));
        image.apply(&entry(5));
        assert!(image.check_next(5).is_err(), "no overwrite");
        assert!(image.check_next(6).is_ok());
    }
}
