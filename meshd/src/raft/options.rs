//! How the cluster beats: timings and sizes.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::identity::TrustDomain;
use openraft::{Config, ConfigError, SnapshotPolicy};

use super::wal;

/// How far servers are from each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timing {
    /// One site: heartbeats every 100 ms, elections after 500 to 1000 ms.
    #[default]
    Lan,
    /// Several sites: four times that.
    Wan,
}

impl Timing {
    fn factor(self) -> u64 {
        match self {
            Self::Lan => 1,
            Self::Wan => 4,
        }
    }

    /// How long a leader counts after a majority has answered it last: openraft's lease.
    pub(crate) fn lease(self) -> Duration {
        Duration::from_millis(1000 * self.factor())
    }

    /// How long one data message to a member may take.
    pub(crate) fn append_deadline(self) -> Duration {
        Duration::from_secs(3 * self.factor())
    }

    /// How long a change of leader may take before it counts as failed.
    pub(crate) fn transfer_deadline(self) -> Duration {
        Duration::from_secs(2 * self.factor())
    }
}

/// Sizes and timings of one server's Raft.
#[derive(Clone, Debug)]
pub struct Options {
    /// See [`Timing`].
    pub timing: Timing,
    /// Log entries between two checkpoints. Default 10,000.
    pub checkpoint_every: u64,
    /// Bytes of log entries between two checkpoints. Default 32 MiB.
    pub checkpoint_bytes: usize,
    /// The log's.
    pub wal: wal::Options,
}

impl Default for Options {
    fn default() -> Self {
        let timing = Timing::default();
        Self {
            timing,
            checkpoint_every: 10_000,
            checkpoint_bytes: 32 << 20,
            wal: wal::Options::default(),
        }
    }
}

impl Options {
    /// What openraft is told.
    ///
    /// # Errors
    /// [`ConfigError`] if openraft finds the values at odds with each other.
    pub(crate) fn config(&self, trust_domain: &TrustDomain) -> Result<Arc<Config>, ConfigError> {
        let factor = self.timing.factor();
        let lease = self.timing.lease().as_millis();
        let election_timeout_max = u64::try_from(lease).unwrap_or(u64::MAX);
        let config = Config {
            cluster_name: trust_domain.to_string(),
            heartbeat_interval: 100 * factor,
            election_timeout_min: 500 * factor,
            election_timeout_max,
            enable_pre_vote: Some(true),
            quorum_loss_probe_interval: Some(3 * election_timeout_max),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.checkpoint_every),
            // Twice the distance of two checkpoints, so that the older one is still of use when the
            // newer turns out corrupt, and so that a briefly absent member catches up by the log.
            max_in_snapshot_log_to_keep: self.checkpoint_every.saturating_mul(2),
            purge_batch_size: self.checkpoint_every.clamp(1, 256),
            max_payload_entries: 300,
            install_snapshot_timeout: 10_000 * factor,
            api_channel_size: Some(4096),
            allow_log_reversion: None,
            // A leader sends entries before its own disk has them. Restarted, it must not go on in
            // its term: it would give the same log ids to other entries, and read from a state that
            // lacks what was acknowledged. openraft's default lets it.
            enable_leader_restore: Some(false),
            ..Config::default()
        };
        config.validate().map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn both_profiles_are_sound() {
        let domain: TrustDomain = "abc.mesh.internal".parse().expect("a trust domain");
        for (timing, heartbeat) in [(Timing::Lan, 100), (Timing::Wan, 400)] {
            let options = Options { timing, ..Options::default() };
            let config = options.config(&domain).expect("a sound config");
            assert_eq!(config.heartbeat_interval, heartbeat, "{timing:?}");
        }
    }
}
