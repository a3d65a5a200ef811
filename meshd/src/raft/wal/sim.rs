//! A disk that forgets: what was not synced may be lost, torn or kept in any order at a power cut.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::vfs::{Vfs, VfsFile};

/// A disk writes sectors whole or not at all.
const SECTOR: usize = 512;

/// SplitMix64: the seed is the whole run.
#[derive(Clone, Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to `below` - 1.
    pub(super) fn draw(&mut self, below: u64) -> u64 {
        self.next() % below
    }
}

/// Which calls a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    Write,
    Sync,
    SyncDir,
    Rename,
    Remove,
}

/// The disk; clones share it.
#[derive(Clone, Default)]
pub(super) struct Sim(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    files: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending: Vec<NameOp>,
    locks: BTreeSet<PathBuf>,
    next_inode: u64,
    /// Grows at each power cut: older handles are dead.
    life: u64,
    /// Calls that change something, so far.
    calls: u64,
    /// The power fails at this call.
    cut_at: Option<u64>,
    fault: Option<(On, i32)>,
    syncs: u64,
}

#[derive(Clone, Debug)]
enum NameOp {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, u64),
}

#[derive(Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: BTreeSet<usize>,
    /// Sectors a failed sync dropped: the cache has them, the disk perhaps not, and no later sync
    /// will write them.
    lost: BTreeSet<usize>,
}

/// The disk as one life of the machine sees it: dead after a power cut, so that a writer thread of
/// an earlier life cannot touch what the next one reads.
pub(super) struct Mount {
    sim: Sim,
    life: u64,
}

struct Handle {
    sim: Sim,
    inode: u64,
    life: u64,
}

struct LockGuard(Sim, PathBuf, u64);

impl Sim {
    /// The power fails at the `calls`-th changing call from now.
    pub(super) fn cut_in(&self, calls: u64) {
        let mut disk = self.disk();
        disk.cut_at = Some(disk.calls + calls);
    }

    /// The next call of that kind fails with this OS error, once.
    pub(super) fn fail_next(&self, on: On, errno: i32) {
        self.disk().fault = Some((on, errno));
    }

    /// Syncs of file data tried so far.
    pub(super) fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// The power fails and comes back: decides by `rng` what of the unsynced survived.
    pub(super) fn power_cycle(&self, rng: &mut Rng) {
        let mut disk = self.disk();
        let keep = [0, 100, 50, 90, 10][rng.draw(5) as usize];
        let pending = std::mem::take(&mut disk.pending);
        let ordered = rng.draw(2) == 0;
        for op in pending {
            let kept = rng.draw(2) == 0;
            if kept {
                apply_name(&mut disk.durable_names, &op);
            } else if ordered {
                break;
            }
        }
        disk.files.values_mut().for_each(|inode| inode.power_cycle(keep, rng));
        disk.names = disk.durable_names.clone();
        disk.locks.clear();
        disk.life += 1;
        disk.cut_at = None;
        disk.fault = None;
    }

    /// The process ended, the machine did not: locks go, the cache stays.
    pub(super) fn process_restart(&self) {
        let mut disk = self.disk();
        disk.locks.clear();
        disk.fault = None;
    }

    /// Changes a file's bytes behind the log's back.
    pub(super) fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk();
        let inode = disk.names[path];
        let inode = disk.files.get_mut(&inode).unwrap();
        change(&mut inode.current);
        inode.durable = inode.current.clone();
    }

    /// The segment files, in order.
    pub(super) fn segments(&self) -> Vec<PathBuf> {
        let disk = self.disk();
        let wal = |path: &&PathBuf| path.extension().is_some_and(|ext| ext == "wal");
        disk.names.keys().filter(wal).cloned().collect()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    /// The disk for a process started now.
    pub(super) fn mount(&self) -> Mount {
        Mount { sim: self.clone(), life: self.disk().life }
    }
}

impl Mount {
    fn disk(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.sim.disk();
        if self.life == disk.life { Ok(disk) } else { Err(earlier_life()) }
    }
}

fn earlier_life() -> io::Error {
    io::Error::other("the machine lost power since")
}

