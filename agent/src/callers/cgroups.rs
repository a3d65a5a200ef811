//! From a cgroup's id to the unit it is in.
//!
//! A cgroup's id is the inode number of its directory (Linux 5.5 and later), so the units that
//! rules name, and what is below them, are looked up by stat. Nothing else in the tree is visited.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, DirEntry};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::unit::UnitPath;
use crate::limits::callers::{
    CGROUPS_KNOWN_MAX, ELSEWHERE_MAX, MOUNTINFO_LEN_MAX, UNIT_DIRECTORIES_MAX, WALK_COST_MIN,
};

/// Where a cgroup is, as far as the index can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    At(Arc<str>),
    /// In none of the index's units.
    Elsewhere,
    /// The tree was not walked, or not to its end: a bound was met.
    Unresolved,
}

/// Ephemeral: the ids of the cgroups in some units, learned on demand.
///
/// An id is never given to a second cgroup before the kernel has counted through 64 bits, so what
/// is learned of an id stays true.
#[derive(Debug)]
pub(super) struct Index {
    root: PathBuf,
    units: Vec<UnitPath>,
    known: HashMap<u64, Arc<str>>,
    elsewhere: HashSet<u64>,
    budget: Budget,
    /// The most directories visited below one unit, lest one crowd out the others.
    unit_max: usize,
}

impl Index {
    /// An empty index of `units` under the cgroup2 mount at `root`.
    pub(super) fn new(root: PathBuf, mut units: Vec<UnitPath>, now: Instant) -> Self {
        units.sort();
        units.dedup();
        let budget = Budget { left: Budget::FULL, at: now };
        let (known, elsewhere) = (HashMap::new(), HashSet::new());
        Self { root, units, known, elsewhere, budget, unit_max: UNIT_DIRECTORIES_MAX }
    }

    /// Where the cgroup `id` is; walks the units again if it is new.
    ///
    /// The cgroup must have existed before the call: its absence is remembered.
    pub(super) fn find(&mut self, id: u64, now: Instant) -> Found {
        if let Some(path) = self.known.get(&id) {
            return Found::At(path.clone());
        }
        if self.units.is_empty() || self.elsewhere.contains(&id) {
            return Found::Elsewhere;
        }
        if !self.budget.allows(now) {
            return Found::Unresolved;
        }
        let complete = self.refresh();
        match self.known.get(&id) {
            Some(path) => Found::At(path.clone()),
            None if complete => {
                if self.elsewhere.len() >= ELSEWHERE_MAX {
                    self.elsewhere.clear();
                }
                self.elsewhere.insert(id);
                Found::Elsewhere
            }
            None => Found::Unresolved,
        }
    }

    /// Learns the units' cgroups as they are now; says whether all were seen.
    fn refresh(&mut self) -> bool {
        let mut walk = Walk { found: HashMap::new(), visited: 0, complete: true };
        for unit in &self.units {
            walk.unit(&self.root, unit, self.unit_max);
        }
        self.budget.left -= i64::from(walk.visited.max(WALK_COST_MIN));
        self.known = walk.found;
        walk.complete
    }
}

/// How many directories may be visited: full at first, refilled by the second.
///
/// A process may make cgroups where it is allowed to, so it must not decide how long we walk.
#[derive(Debug)]
struct Budget {
    left: i64,
    at: Instant,
}

impl Budget {
    const FULL: i64 = 20_000;
    const PER_SECOND: i64 = 5_000;

    /// Whether a walk may start; one that overdraws is paid for before the next.
    fn allows(&mut self, now: Instant) -> bool {
        let millis = i64::try_from(now.saturating_duration_since(self.at).as_millis());
        let earned = millis.unwrap_or(i64::MAX).saturating_mul(Self::PER_SECOND) / 1_000;
        // The clock moves on only with what was earned, so that frequent askers lose no fraction.
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(Self::FULL);
            self.at = now;
        }
        self.left > 0
    }
}

struct Walk {
    found: HashMap<u64, Arc<str>>,
    visited: u32,
    complete: bool,
}

