//! Clients that write while things break, and remember what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::world::World;
use super::plan::BACKS;
use crate::cluster::path;
use crate::net::Host;
use crate::operator::Operator;
use crate::process::{Ran, output};

/// What one client knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    /// What it wrote, by id.
    pub(super) known: BTreeMap<String, Known>,
    /// Writes that were acknowledged.
    pub(super) acknowledged: u64,
    /// Writes that were not.
    pub(super) unknown: u64,
    /// Reads that had to show its own writes, and did answer.
    pub(super) reads: u64,
    /// The versions it was told, in order.
    pub(super) versions: Vec<u64>,
    /// The longest time for an acknowledged write.
    pub(super) slowest: Duration,
    /// What is wrong.
    pub(super) wrong: Vec<String>,
}

/// What a client knows of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It was told that it is there.
    There,
    /// It was told that it is gone.
    Gone,
    /// It was told nothing.
    Unknown,
}

/// The clients.
#[derive(Debug)]
pub(super) struct Writers {
    stop: Arc<AtomicBool>,
    policy: Vec<JoinHandle<Ledger>>,
    services: Vec<JoinHandle<Ledger>>,
}

impl Writers {
    /// Starts three that write policy, each by another server first, and one on each host of
    /// applications that declares instances.
    pub(super) fn start(world: &World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let policy = (0..3).map(|number| {
            let mut operator = world.mesh.operator();
            operator.servers.rotate_left(number);
            let dir = world.mesh.folder(&format!("writer-{number}"));
            Client { work: Work::Policy { number, operator, dir }, ledger: Ledger::default() }
        });
        let services = BACKS.iter().map(|name| {
            let (host, dir) =
                (world.mesh.net.host(name).clone(), world.mesh.agent(name).dir.clone());
            Client { work: Work::Services { host, dir }, ledger: Ledger::default() }
        });
        let policy = policy.map(|client| client.start(&stop)).collect();
        let services = services.map(|client| client.start(&stop)).collect();
        Self { stop, policy, services }
    }

    /// Stops them; what those of policy and those of services know.
    ///
    /// # Panics
    /// If one of them panicked.
    pub(super) fn stop(self) -> (Vec<Ledger>, Vec<Ledger>) {
        self.stop.store(true, Ordering::Relaxed);
        let join = |threads: Vec<JoinHandle<Ledger>>| {
            threads.into_iter().map(|thread| thread.join().expect("a writer")).collect()
        };
        (join(self.policy), join(self.services))
    }
}

/// One client.
#[derive(Debug)]
struct Client {
    work: Work,
    ledger: Ledger,
}

#[derive(Debug)]
enum Work {
    Policy { number: usize, operator: Operator, dir: PathBuf },
    Services { host: Host, dir: PathBuf },
}

impl Client {
    fn start(mut self, stop: &Arc<AtomicBool>) -> JoinHandle<Ledger> {
        let stop = Arc::clone(stop);
        std::thread::spawn(move || {
            for turn in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                self.turn(turn);
                sleep(BETWEEN);
            }
            self.ledger
        })
    }

    /// Makes something new, takes the oldest away, or reads what it wrote.
    fn turn(&mut self, turn: u64) {
        let live = self.ledger.known.iter().filter(|(_, known)| **known == Known::There);
        let (count, oldest) = (live.clone().count(), live.map(|(id, _)| id.clone()).next());
        match oldest {
            Some(oldest) if turn % 5 == 3 || count > LIVE_MOST => self.take(&oldest),
            _ if turn % 5 == 4 => self.read(),
            _ => self.make(turn),
        }
    }

    fn make(&mut self, turn: u64) {
        let began = Instant::now();
        let (id, ran) = match &self.work {
            Work::Policy { number, operator, dir } => {
                // in order of age
                let name = format!("w{number}-{turn:06}");
                let file = dir.join(format!("{name}.toml"));
                let text = format!("[[allow.orders]]\nname = \"{name}\"\nfrom = [\"web\"]\n");
                fs::write(&file, text).expect("policy file");
                let ran = operator.cli(&["apply", path(&file), "-o", "json", "--timeout", "3s"]);
                (format!("allow.orders/{name}"), ran)
            }
            Work::Services { host, dir } => {
                let id = format!("spare-{}-{turn:06}", host.name);
                let args = ["service", "add", "spare", "--name", &id, "--port", "8081"];
                let ran = local(host, dir, &args);
                (id, ran)
            }
        };
        self.ledger.written(id, &ran, Known::There, began.elapsed());
    }

    fn take(&mut self, id: &str) {
        let began = Instant::now();
        let ran = match &self.work {
            Work::Policy { operator, .. } => {
                operator.cli(&["delete", id, "-o", "json", "--timeout", "3s"])
            }
            Work::Services { host, dir } => local(host, dir, &["service", "remove", id]),
        };
        self.ledger.written(id.to_owned(), &ran, Known::Gone, began.elapsed());
    }

    /// What was acknowledged is seen by every consistent read that begins later.
    fn read(&mut self) {
        let Work::Policy { operator, number, .. } = &self.work else { return };
        let mut other = operator.clone();
        other.servers.rotate_left(1);
        let list = other.json(&["get", "--consistent", "--timeout", "3s"]);
        if let Some(found) = policy_ids(&list) {
            self.ledger.reads += 1;
            let (version, told) = (&list["version"], self.ledger.versions.last());
            let server = &other.servers[0];
            let at = |why| {
                format!("writer {number} read version {version} of {server}, told {told:?}: {why}")
            };
            let wrong: Vec<_> = self.ledger.differs(&found).into_iter().map(at).collect();
            self.ledger.wrong.extend(wrong);
        }
    }
}