impl Disk {
    /// Counts a changing call; fails if the power is off or a fault is due.
    fn call(&mut self, on: On) -> io::Result<()> {
        self.calls += 1;
        if self.cut_at.is_some_and(|at| self.calls >= at) {
            return Err(io::Error::other("power is off"));
        }
        match self.fault.take_if(|(kind, _)| *kind == on) {
            Some((_, errno)) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }

    fn inode(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&mut self, op: NameOp) {
        apply_name(&mut self.names, &op);
        self.pending.push(op);
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, u64>, op: &NameOp) {
    match op {
        NameOp::Link(path, inode) => drop(names.insert(path.clone(), *inode)),
        NameOp::Unlink(path) => drop(names.remove(path)),
        NameOp::Rename(from, to, inode) => {
            names.remove(from);
            names.insert(to.clone(), *inode);
        }
    }
}

impl Inode {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.current.len() < end {
            self.current.resize(end, 0);
        }
        self.current[offset..end].copy_from_slice(bytes);
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            self.dirty.insert(sector);
            self.lost.remove(&sector);
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.current.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let range = self.range(sector, self.current.len());
            self.durable[range.clone()].copy_from_slice(&self.current[range]);
        }
    }

    fn power_cycle(&mut self, keep: u64, rng: &mut Rng) {
        let (old, new) = (self.durable.len(), self.current.len());
        let grown = new.saturating_sub(old) as u64;
        let len = match rng.draw(3) {
            0 => old,
            1 => new,
            _ => old + rng.draw(grown + 1) as usize,
        };
        self.durable.resize(len.max(old.min(new)), 0);
        let unsure: Vec<usize> = self.dirty.iter().chain(&self.lost).copied().collect();
        for sector in unsure {
            let range = self.range(sector, self.durable.len().min(new));
            if rng.draw(100) < keep {
                self.durable[range.clone()].copy_from_slice(&self.current[range]);
            } else if rng.draw(4) == 0 {
                // A block that was allocated but never written holds what it held before.
                let fresh = range.start.max(old).min(range.end)..range.end;
                self.durable[fresh].fill_with(|| rng.next() as u8);
            }
        }
        self.current = self.durable.clone();
        self.dirty.clear();
        self.lost.clear();
    }

    fn range(&self, sector: usize, len: usize) -> std::ops::Range<usize> {
        (sector * SECTOR).min(len)..((sector + 1) * SECTOR).min(len)
    }
}

impl Vfs for Mount {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut disk = self.disk()?;
        if !disk.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(LockGuard(self.sim.clone(), path.to_owned(), disk.life)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk()?;
        let here = disk.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(here.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let disk = self.disk()?;
        Ok(disk.files[&disk.inode(path)?].current.clone())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut disk = self.disk()?;
        disk.call(On::Write)?;
        disk.next_inode += 1;
        let inode = disk.next_inode;
        disk.files.insert(inode, Inode::default());
        disk.rename(NameOp::Link(path.to_owned(), inode));
        Ok(Box::new(Handle { sim: self.sim.clone(), inode, life: self.life }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk()?;
        disk.call(On::Rename)?;
        let inode = disk.inode(from)?;
        disk.rename(NameOp::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk()?;
        disk.call(On::Remove)?;
        disk.inode(path)?;
        disk.rename(NameOp::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut disk = self.disk()?;
        disk.call(On::SyncDir)?;
        disk.pending.clear();
        disk.durable_names = disk.names.clone();
        Ok(())
    }
}

impl VfsFile for Handle {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.sim.disk();
        if self.life != disk.life {
            return Err(earlier_life());
        }
        let outcome = disk.call(On::Write);
        // A write that fails may have written a part.
        let part = if outcome.is_ok() { bytes.len() } else { bytes.len() / 2 };
        let inode = disk.files.get_mut(&self.inode).unwrap();
        inode.write(offset as usize, &bytes[..part]);
        outcome
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.sim.disk();
        disk.syncs += 1;
        if self.life != disk.life {
            return Err(earlier_life());
        }
        let outcome = disk.call(On::Sync);
        let inode = disk.files.get_mut(&self.inode).unwrap();
        match &outcome {
            Ok(()) => inode.sync(),
            Err(error) if error.raw_os_error().is_some() => {
                let dropped = std::mem::take(&mut inode.dirty);
                inode.lost.extend(dropped);
            }
            Err(_) => {}
        }
        outcome
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        let mut disk = self.0.disk();
        if disk.life == self.2 {
            disk.locks.remove(&self.1);
        }
    }
}
