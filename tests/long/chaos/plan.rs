//! What breaks, in which order and for how long: a function of the seed alone.

use std::fmt;
use std::time::Duration;

use super::super::world::{FRONT, SERVERS};

/// The hosts of the applications.
pub(super) const BACKS: [&str; 2] = ["back-1", "back-2"];

/// Something that breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Servers are killed.
    KillServers(Vec<Server>),
    /// A server is stopped in its tracks, and goes on later.
    PauseServer(Server),
    /// A server is cut off from everybody.
    CutServer(Server),
    /// The disk of [`SMALL_DISK`] is full.
    FillDisk,
    /// A host's cable delays and loses.
    BadLink { host: &'static str, delay_ms: u64, loss_permille: u64 },
    /// An agent is killed.
    KillAgent(&'static str),
    /// An agent is stopped in its tracks, and goes on later.
    PauseAgent(&'static str),
    /// A host of applications is cut off from everybody.
    CutAgent(&'static str),
    /// An application is killed.
    KillBackend { host: &'static str, instance: &'static str },
}

/// A server, by what it is when the fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// Whoever leads.
    Leader,
    /// By name.
    Named(&'static str),
}

/// The server whose disk is small.
pub(super) const SMALL_DISK: &str = SERVERS[2];

/// Faults that begin and are mended together, and the peace after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) faults: Vec<Fault>,
    pub(super) lasts: Duration,
    pub(super) rest: Duration,
}

/// The steps, without end.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    rng: u64,
    longest: Duration,
}

impl Plan {
    /// The plan of a seed, with no fault longer than `longest`.
    pub(super) fn new(seed: u64, longest: Duration) -> Self {
        Self { rng: seed, longest }
    }

    /// SplitMix64: from 0 to below `end`.
    fn draw(&mut self, end: u64) -> u64 {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.rng;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.draw(all.len() as u64)).unwrap_or_default()]
    }

    fn server(&mut self) -> Server {
        match self.draw(2) {
            0 => Server::Leader,
            _ => Server::Named(self.one_of(&SERVERS)),
        }
    }

    /// A fault of the control cluster. Calls go on.
    fn control(&mut self) -> Fault {
        match self.draw(9) {
            0..=2 => Fault::KillServers(vec![self.server()]),
            3 => Fault::KillServers(vec![Server::Leader, Server::Named(self.one_of(&SERVERS))]),
            4 => Fault::KillServers(SERVERS.map(Server::Named).to_vec()),
            5 => Fault::PauseServer(self.server()),
            6 => Fault::CutServer(self.server()),
            7 => Fault::FillDisk,
            _ => self.bad_link(&SERVERS, 150, 50),
        }
    }

    /// A fault where the calls go.
    fn data(&mut self) -> Fault {
        match self.draw(7) {
            0 => Fault::KillAgent(FRONT),
            1 => Fault::KillAgent(self.one_of(&BACKS)),
            2 => Fault::PauseAgent(self.one_of(&BACKS)),
            3 => Fault::CutAgent(self.one_of(&BACKS)),
            4 | 5 => Fault::KillBackend {
                host: self.one_of(&BACKS),
                instance: self.one_of(&["orders-1", "orders-2", "cache-1"]),
            },
            _ => self.bad_link(&[FRONT, BACKS[0], BACKS[1]], 80, 15),
        }
    }

    fn bad_link(&mut self, hosts: &[&'static str], delay: u64, loss: u64) -> Fault {
        let host = self.one_of(hosts);
        Fault::BadLink { host, delay_ms: 10 + self.draw(delay), loss_permille: 5 + self.draw(loss) }
    }

    fn between(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(from_ms + self.draw(to_ms - from_ms))
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let (faults, lasts) = match self.draw(20) {
            0..10 => (vec![self.control()], self.between(3_000, 15_000)),
            10..17 => (vec![self.data()], self.between(5_000, 35_000)),
            _ => (vec![self.control(), self.data()], self.between(5_000, 20_000)),
        };
        let rest = self.between(2_000, 5_000);
        Some(Step { faults, lasts: lasts.min(self.longest), rest: rest.min(self.longest) })
    }
}

impl Fault {
    /// The control servers that it hits, but for those with a disk or a cable.
    pub(super) fn servers(&self) -> &[Server] {
        match self {
            Self::KillServers(servers) => servers,
            Self::PauseServer(server) | Self::CutServer(server) => std::slice::from_ref(server),
            Self::FillDisk
            | Self::BadLink { .. }
            | Self::KillAgent(_)
            | Self::PauseAgent(_)
            | Self::CutAgent(_)
            | Self::KillBackend { .. } => &[],
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillServers(servers) => {
                let names: Vec<String> = servers.iter().map(ToString::to_string).collect();
                write!(f, "kill {}", names.join(", "))
            }
            Self::PauseServer(server) => write!(f, "pause {server}"),
            Self::CutServer(server) => write!(f, "cut {server} off"),
            Self::FillDisk => write!(f, "fill the disk of {SMALL_DISK}"),
            Self::BadLink { host, delay_ms, loss_permille } => {
                write!(f, "bad cable of {host}: {delay_ms} ms, {loss_permille} of 1000 lost")
            }
            Self::KillAgent(host) => write!(f, "kill the agent on {host}"),
            Self::PauseAgent(host) => write!(f, "pause the agent on {host}"),
            Self::CutAgent(host) => write!(f, "cut {host} off"),
            Self::KillBackend { host, instance } => write!(f, "kill {instance} on {host}"),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => f.write_str("the leader"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(60);

    #[test]
    fn the_seed_is_the_whole_plan() {
        let steps = |seed| Plan::new(seed, LONGEST).take(50).collect::<Vec<_>>();
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
    }

    #[test]
    fn every_kind_of_fault_comes_and_none_lasts_too_long() {
        let longest = Duration::from_secs(6);
        let steps: Vec<Step> = Plan::new(1, longest).take(400).collect();
        assert!(steps.iter().all(|step| step.lasts <= longest && step.rest <= longest));
        let faults = steps.iter().flat_map(|step| &step.faults);
        let kinds: BTreeSet<String> = faults
            .map(|fault| fault.to_string().split(' ').take(2).collect::<Vec<_>>().join(" "))
            .collect();
        for kind in ["kill the", "kill ctl-1,", "pause the", "cut the", "fill the", "bad cable"] {
            assert!(kinds.contains(kind), "{kind} is not in {kinds:?}");
        }
        assert!(kinds.contains("cut back-1") && kinds.contains("kill cache-1"), "{kinds:?}");
    }
}
