//! [`Agents`]: what this server knows of each agent, by its streams and by what others told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mesh_core::api::AgentStatus;
use mesh_core::name::{NodeName, ServerName};
use mesh_core::revision::Revision;
use mesh_core::stream::{AgentHello1, Heartbeat1};
use mesh_core::time::UnixMillis;
use mesh_net::clock;
use serde::{Deserialize, Serialize};

use super::Tick;
pub(super) use crate::limits::lease::STREAMS_PER_NODE_MAX;
use crate::limits::lease::{
    BEGIN_MS, EXPOSED_MAX, LEAF_BYTES_MAX, LEAVES_MAX, TEXT_CHARS_MAX, WARNINGS_MAX,
};

/// The table. Holds one entry for each node of the state at most, once pruned.
#[derive(Debug)]
pub(crate) struct Agents {
    begin: Instant,
    me: ServerName,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<NodeName, Entry>,
    streams: u64,
}

#[derive(Debug)]
struct Entry {
    status: AgentStatus,
    heard: Tick,
    /// The node's streams on this server that are open, by their number.
    streams: BTreeMap<u64, Process>,
    /// Not told to the leader yet.
    changed: bool,
}

/// A process of an agent: an old and a new one may overlap, here or on two servers.
#[derive(Clone, Debug)]
struct Process {
    generation: u64,
    version: String,
}

impl Entry {
    /// Has stream `number` speak for the node, if it is open and of the newest process known; the
    /// status is then as this server, `me`, has it.
    fn speaker(&mut self, number: u64, me: &ServerName) -> Option<&mut AgentStatus> {
        let rank = |(number, process): (&u64, &Process)| (process.generation, *number);
        let newest = self.streams.iter().map(rank).max();
        let process = self.streams.get(&number)?;
        let elsewhere = self.status.connected && self.status.server.as_ref() != Some(me);
        let newer_elsewhere = elsewhere && self.status.generation > process.generation;
        if newest != Some((process.generation, number)) || newer_elsewhere {
            return None;
        }
        let status = &mut self.status;
        (status.connected, status.server) = (true, Some(me.clone()));
        (status.generation, status.version) = (process.generation, process.version.clone());
        Some(status)
    }
}

/// One agent, as a server tells the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentReport {
    /// What is known.
    pub(crate) status: AgentStatus,
    /// Milliseconds since it was heard of.
    pub(crate) age_ms: u64,
}

/// A stream on this server, as entered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opened(u64);

impl Agents {
    pub(crate) fn new(me: ServerName) -> Self {
        Self { begin: Instant::now(), me, table: Mutex::default() }
    }

    /// Now, on this table's clock.
    pub(crate) fn now(&self) -> Tick {
        Tick(BEGIN_MS + u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(0))
    }

    /// An agent opened a stream. The newest process speaks for the node, by its newest stream;
    /// every stream's heartbeats keep the lease.
    ///
    /// # Errors
    /// The node has [`STREAMS_PER_NODE_MAX`] streams here, for people.
    pub(crate) fn opened(&self, hello: &AgentHello1) -> Result<Opened, String> {
        let now = self.now();
        let mut table = self.lock();
        table.streams += 1;
        let number = table.streams;
        let new = || Entry {
            status: self.first_status(hello),
            heard: now,
            streams: BTreeMap::new(),
            changed: true,
        };
        let entry = table.entries.entry(hello.node.clone()).or_insert_with(new);
        if entry.streams.len() >= STREAMS_PER_NODE_MAX {
            let (node, found) = (&hello.node, entry.streams.len());
            return Err(format!("node {node} has {found} streams on this server already"));
        }
        let process = Process { generation: hello.generation, version: clip(&hello.version) };
        entry.streams.insert(number, process);
        (entry.heard, entry.changed) = (now, true);
        if let Some(status) = entry.speaker(number, &self.me) {
            *status = self.first_status(hello);
        }
        Ok(Opened(number))
    }

    fn first_status(&self, hello: &AgentHello1) -> AgentStatus {
        AgentStatus {
            node: hello.node.clone(),
            connected: true,
            server: Some(self.me.clone()),
            generation: hello.generation,
            version: clip(&hello.version),
            seen: UnixMillis::default(),
            report: Heartbeat1 { applied: hello.applied, ..Heartbeat1::default() },
            error: None,
            wanted: Revision::ZERO,
        }
    }

    /// A stream ended; the node stays connected by another one.
    pub(crate) fn closed(&self, node: &NodeName, stream: Opened) {
        let mut table = self.lock();
        let Some(entry) = table.entries.get_mut(node) else { return };
        let was_open = entry.streams.remove(&stream.0).is_some();
        if was_open && entry.streams.is_empty() && entry.status.server.as_ref() == Some(&self.me) {
            entry.status.connected = false;
            entry.changed = true;
        }
    }

    /// A heartbeat came.
    pub(crate) fn heard(&self, node: &NodeName, stream: Opened, report: Heartbeat1) {
        let now = self.now();
        let mut table = self.lock();
        let entry = table.entries.get_mut(node);
        let Some(entry) = entry.filter(|entry| entry.streams.contains_key(&stream.0)) else {
            return;
        };
        if let Some(status) = entry.speaker(stream.0, &self.me) {
            status.report = bounded(report);
        }
        (entry.heard, entry.changed) = (now, true);
    }