/// The ids of the objects in the answer to `mesh get -o json`.
pub(super) fn policy_ids(list: &Value) -> Option<BTreeSet<String>> {
    let all = list["objects"].as_array()?;
    all.iter().map(|one| Some(one["id"].as_str()?.to_owned())).collect()
}

fn local(host: &Host, dir: &Path, args: &[&str]) -> Ran {
    let mut command = host.mesh("mesh");
    command.args(args).arg("--socket").arg(dir.join("agent.sock")).args(["--timeout", "3s"]);
    output(command, Duration::from_secs(60))
}

impl Ledger {
    fn written(&mut self, id: String, ran: &Ran, told: Known, took: Duration) {
        if ran.code != Some(0) {
            self.unknown += 1;
            self.known.insert(id, Known::Unknown);
            return;
        }
        self.acknowledged += 1;
        self.slowest = self.slowest.max(took);
        let answer: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        if let Some(version) = answer["version"].as_u64() {
            let last = self.versions.last().copied().unwrap_or_default();
            if version <= last {
                self.wrong.push(format!("{id} got version {version}, after {last}"));
            }
            self.versions.push(version);
        }
        self.known.insert(id, told);
    }

    /// How what is there differs from what this client was told.
    pub(super) fn differs(&self, found: &BTreeSet<String>) -> Vec<String> {
        let wrong = self.known.iter().filter_map(|(id, known)| match (known, found.contains(id)) {
            (Known::There, false) => Some(format!("{id} was acknowledged and is lost")),
            (Known::Gone, true) => Some(format!("{id} was taken away and is there again")),
            (Known::There, true) | (Known::Gone, false) | (Known::Unknown, _) => None,
        });
        wrong.collect()
    }
}

/// Things of one client at most at once.
const LIVE_MOST: usize = 40;
const BETWEEN: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(code: i32, version: u64) -> Ran {
        let stdout = format!("{{\"version\": {version}}}");
        Ran { code: Some(code), stdout, stderr: String::new() }
    }

    #[test]
    fn what_was_told_is_held_against_what_is_there() {
        let mut ledger = Ledger::default();
        let took = Duration::from_millis(1);
        ledger.written("a".to_owned(), &ran(0, 1), Known::There, took);
        ledger.written("b".to_owned(), &ran(0, 2), Known::There, took);
        ledger.written("b".to_owned(), &ran(0, 3), Known::Gone, took);
        ledger.written("c".to_owned(), &ran(3, 4), Known::There, took);
        let differs = |found: &[&str]| {
            ledger.differs(&found.iter().map(|id| (*id).to_owned()).collect()).len()
        };
        assert_eq!(differs(&["a"]), 0);
        assert_eq!(differs(&["a", "c", "of somebody else"]), 0, "nobody was told of c");
        assert_eq!(differs(&[]), 1, "a is lost");
        assert_eq!(differs(&["a", "b"]), 1, "b came back");
        assert_eq!((ledger.acknowledged, ledger.unknown), (3, 1));
        assert!(ledger.wrong.is_empty());
        ledger.written("d".to_owned(), &ran(0, 3), Known::There, took);
        assert_eq!(ledger.wrong.len(), 1, "a version came twice");
    }
}
