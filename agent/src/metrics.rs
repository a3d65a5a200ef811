//! Metrics of the agent's control side: few stable names, labels only from fixed words.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::status::Status;

/// How well the agent follows the servers.
#[derive(Clone, Debug, Default)]
pub struct ControlMetrics {
    /// 1 while a server confirms the config, else 0.
    pub connected: Gauge,
    /// When the config became stale, in seconds since 1970; 0 while it is not.
    pub stale_since: Gauge<f64, AtomicU64>,
    /// The epoch in force.
    pub epoch: Gauge<i64, AtomicI64>,
    /// The index in force.
    pub index: Gauge<i64, AtomicI64>,
    /// Batches, by outcome: `applied` or `refused`.
    pub batches: Family<OutcomeLabels, Counter>,
    /// Streams opened.
    pub streams: Counter,
    /// When the certificate that ends first ends, in seconds since 1970.
    pub leaf_expiry: Gauge<f64, AtomicU64>,
    /// Instances, by health.
    pub instances: Family<HealthLabels, Gauge>,
    /// Instances that the servers refuse.
    pub refused: Gauge,
    /// Things that are wrong with the host's files.
    pub problems: Gauge,
    /// Ports that can be reached around the agent.
    pub exposed: Gauge,
}

/// Outcome of something.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// A fixed word.
    pub outcome: &'static str,
}

/// Health of instances.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HealthLabels {
    /// A fixed word.
    pub health: &'static str,
}

impl ControlMetrics {
    /// Metrics that `registry` shows under `mesh_agent_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let r = registry.sub_registry_with_prefix("mesh_agent");
        let m = metrics.clone();
        r.register("connected", "Whether a server confirms the config", m.connected);
        r.register("stale_since_seconds", "When the config became stale; 0 if not", m.stale_since);
        r.register("revision_epoch", "Epoch of the config in force", m.epoch);
        r.register("revision_index", "Index of the config in force", m.index);
        r.register("batches", "Batches of config, by outcome", m.batches);
        r.register("streams_opened", "Streams opened to servers", m.streams);
        r.register("leaf_expiry_seconds", "When the first certificate ends", m.leaf_expiry);
        r.register("instances", "Instances of this host, by health", m.instances);
        r.register("instances_refused", "Instances that the servers refuse", m.refused);
        r.register("host_file_problems", "Things wrong with the host's files", m.problems);
        r.register("exposed_ports", "Ports reachable around the agent", m.exposed);
        metrics
    }

    /// Shows `status`.
    pub fn show(&self, status: &Status) {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        self.connected.set(i64::from(status.stale_since.is_none()));
        self.stale_since.set(status.stale_since.map_or(0.0, |at| seconds(at.0)));
        self.epoch.set(i64::try_from(status.revision.epoch).unwrap_or(i64::MAX));
        self.index.set(i64::try_from(status.revision.index).unwrap_or(i64::MAX));
        let first = status.leaves.values().min().map_or(0, |at| at.0);
        self.leaf_expiry.set(seconds(first));
        self.refused.set(count(status.refused.len()));
        self.problems.set(count(status.problems.len()));
        self.exposed.set(count(status.exposed.len()));
        for health in ["passing", "critical", "draining"] {
            let of = status.instances.values().filter(|line| line.health.as_str() == health);
            self.instances.get_or_create(&HealthLabels { health }).set(count(of.count()));
        }
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use mesh_core::time::UnixMillis;

    use super::*;

    #[test]
    fn status_becomes_metrics() {
        let mut registry = Registry::default();
        let metrics = ControlMetrics::register(&mut registry);
        let board = crate::status::Board::new("web-7".parse().unwrap(), 1, UnixMillis(2_500));
        metrics.show(&board.status());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("mesh_agent_connected 0\n"), "{text}");
        assert!(text.contains("mesh_agent_stale_since_seconds 2.5\n"), "{text}");
    }
}
