//! The log on disk: recovery, and one batch after another. Knows no threads.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::image::{Image, Kept};
use super::record::Record;
use super::segment::{self, Scan, Segment};
use super::vfs::{Vfs, VfsFile};
use super::{Options, WalError};

/// The open segments and the end of the last one. After any error it must not be used again.
pub(super) struct Disk {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    segment_bytes: u64,
    /// In order, without a hole; the last one is written to.
    segments: VecDeque<Segment>,
    file: Box<dyn VfsFile>,
    /// Bytes of the last segment that are written, all of them synced.
    end: u64,
    /// Bytes of the last segment before its first batch.
    start: u64,
    next_batch: u64,
    /// Nothing was written after the last marker.
    sealed: bool,
    /// What a next segment starts with: as of the last batch written.
    kept: Kept,
    _lock: Box<dyn Send + Sync>,
}

/// What recovery read of one directory.
struct Replay {
    image: Image,
    segments: VecDeque<Segment>,
    /// The last segment's bytes and what to make of them.
    tail: Option<(Vec<u8>, Scan)>,
}

impl Disk {
    /// Opens the log in `dir`, or makes it, and replays it.
    ///
    /// Never edits a file in place: the whole part of the last segment is written anew and renamed
    /// over. Without that, a log reopened after a failed write or sync would take for durable what
    /// only the page cache holds, and no later sync would write it.
    ///
    /// # Errors
    /// Any [`WalError`] but `Hole`, `TooLarge`, `Stalled` and `Closed`.
    pub(super) fn open(
        vfs: Arc<dyn Vfs>, dir: &Path, options: &Options,
    ) -> Result<(Self, Image), WalError> {
        vfs.create_dir(dir).map_err(|e| WalError::io("create", dir, e))?;
        let lock = lock(&*vfs, dir)?;
        let Replay { image, mut segments, tail } = replay(&*vfs, dir)?;
        let kept = image.kept.clone();
        let mut sealed = true;
        let (file, end, next_batch) = match (segments.back(), tail) {
            (Some(last), Some((bytes, scan))) => {
                let whole = &bytes[..scan.end];
                sealed = scan.sealed;
                let file = install(&*vfs, dir, last.number, whole)?;
                (file, whole.len() as u64, scan.next_batch)
            }
            (_, _) => {
                segments.push_back(Segment { number: 1, max_index: None });
                let bytes = segment::header(1, 1);
                (install(&*vfs, dir, 1, &bytes)?, bytes.len() as u64, 1)
            }
        };
        let dir = dir.to_owned();
        let segment_bytes = options.segment_bytes;
        let start = segment::HEADER as u64;
        let mut disk = Self {
            vfs,
            dir,
            segment_bytes,
            segments,
            file,
            end,
            start,
            next_batch,
            sealed,
            kept,
            _lock: lock,
        };
        disk.drop_purged()?;
        Ok((disk, image))
    }

    /// Writes `records` as one batch and returns once they are on disk.
    ///
    /// # Errors
    /// [`WalError::Io`]: the log is over.
    pub(super) fn commit<'a>(
        &mut self, records: impl IntoIterator<Item = &'a Record, IntoIter: Clone>,
    ) -> Result<(), WalError> {
        let records = records.into_iter();
        let marker = Record::Batch(self.next_batch);
        let size: usize = marker.len() + records.clone().map(Record::len).sum::<usize>();
        if self.end + size as u64 > self.segment_bytes && self.end > self.start {
            self.roll()?;
        }
        let number = self.number();
        let mut bytes = Vec::with_capacity(size);
        marker.encode(number, self.end, &mut bytes);
        for record in records.clone() {
            record.encode(number, self.end, &mut bytes);
        }
        let path = segment::path(&self.dir, number);
        self.file.write_at(self.end, &bytes).map_err(|e| WalError::io("append to", &path, e))?;
        self.file.sync().map_err(|e| WalError::io("sync", &path, e))?;
        self.end += bytes.len() as u64;
        self.next_batch += 1;
        self.sealed = true;
        records.for_each(|record| self.note(record));
        Ok(())
    }

    /// Marks that all before is on disk, so that a later reader tells damage to it from a torn write.
    ///
    /// # Errors
    /// [`WalError::Io`]: the log is over.
    pub(super) fn seal(&mut self) -> Result<(), WalError> {
        if self.sealed { Ok(()) } else { self.commit([]) }
    }

    /// Removes the front segments that hold nothing but purged entries, one durable step each, so
    /// that a power cut never leaves a hole.
    ///
    /// # Errors
    /// [`WalError::Io`]: the log is over.
    pub(super) fn drop_purged(&mut self) -> Result<(), WalError> {
        // Before the first purge nothing goes, not even segments that hold votes alone: a log that
        // starts late and was never purged is one that lost its front.
        let Some(purged) = self.kept.purged_index() else {
            return Ok(());
        };
        while self.segments.len() > 1
            && let Some(front) = self.segments.front()
            && front.max_index <= Some(purged)
        {
            let path = segment::path(&self.dir, front.number);
            self.vfs.remove(&path).map_err(|e| WalError::io("remove", &path, e))?;
            self.vfs.sync_dir(&self.dir).map_err(|e| WalError::io("sync", &self.dir, e))?;
            self.segments.pop_front();
        }
        Ok(())
    }

    fn number(&self) -> u64 {
        self.segments.back().map_or(0, |last| last.number)
    }

    fn note(&mut self, record: &Record) {
        self.sealed = false;
        self.kept.apply(record);
        if let (Record::Entry { index, .. }, Some(last)) = (record, self.segments.back_mut()) {
            last.max_index = last.max_index.max(Some(*index));
        }
    }

    /// Starts the next segment with what must outlive the earlier ones.
    fn roll(&mut self) -> Result<(), WalError> {
        let number = self.number() + 1;
        let mut bytes = segment::header(number, self.next_batch);
        for record in self.kept.records() {
            record.encode(number, 0, &mut bytes);
        }
        self.file = install(&*self.vfs, &self.dir, number, &bytes)?;
        self.end = bytes.len() as u64;
        self.start = self.end;
        self.segments.push_back(Segment { number, max_index: None });
        Ok(())
    }
}

