//! One segment file: its name, its header, and how its bytes read back.
//!
//! `header | vote, purge and commit as they were | batch | batch ...`, where a batch is a marker with
//! its number and the records that were synced together. The part before the first batch is on
//! disk before the file gets its name, so every earlier segment can be dropped.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::WalError;
use super::record::{Damage, Record, find_batch};

/// Version of the format below; another one is refused.
const VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"MESHWAL\0";

/// Bytes of the header: magic, version, two of zero, segment number, first batch, crc32c.
pub(super) const HEADER: usize = 32;

/// A segment's place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// The highest index of any entry in it, also of those truncated later.
    pub(super) max_index: Option<u64>,
}

/// How the end of a segment reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// Bytes that are whole.
    pub(super) end: usize,
    /// The number of the first batch, written or not.
    pub(super) first_batch: u64,
    /// The number the next batch gets.
    pub(super) next_batch: u64,
    /// The last record is a marker, so all before it is known to be on disk.
    pub(super) sealed: bool,
    /// What stands at `end`, if the file goes on.
    pub(super) torn: Option<&'static str>,
}

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.wal"))
}

/// The number in a segment's file name.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

pub(super) fn header(number: u64, first_batch: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&first_batch.to_le_bytes());
    let sum = crc32c::crc32c(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

/// Reads the segment `number` and hands its records, markers left out, to `each`.
///
/// A damaged end is reported as torn only if no batch marker follows it: a marker proves that all
/// before it was once on disk, so damage in front of one is corruption. Within one batch the disk
/// may have kept any part, in any order. `each` says what is wrong with a record that makes no sense.
///
/// # Errors
/// [`WalError::Corrupt`], or [`WalError::Version`] for another release's file.
pub(super) fn scan(
    path: &Path, bytes: &[u8], number: u64, mut each: impl FnMut(Record) -> ControlFlow<String>,
) -> Result<Scan, WalError> {
    let first_batch = read_header(path, bytes, number)?;
    let mut scan =
        Scan { end: HEADER, first_batch, next_batch: first_batch, sealed: true, torn: None };
    while scan.end < bytes.len() {
        let at = scan.end;
        let corrupt = |what: String| WalError::corrupt(path, at as u64, what);
        match Record::decode(bytes, at, number) {
            Ok((Record::Batch(found), _)) if found != scan.next_batch => {
                return Err(corrupt(format!("starts batch {found}, expected {}", scan.next_batch)));
            }
            Ok((Record::Batch(found), next)) => {
                scan = Scan { end: next, next_batch: found + 1, sealed: true, ..scan };
            }
            Ok((record, next)) => {
                if let ControlFlow::Break(what) = each(record) {
                    return Err(corrupt(what));
                }
                scan = Scan { end: next, sealed: false, ..scan };
            }
            Err(Damage::Body(what)) => return Err(corrupt(what)),
            Err(Damage::Frame(what)) => {
                if let Some(later) = find_batch(bytes, at + 1, number) {
                    let text = format!("{what}, yet a later batch stands at byte {later}");
                    return Err(corrupt(text));
                }
                return Ok(Scan { torn: Some(what), ..scan });
            }
        }
    }
    Ok(scan)
}

/// The first batch's number. The header was synced before the file got its name, so it cannot tear.
fn read_header(path: &Path, bytes: &[u8], number: u64) -> Result<u64, WalError> {
    let Some(head) = bytes.first_chunk::<HEADER>() else {
        return Err(WalError::corrupt(path, 0, "the file is shorter than its header"));
    };
    let found = u16::from_le_bytes([head[8], head[9]]);
    if head[..8] != MAGIC {
        return Err(WalError::corrupt(path, 0, "the file does not start like a segment"));
    }
    if found != VERSION {
        return Err(WalError::Version { path: path.to_owned(), found, expected: VERSION });
    }
    let first_batch = u64::from_le_bytes(std::array::from_fn(|i| head[20 + i]));
    if header(number, first_batch) != head {
        return Err(WalError::corrupt(path, 0, "the header's checksum or number is wrong"));
    }
    Ok(first_batch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use bytes::Bytes;

    use super::*;

    fn vote(text: &'static str) -> Record {
        Record::Vote(Bytes::from_static(text.as_bytes()))
    }

    fn segment(records: &[Record]) -> Vec<u8> {
        let mut bytes = header(1, 5);
        for record in records {
            record.encode(1, 0, &mut bytes);
        }
        bytes
    }

    fn scan_all(bytes: &[u8]) -> Result<(Scan, usize), WalError> {
        let mut count = 0;
        let scan = scan(Path::new("/w/1.wal"), bytes, 1, |_| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok((scan, count))
    }

    #[test]
    fn names_parse_back_and_others_are_not_ours() {
        assert_eq!(parse_name("000000000000002a.wal"), Some(42));
        assert_eq!(path(Path::new("/w"), 42), Path::new("/w/000000000000002a.wal"));
        for name in ["2a.wal", "000000000000002a.wal.tmp", "LOCK", "zz0000000000002a.wal", ".wal"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_cut_anywhere_in_the_last_batch_is_torn() {
        let bytes = segment(&[vote("carried"), Record::Batch(5), vote("a"), vote("b")]);
        let (whole, count) = scan_all(&bytes).unwrap();
        assert_eq!((whole.end, whole.next_batch, whole.sealed, count), (bytes.len(), 6, false, 3));
        let carried = segment(&[vote("carried")]).len();
        for cut in carried..bytes.len() {
            let (scan, _) = scan_all(&bytes[..cut]).unwrap();
            assert_eq!(scan.torn.is_some(), scan.end < cut, "cut {cut}");
        }
    }

    #[test]
    fn damage_before_a_later_batch_is_corruption_and_after_the_last_marker_is_torn() {
        let records =
            [vote("carried"), Record::Batch(5), vote("a"), Record::Batch(6), vote("b"), vote("c")];
        let bytes = segment(&records);
        let last_marker = segment(&records[..3]).len();
        for at in HEADER..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            let got = scan_all(&bad);
            if at < last_marker {
                let error = got.unwrap_err().to_string();
                assert!(error.contains("corrupt, not torn"), "byte {at}: {error}");
            } else {
                assert!(got.unwrap().0.torn.is_some(), "byte {at}");
            }
        }
    }

    #[test]
    fn a_bad_header_is_refused() {
        let good = segment(&[]);
        let edit = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            bytes
        };
        let cases: &[(&str, Vec<u8>, &str)] = &[
            ("empty", vec![], "shorter than its header"),
            ("short", good[..HEADER - 1].to_vec(), "shorter than its header"),
            ("magic", edit(0, b'X'), "does not start like a segment"),
            ("newer", edit(8, 2), "format version 2, expected 1"),
            ("number", edit(12, 9), "checksum or number is wrong"),
        ];
        for (name, bytes, want) in cases {
            let error = scan_all(bytes).unwrap_err().to_string();
            assert!(error.contains(want), "{name}: {error}");
        }
    }

    #[test]
    fn a_batch_out_of_order_is_refused() {
        let error = scan_all(&segment(&[Record::Batch(5), Record::Batch(7)])).unwrap_err();
        assert!(error.to_string().contains("starts batch 7, expected 6"), "{error}");
    }
}
