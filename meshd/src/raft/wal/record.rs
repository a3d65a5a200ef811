//! The bytes of one record: `len u32 | crc32c u32 | type u8 | body`, little-endian.
//!
//! `len` counts type and body. The checksum covers the segment's number, the record's offset, `len`,
//! type and body: bytes that are right in themselves but stand in the wrong place do not pass. An
//! entry whose body quotes a record can therefore not pose as one.

use bytes::Bytes;

use super::WalError;
pub(super) use crate::limits::raft::RECORD_MAX;

/// A log id as the log keeps it: the index it needs, and its owner's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The log index.
    pub index: u64,
    /// The whole id, encoded by the caller.
    pub body: Bytes,
}

/// One step of the log's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The vote is now this.
    Vote(Bytes),
    /// The entry at `index`.
    Entry { index: u64, body: Bytes },
    /// The commit index is now this.
    Committed(Option<Mark>),
    /// Entries above this index (all, if none) are gone.
    TruncateAfter(Option<u64>),
    /// Entries up to this one are gone.
    Purge(Mark),
    /// A batch starts here, and **all before it is on disk**: it is written only after that sync.
    Batch(u64),
}

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// Cut short or altered: a power cut may have done this.
    Frame(&'static str),
    /// Whole and unaltered, but not ours: no power cut does this.
    Body(String),
}

/// Bytes before the body.
pub(super) const HEAD: usize = 9;

/// `len` of a batch marker: its type and its number.
const MARKER: u32 = 9;

const VOTE: u8 = 1;
const ENTRY: u8 = 2;
const COMMITTED: u8 = 3;
const TRUNCATE: u8 = 4;
const PURGE: u8 = 5;
const BATCH: u8 = 6;

impl Record {
    /// Bytes on disk.
    pub(super) fn len(&self) -> usize {
        HEAD + match self {
            Self::Vote(body) => body.len(),
            Self::Entry { body, .. } => 8 + body.len(),
            Self::Committed(None) | Self::TruncateAfter(None) => 0,
            Self::Committed(Some(mark)) | Self::Purge(mark) => 8 + mark.body.len(),
            Self::TruncateAfter(Some(_)) | Self::Batch(_) => 8,
        }
    }

    /// Refuses a record over [`RECORD_MAX`], before it is queued.
    pub(super) fn check_len(&self) -> Result<(), WalError> {
        let (len, max) = (self.len() - HEAD, RECORD_MAX - 1);
        if len > max { Err(WalError::TooLarge { len, max }) } else { Ok(()) }
    }