fn lock(vfs: &dyn Vfs, dir: &Path) -> Result<Box<dyn Send + Sync>, WalError> {
    let path = dir.join("LOCK");
    vfs.lock(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => WalError::Locked { dir: dir.to_owned() },
        _ => WalError::io("lock", &path, error),
    })
}

/// Puts `bytes` in place as segment `number`: whole and durable, or not at all.
fn install(
    vfs: &dyn Vfs, dir: &Path, number: u64, bytes: &[u8],
) -> Result<Box<dyn VfsFile>, WalError> {
    let path = segment::path(dir, number);
    let tmp = path.with_extension("wal.tmp");
    let mut file = vfs.create(&tmp).map_err(|e| WalError::io("create", &tmp, e))?;
    file.write_at(0, bytes).map_err(|e| WalError::io("write", &tmp, e))?;
    file.sync().map_err(|e| WalError::io("sync", &tmp, e))?;
    vfs.rename(&tmp, &path).map_err(|e| WalError::io("rename to", &path, e))?;
    vfs.sync_dir(dir).map_err(|e| WalError::io("sync", dir, e))?;
    Ok(file)
}

fn replay(vfs: &dyn Vfs, dir: &Path) -> Result<Replay, WalError> {
    let numbers = list_segments(vfs, dir)?;
    let mut replay = Replay { image: Image::default(), segments: VecDeque::new(), tail: None };
    for (at, number) in numbers.iter().copied().enumerate() {
        let path = segment::path(dir, number);
        let bytes = vfs.read(&path).map_err(|e| WalError::io("read", &path, e))?;
        let before = replay.tail.take().map(|(_, scan)| scan.next_batch);
        let scan = replay.read_segment(&path, &bytes, number, before)?;
        if let (Some(what), true) = (scan.torn, at + 1 < numbers.len()) {
            return Err(WalError::corrupt(&path, scan.end as u64, what));
        }
        replay.tail = Some((bytes, scan));
    }
    replay.check_front(dir)?;
    Ok(replay)
}

/// The segments' numbers in order; what an interrupted roll left is removed.
fn list_segments(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<u64>, WalError> {
    let names = vfs.list(dir).map_err(|e| WalError::io("list", dir, e))?;
    for name in names.iter().filter(|name| name.ends_with(".wal.tmp")) {
        let path = dir.join(name);
        vfs.remove(&path).map_err(|e| WalError::io("remove", &path, e))?;
    }
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::parse_name(name)).collect();
    numbers.sort_unstable();
    for pair in numbers.windows(2) {
        if pair[1] != pair[0] + 1 {
            return Err(WalError::Missing { path: segment::path(dir, pair[0] + 1) });
        }
    }
    Ok(numbers)
}

impl Replay {
    /// Applies one segment. `next_batch` is what the segment before it ended with.
    fn read_segment(
        &mut self, path: &Path, bytes: &[u8], number: u64, next_batch: Option<u64>,
    ) -> Result<Scan, WalError> {
        let mut max_index = None;
        let image = &mut self.image;
        let scan = segment::scan(path, bytes, number, |record| {
            if let Record::Entry { index, .. } = &record {
                // Earlier segments may be gone, so a log that is empty may start anywhere here;
                // `check_front` looks at the outcome.
                match image.last_index() {
                    Some(last) if last.checked_add(1) != Some(*index) => {
                        return ControlFlow::Break(format!("entry {index} follows entry {last}"));
                    }
                    Some(_) | None => max_index = max_index.max(Some(*index)),
                }
            }
            image.apply(&record);
            ControlFlow::Continue(())
        })?;
        if let Some(expected) = next_batch.filter(|expected| *expected != scan.first_batch) {
            let what = format!("starts batch {}, expected {expected}", scan.first_batch);
            return Err(WalError::corrupt(path, 0, what));
        }
        self.segments.push_back(Segment { number, max_index });
        Ok(scan)
    }

    /// Refuses a log whose front was lost rather than purged.
    fn check_front(&self, dir: &Path) -> Result<(), WalError> {
        let first = self.image.entries.keys().next().copied();
        match (self.image.kept.purged_index(), first, self.segments.front()) {
            (Some(purged), Some(found), _) if found != purged.saturating_add(1) => {
                let expected = purged.saturating_add(1);
                Err(WalError::Gap { dir: dir.to_owned(), found, expected })
            }
            (None, _, Some(front)) if front.number > 1 => {
                Err(WalError::Missing { path: segment::path(dir, front.number - 1) })
            }
            _ => Ok(()),
        }
    }
}
