//! What a server counts. Labels come from names of ours only, never from the wire.

use mesh_core::api::RouteId;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The metrics of one server.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histogram,
    /// Agents' streams open now.
    pub(crate) streams: Gauge,
    /// Batches sent to agents.
    pub(crate) batches: Counter,
    /// Batches that agents refused.
    pub(crate) nacks: Counter,
    /// Connections to the API open now.
    pub(crate) connections: Gauge,
    /// Connections refused because there were too many.
    pub(crate) connections_refused: Counter,
    leader: Gauge,
    applied: Gauge,
    term: Gauge,
    log_bytes: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    code: u32,
}

impl Metrics {
    /// Registers them all.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            request_seconds: Histogram::new(exponential_buckets(0.000_5, 2.0, 16)),
            streams: Gauge::default(),
            batches: Counter::default(),
            nacks: Counter::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            leader: Gauge::default(),
            applied: Gauge::default(),
            term: Gauge::default(),
            log_bytes: Gauge::default(),
        };
        let Self {
            requests,
            request_seconds,
            streams,
            batches,
            nacks,
            connections,
            connections_refused,
            leader,
            applied,
            term,
            log_bytes,
        } = metrics.clone();
        registry.register("meshd_api_requests", "API requests by route and status", requests);
        registry.register(
            "meshd_api_request_seconds",
            "Time to answer, but for streams and blocking queries",
            request_seconds,
        );
        registry.register("meshd_streams", "Agents' streams open", streams);
        registry.register("meshd_batches", "Batches sent to agents", batches);
        registry.register("meshd_nacks", "Batches that agents refused", nacks);
        registry.register("meshd_api_connections", "API connections open", connections);
        registry.register(
            "meshd_api_connections_refused",
            "API connections refused because there were too many",
            connections_refused,
        );
        registry.register("meshd_raft_leader", "1 if this server leads", leader);
        registry.register("meshd_raft_applied_index", "Last log index applied", applied);
        registry.register("meshd_raft_term", "Raft term", term);
        registry.register(
            "meshd_raft_log_bytes",
            "Bytes of log entries held in memory and on disk",
            log_bytes,
        );
        metrics
    }

    /// Counts one answered request.
    pub(crate) fn answered(&self, route: RouteId, code: u16) {
        let labels = RequestLabels { route: format!("{route:?}"), code: u32::from(code) };
        self.requests.get_or_create(&labels).inc();
    }

    /// Times one answered request.
    pub(crate) fn took(&self, seconds: f64) {
        self.request_seconds.observe(seconds);
    }

    /// Takes in what Raft says now.
    pub(crate) fn raft(&self, metrics: &crate::raft::Metrics) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.leader.set(i64::from(metrics.role == crate::raft::Role::Leader));
        self.applied.set(number(metrics.applied.unwrap_or(0)));
        self.term.set(number(metrics.term));
        self.log_bytes.set(i64::try_from(metrics.log_bytes).unwrap_or(i64::MAX));
    }
}