    /// Adds this record to `out`, whose first byte stands at `base` of segment `segment`.
    pub(super) fn encode(&self, segment: u64, base: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let offset = base + start as u64;
        let payload = (self.len() - HEAD + 1) as u32;
        out.extend_from_slice(&payload.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        match self {
            Self::Vote(body) => put(out, VOTE, None, body),
            Self::Entry { index, body } => put(out, ENTRY, Some(*index), body),
            Self::Committed(None) => put(out, COMMITTED, None, &[]),
            Self::Committed(Some(mark)) => put(out, COMMITTED, Some(mark.index), &mark.body),
            Self::TruncateAfter(index) => put(out, TRUNCATE, *index, &[]),
            Self::Purge(mark) => put(out, PURGE, Some(mark.index), &mark.body),
            Self::Batch(number) => put(out, BATCH, Some(*number), &[]),
        }
        let sum = checksum(segment, offset, payload, &out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
    }

    /// The record at `at` of a segment's bytes, and the offset after it.
    pub(super) fn decode(bytes: &[u8], at: usize, segment: u64) -> Result<(Self, usize), Damage> {
        let rest = bytes.get(at..).unwrap_or_default();
        let (Some(len), Some(sum)) = (read_u32(rest, 0), read_u32(rest, 4)) else {
            return Err(Damage::Frame("the bytes end inside a record's head"));
        };
        let size = len as usize;
        if size == 0 || size > RECORD_MAX {
            return Err(Damage::Frame("a record has an impossible length"));
        }
        let Some(payload) = rest.get(8..8 + size) else {
            return Err(Damage::Frame("the bytes end inside a record"));
        };
        if checksum(segment, at as u64, len, payload) != sum {
            return Err(Damage::Frame("a record's checksum is wrong"));
        }
        Ok((Self::parse(payload)?, at + 8 + size))
    }

    fn parse(payload: &[u8]) -> Result<Self, Damage> {
        let (kind, body) = (payload[0], &payload[1..]);
        let index = read_u64(body);
        let rest = || Bytes::copy_from_slice(&body[8..]);
        match (kind, index, body.len()) {
            (VOTE, _, _) => Ok(Self::Vote(Bytes::copy_from_slice(body))),
            (ENTRY, Some(index), _) => Ok(Self::Entry { index, body: rest() }),
            (COMMITTED, None, 0) => Ok(Self::Committed(None)),
            (COMMITTED, Some(index), _) => Ok(Self::Committed(Some(Mark { index, body: rest() }))),
            (TRUNCATE, index, 0 | 8) => Ok(Self::TruncateAfter(index)),
            (PURGE, Some(index), _) => Ok(Self::Purge(Mark { index, body: rest() })),
            (BATCH, Some(number), 8) => Ok(Self::Batch(number)),
            (kind, _, len) => {
                Err(Damage::Body(format!("stands a record of type {kind} with {len} bytes")))
            }
        }
    }
}

/// Offset of the first whole batch marker at or after `from`, whatever lies between.
///
/// Markers have one fixed length, so this is one pass.
pub(super) fn find_batch(bytes: &[u8], from: usize, segment: u64) -> Option<usize> {
    let marker = HEAD + 8;
    let last = bytes.len().checked_sub(marker)?;
    (from..=last).find(|&at| {
        read_u32(&bytes[at..], 0) == Some(MARKER)
            && bytes[at + 8] == BATCH
            && matches!(Record::decode(bytes, at, segment), Ok((Record::Batch(_), _)))
    })
}

fn put(out: &mut Vec<u8>, kind: u8, index: Option<u64>, body: &[u8]) {
    out.push(kind);
    out.extend(index.iter().flat_map(|index| index.to_le_bytes()));
    out.extend_from_slice(body);
}

fn checksum(segment: u64, offset: u64, len: u32, payload: &[u8]) -> u32 {
    let mut place = [0; 20];
    place[..8].copy_from_slice(&segment.to_le_bytes());
    place[8..16].copy_from_slice(&offset.to_le_bytes());
    place[16..].copy_from_slice(&len.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), payload)
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn read_u64(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn mark(index: u64) -> Mark {
        Mark { index, body: Bytes::from(vec![index as u8; 3]) }
    }

    fn records() -> Vec<Record> {
        vec![
            Record::Batch(7),
            Record::Vote(Bytes::from_static(b"v")),
            Record::Vote(Bytes::new()),
            Record::Entry { index: 0, body: Bytes::new() },
            Record::Entry { index: u64::MAX, body: Bytes::from(vec![9; 5000]) },
            Record::Committed(None),
            Record::Committed(Some(mark(4))),
            Record::TruncateAfter(None),
            Record::TruncateAfter(Some(3)),
            Record::Purge(mark(2)),
        ]
    }

    #[test]
    fn every_kind_reads_back_and_has_its_stated_length() {
        let (base, mut bytes) = (40, vec![0; 40]);
        for record in records() {
            let mut one = Vec::new();
            record.encode(3, bytes.len() as u64, &mut one);
            assert_eq!(one.len(), record.len(), "{record:?}");
            bytes.extend(one);
        }
        let mut at = base;
        for want in records() {
            let (got, next) = Record::decode(&bytes, at, 3).unwrap();
            assert_eq!(got, want);
            at = next;
        }
        assert_eq!(at, bytes.len());
    }

    #[test]
    fn a_record_is_refused_in_another_place_or_with_any_bit_changed() {
        let mut bytes = Vec::new();
        Record::Vote(Bytes::from_static(b"term 5")).encode(1, 0, &mut bytes);
        assert!(Record::decode(&bytes, 0, 1).is_ok());
        assert!(matches!(Record::decode(&bytes, 0, 2), Err(Damage::Frame(_))), "other segment");
        let moved = [&[0; 8], bytes.as_slice()].concat();
        assert!(matches!(Record::decode(&moved, 8, 1), Err(Damage::Frame(_))), "other offset");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Record::decode(&bad, 0, 1), Err(Damage::Frame(_))), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(matches!(Record::decode(&bytes[..cut], 0, 1), Err(Damage::Frame(_))), "{cut}");
        }
    }

    #[test]
    fn a_whole_record_of_unknown_type_is_not_called_torn() {
        let mut bytes = Vec::new();
        Record::Vote(Bytes::from_static(b"x")).encode(1, 0, &mut bytes);
        bytes[8] = 99;
        let sum = checksum(1, 0, 2, &bytes[8..]);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        assert!(matches!(Record::decode(&bytes, 0, 1), Err(Damage::Body(_))));
    }

    #[test]
    fn a_marker_is_found_behind_garbage_but_not_inside_an_entry() {
        let mut quoted = Vec::new();
        Record::Batch(9).encode(1, 0, &mut quoted);
        let mut bytes = vec![0xAA; 100];
        Record::Entry { index: 1, body: quoted.into() }.encode(1, 0, &mut bytes);
        assert_eq!(find_batch(&bytes, 0, 1), None);
        let want = bytes.len();
        Record::Batch(2).encode(1, 0, &mut bytes);
        assert_eq!(find_batch(&bytes, 0, 1), Some(want));
        assert_eq!(find_batch(&bytes, want + 1, 1), None);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes: Vec<u8>, at in 0_usize..64, segment: u64) {
            let _ = Record::decode(&bytes, at, segment);
            let _ = find_batch(&bytes, at, segment);
        }
    }
}