    /// The agent has `revision` in force.
    pub(crate) fn acked(&self, node: &NodeName, stream: Opened, revision: Revision) {
        self.change(node, stream, |status| {
            status.report.applied = revision;
            status.error = None;
        });
    }

    /// The agent refused `revision`.
    pub(crate) fn refused(&self, node: &NodeName, stream: Opened, revision: Revision, why: &str) {
        self.change(node, stream, |status| {
            status.error = Some(format!("{revision}: {}", clip(why)));
        });
    }

    /// The newest revision that touches what the agent holds.
    pub(crate) fn wants(&self, node: &NodeName, stream: Opened, revision: Revision) {
        let mut table = self.lock();
        let Some(entry) = table.entries.get_mut(node) else { return };
        if let Some(status) = entry.speaker(stream.0, &self.me)
            && status.wanted != revision
        {
            (status.wanted, entry.changed) = (revision, true);
        }
    }

    /// Up to `max` agents of this server that changed since the last call.
    pub(crate) fn take_changes(&self, max: usize) -> Vec<AgentReport> {
        let (now, wall) = (self.now(), clock::now());
        let mut table = self.lock();
        let ours = |entry: &Entry| entry.status.server.as_ref() == Some(&self.me);
        let changed = table.entries.values_mut().filter(|e| e.changed && ours(e));
        changed
            .take(max)
            .map(|entry| {
                entry.changed = false;
                let status = seen_at(&entry.status, now.since(entry.heard), wall);
                AgentReport { status, age_ms: now.since(entry.heard) }
            })
            .collect()
    }

    /// Has every agent of this server told again: the leader is new, or did not hear.
    pub(crate) fn tell_again(&self) {
        self.lock().entries.values_mut().for_each(|entry| entry.changed = true);
    }

    /// Takes in what another server knows. A node's streams here go on being heard: its agent may
    /// have left that server a moment ago, or an old process of it may still be there.
    pub(crate) fn merge(&self, reports: Vec<AgentReport>) {
        let now = self.now();
        let mut table = self.lock();
        for AgentReport { mut status, age_ms } in reports {
            status.report = bounded(status.report);
            let heard = Tick(now.0.saturating_sub(age_ms));
            let Some(known) = table.entries.get_mut(&status.node) else {
                let entry = Entry { heard, streams: BTreeMap::new(), changed: false, status };
                table.entries.insert(entry.status.node.clone(), entry);
                continue;
            };
            if heard < known.heard && known.status.server != status.server {
                continue;
            }
            let here = !known.streams.is_empty() && known.status.server.as_ref() == Some(&self.me);
            known.heard = if here { known.heard.max(heard) } else { heard };
            let newest = known.status.generation;
            if !here || (status.connected && status.generation > newest) {
                (known.status, known.changed) = (status, false);
            }
        }
    }

    /// When each node was last heard of.
    pub(crate) fn heard_at(&self) -> BTreeMap<NodeName, Tick> {
        self.lock().entries.iter().map(|(name, entry)| (name.clone(), entry.heard)).collect()
    }

    /// All that this server knows of.
    pub(crate) fn all(&self) -> Vec<AgentStatus> {
        self.page(None, usize::MAX)
    }

    /// Up to `max` agents after `after`, in order.
    pub(crate) fn page(&self, after: Option<&NodeName>, max: usize) -> Vec<AgentStatus> {
        let (now, wall) = (self.now(), clock::now());
        let table = self.lock();
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        table
            .entries
            .range::<NodeName, _>((from, std::ops::Bound::Unbounded))
            .take(max)
            .map(|(_, entry)| seen_at(&entry.status, now.since(entry.heard), wall))
            .collect()
    }

    /// Forgets nodes that `keep` does not have.
    pub(crate) fn prune(&self, keep: &BTreeSet<NodeName>) {
        self.lock().entries.retain(|name, _| keep.contains(name));
    }

    fn change(&self, node: &NodeName, stream: Opened, change: impl FnOnce(&mut AgentStatus)) {
        let mut table = self.lock();
        let Some(entry) = table.entries.get_mut(node) else { return };
        if let Some(status) = entry.speaker(stream.0, &self.me) {
            change(status);
            entry.changed = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seen_at(status: &AgentStatus, age_ms: u64, wall: UnixMillis) -> AgentStatus {
    AgentStatus { seen: UnixMillis(wall.0.saturating_sub(age_ms)), ..status.clone() }
}

/// Cuts what an agent reports to what is kept of it.
fn bounded(mut report: Heartbeat1) -> Heartbeat1 {
    // One long text would make the message to the leader too large, for every agent in it.
    report.leaves.retain(|id, _| id.len() <= LEAF_BYTES_MAX);
    while report.leaves.len() > LEAVES_MAX {
        report.leaves.pop_last();
    }
    report.exposed.truncate(EXPOSED_MAX);
    report.warnings.truncate(WARNINGS_MAX);
    report.warnings = report.warnings.iter().map(|warning| clip(warning)).collect();
    report
}

fn clip(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}