impl Walk {
    /// Visits the cgroup of `unit` and those below it, the upper ones first.
    fn unit(&mut self, root: &Path, unit: &UnitPath, mut left: usize) {
        let top = root.join(unit.as_str().trim_start_matches('/'));
        let device = match fs::symlink_metadata(&top) {
            Ok(meta) if meta.is_dir() => {
                self.learn(meta.ino(), unit.as_str());
                meta.dev()
            }
            Ok(_) => return,
            Err(error) => return self.missed(&error),
        };
        let mut queue = VecDeque::from([(top, unit.as_str().to_owned())]);
        while let Some((directory, path)) = queue.pop_front() {
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) => {
                    self.missed(&error);
                    continue;
                }
            };
            for entry in entries {
                if left == 0 || self.found.len() >= CGROUPS_KNOWN_MAX {
                    self.complete = false;
                    return;
                }
                if let Some(below) = self.below(entry, &path, device) {
                    left -= 1;
                    queue.push_back(below);
                }
            }
        }
    }

    /// Learns `entry` of the cgroup at `path`, if it is a cgroup; gives where to go on.
    fn below(
        &mut self, entry: io::Result<DirEntry>, path: &str, device: u64,
    ) -> Option<(PathBuf, String)> {
        let found = entry.and_then(|entry| {
            // The kernel's files are many: their type is known without a stat.
            let meta = if entry.file_type()?.is_dir() { Some(entry.metadata()?) } else { None };
            Ok((entry, meta))
        });
        let (entry, meta) = match found {
            Ok((entry, Some(meta))) if meta.dev() == device => (entry, meta),
            Ok(_) => return None, // a file, or something mounted over a cgroup
            Err(error) => {
                self.missed(&error);
                return None;
            }
        };
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            self.complete = false; // systemd names no cgroup so, others may
            return None;
        };
        let path = format!("{path}/{name}");
        self.learn(meta.ino(), &path);
        Some((entry.path(), path))
    }

    fn learn(&mut self, id: u64, path: &str) {
        self.visited = self.visited.saturating_add(1);
        self.found.insert(id, path.into());
    }

    /// A unit that does not run has no cgroup; anything else leaves the walk without its end.
    fn missed(&mut self, error: &io::Error) {
        self.complete &= matches!(error.kind(), io::ErrorKind::NotFound);
    }
}

/// Where this host's whole cgroup v2 tree is mounted, if it is.
///
/// # Errors
/// If the table of mounts cannot be read.
pub(super) fn find_root() -> io::Result<Option<PathBuf>> {
    let mut table = String::new();
    fs::File::open("/proc/self/mountinfo")?.take(MOUNTINFO_LEN_MAX).read_to_string(&mut table)?;
    Ok(root_in(&table))
}

/// Whether `root` is the top of a cgroup v2 mount.
///
/// # Errors
/// If there is no such directory.
pub(super) fn is_cgroup2(root: &Path) -> io::Result<bool> {
    let found = rustix::fs::statfs(root)?.f_type;
    Ok(u64::try_from(found) == Ok(CGROUP2_SUPER_MAGIC))
}

/// The first mount of the whole cgroup2 tree in `mountinfo` (proc_pid_mountinfo(5)).
///
/// A mount of a part of the tree, as in a container, would give other paths: it is passed over.
fn root_in(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (top, at) = (fields.next()?, fields.next()?);
        (top == "/" && source.split(' ').next() == Some("cgroup2")).then(|| unescape(at).into())
    })
}

