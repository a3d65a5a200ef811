//! Leases: who heartbeats, and what the log is told of it.
//!
//! State kind: *ephemeral*. Heartbeats stay out of the log: [`agents`] keeps what each server hears,
//! every server tells the leader each second, and [`rule`] says which changes the leader writes.

mod agents;
mod calls;
mod rule;
mod task;
#[cfg(test)]
mod tests;

pub(crate) use agents::{Agents, Opened};
pub(crate) use calls::{App, all_agents};
pub(crate) use rule::Rules;
pub(crate) use task::run;

/// Milliseconds of this process's own steady clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(pub(crate) u64);

impl Tick {
    /// Milliseconds from `earlier`; 0 if it is later.
    pub(crate) fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
