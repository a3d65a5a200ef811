//! [`Quorum`]: whether the leader that this server knows of has a majority behind it.
//!
//! State kind: *ephemeral*. openraft names a leader until there is another one: one whose followers
//! are all dead goes on leading, and a follower goes on naming one that died. So a leader counts
//! only while a majority has answered it lately. It measures that itself and tells its followers
//! with all that it appends.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Instant as _, RaftMetrics};

use super::types::TypeConfig;

/// See the module.
pub(crate) struct Quorum {
    /// How long one answer of a majority counts.
    lease: Duration,
    metrics: OnceLock<WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>>,
    told: Mutex<Option<Told>>,
}

/// What a leader told this server.
#[derive(Clone, Copy)]
struct Told {
    leader: u64,
    /// When a majority stood behind it last.
    backed: Instant,
}

impl Quorum {
    /// Knows no leader before [`Quorum::follow`].
    pub(crate) fn new(lease: Duration) -> Self {
        Self { lease, metrics: OnceLock::new(), told: Mutex::default() }
    }

    /// Goes by what `raft` says from now on; only the first counts.
    pub(crate) fn follow(&self, raft: &openraft::Raft<TypeConfig, super::machine::Machine>) {
        self.metrics.get_or_init(|| raft.metrics());
    }

    /// How long ago a majority stood behind this server, if it leads and one ever did.
    pub(crate) fn age(&self) -> Option<Duration> {
        let metrics = self.metrics.get()?.borrow_watched();
        own_age(&metrics)
    }

    /// `leader` tells, in a message that came at `at`, that a majority stood behind it `age` ago.
    pub(crate) fn hear(&self, leader: u64, at: Instant, age: Duration) {
        let Some(backed) = at.checked_sub(age) else { return };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = told.is_none_or(|told| told.leader != leader || told.backed < backed);
        if newer {
            *told = Some(Told { leader, backed });
        }
    }

    /// The leader that this server knows of, by Raft id, while a majority is behind it.
    pub(crate) fn leader(&self) -> Option<u64> {
        let metrics = self.metrics.get()?.borrow_watched();
        let leader = metrics.current_leader?;
        let age = if leader == metrics.id {
            own_age(&metrics)
        } else {
            let told = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.filter(|told| told.leader == leader).map(|told| told.backed.elapsed())
        };
        age.is_some_and(|age| age < self.lease).then_some(leader)
    }
}

fn own_age(metrics: &RaftMetrics<TypeConfig>) -> Option<Duration> {
    if !metrics.state.is_leader() {
        return None;
    }
    // Nobody answers a leader that is the only voter: it is the majority.
    if metrics.membership_config.voter_ids().eq([metrics.id]) {
        return Some(Duration::ZERO);
    }
    metrics.last_quorum_acked.map(|acked| acked.elapsed())
}