/// Undoes the table's octal escapes of blanks, such as `\040`.
fn unescape(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::time::Duration;

    use super::*;

    /// A tree of plain directories: their inode numbers serve as cgroup ids.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(directories: &[&str]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for path in directories {
                tree.make(path);
            }
            tree
        }

        fn make(&self, path: &str) -> u64 {
            fs::create_dir_all(self.0.path().join(path)).unwrap();
            self.id(path)
        }

        fn id(&self, path: &str) -> u64 {
            fs::metadata(self.0.path().join(path)).unwrap().ino()
        }

        fn index(&self, units: &[&str], now: Instant) -> Index {
            let units = units.iter().map(|unit| unit.parse().unwrap()).collect();
            Index::new(self.0.path().to_owned(), units, now)
        }
    }

    fn at(path: &str) -> Found {
        Found::At(path.into())
    }

    #[test]
    fn ids_in_named_units_get_their_full_path() {
        let now = Instant::now();
        let tree = Tree::new(&[
            "system.slice/web.service/a/b",
            "system.slice/web.service-evil",
            "user.slice/web.service",
        ]);
        fs::write(tree.0.path().join("system.slice/web.service/cgroup.procs"), "").unwrap();
        let mut index = tree.index(&["web.service", "off.service"], now);
        let mut find = |path: &str| index.find(tree.id(path), now);
        assert_eq!(find("system.slice/web.service"), at("/system.slice/web.service"));
        assert_eq!(find("system.slice/web.service/a/b"), at("/system.slice/web.service/a/b"));
        assert_eq!(find("system.slice/web.service-evil"), Found::Elsewhere);
        assert_eq!(find("user.slice/web.service"), Found::Elsewhere);
        assert_eq!(find("system.slice/web.service/cgroup.procs"), Found::Elsewhere, "a file");
        assert_eq!(find("system.slice"), Found::Elsewhere, "the unit's parent");
    }

    #[test]
    fn a_new_cgroup_is_found_by_walking_again_and_an_absent_one_once() {
        let now = Instant::now();
        let tree = Tree::new(&["system.slice/web.service"]);
        let mut index = tree.index(&["web.service"], now);
        assert_eq!(index.find(tree.id("system.slice"), now), Found::Elsewhere);
        let spent = index.budget.left;
        assert_eq!(index.find(tree.id("system.slice"), now), Found::Elsewhere);
        assert_eq!(index.budget.left, spent, "the second answer costs no walk");
        let id = tree.make("system.slice/web.service/new");
        assert_eq!(index.find(id, now), at("/system.slice/web.service/new"));
    }

    #[test]
    fn walks_are_rationed_and_refused_rather_than_guessed() {
        let start = Instant::now();
        let tree = Tree::new(&["system.slice/web.service"]);
        let mut index = tree.index(&["web.service"], start);
        let absent = (1_u64 << 60)..;
        let answers: Vec<_> = absent.take(2_000).map(|id| index.find(id, start)).collect();
        let walked = answers.iter().filter(|found| **found == Found::Elsewhere).count();
        assert_eq!(walked as i64, Budget::FULL / i64::from(WALK_COST_MIN));
        assert_eq!(answers.last(), Some(&Found::Unresolved));
        let id = tree.make("system.slice/web.service/new");
        assert_eq!(index.find(id, start), Found::Unresolved);
        let later = start + Duration::from_millis(100);
        assert_eq!(index.find(id, later), at("/system.slice/web.service/new"));
    }

    #[test]
    fn one_units_crowd_hides_no_other_unit() {
        let now = Instant::now();
        let tree = Tree::new(&["system.slice/z.service", "other"]);
        for n in 0..9 {
            fs::create_dir_all(tree.0.path().join(format!("system.slice/a.service/{n}"))).unwrap();
        }
        let mut index = tree.index(&["a.service", "z.service"], now);
        index.unit_max = 8;
        let z = tree.id("system.slice/z.service");
        assert_eq!(index.find(z, now), at("/system.slice/z.service"));
        assert_eq!(index.find(tree.id("other"), now), Found::Unresolved, "it may be in the crowd");
    }

    #[test]
    fn without_units_nothing_is_walked() {
        let now = Instant::now();
        let mut index = Index::new("/nowhere".into(), vec![], now);
        assert_eq!(index.find(1, now), Found::Elsewhere);
        assert_eq!(index.budget.left, Budget::FULL);
    }

    #[test]
    fn the_mount_is_found_in_every_layout() {
        let unified = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      38 31 0:35 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let cases = [
            ("unified", unified, Some("/sys/fs/cgroup")),
            ("hybrid", hybrid, Some("/sys/fs/cgroup/unified")),
            ("part", "9 8 0:26 /a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", None),
            ("blank", "9 8 0:26 / /a\\040b rw - cgroup2 cgroup2 rw\n", Some("/a b")),
            ("named alike", "9 8 0:26 / /x rw - tmpfs cgroup2 rw\n", None),
            ("short", "9 8 - cgroup2\n", None),
            ("empty", "", None),
        ];
        for (name, table, want) in cases {
            assert_eq!(root_in(table), want.map(PathBuf::from), "case: {name}");
        }
    }

    #[test]
    fn a_plain_directory_is_no_cgroup_tree() {
        let tree = Tree::new(&[]);
        assert!(!is_cgroup2(tree.0.path()).unwrap());
        assert!(is_cgroup2(&tree.0.path().join("absent")).is_err());
        match find_root().unwrap() {
            Some(root) => assert!(is_cgroup2(&root).unwrap()),
            None => println!("skipped: this machine mounts no cgroup v2 tree"),
        }
    }
}
