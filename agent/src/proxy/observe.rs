//! What is counted and logged of each call, at both ends. Labels come from names we own.

use std::hash::BuildHasher;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};
use mesh_core::access::Decision;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::refusal::Refusal;
use crate::limits::proxy::KNOWN_CALLS_MAX;

/// Which end of a call counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The caller's agent.
    Outbound,
    /// The callee's agent.
    Inbound,
}

impl Side {
    fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// One call or connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    side: &'static str,
    src: String,
    dst: String,
    /// A status such as `200`, or how a connection ended.
    code: String,
    /// The refusal's code, or empty.
    flags: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pair {
    side: &'static str,
    src: String,
    dst: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Denial {
    src: String,
    dst: String,
    rule: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

/// The proxy's counters. Clones share them.
#[derive(Clone, Debug)]
pub struct ProxyMetrics {
    requests: Family<Call, Counter>,
    connections: Family<Call, Counter>,
    open: Family<Pair, Gauge>,
    latency: Family<Pair, Histogram, fn() -> Histogram>,
    denied: Family<Denial, Counter>,
    audited: Family<Denial, Counter>,
    callers_refused: Family<Why, Counter>,
    handshakes_refused: Counter,
}

fn latency_buckets() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
    ])
}

impl ProxyMetrics {
    /// Counters, entered in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            connections: Family::default(),
            open: Family::default(),
            latency: Family::new_with_constructor(latency_buckets),
            denied: Family::default(),
            audited: Family::default(),
            callers_refused: Family::default(),
            handshakes_refused: Counter::default(),
        };
        let m = metrics.clone();
        registry.register("mesh_requests", "HTTP requests by outcome", m.requests);
        registry.register("mesh_connections", "TCP connections by how they ended", m.connections);
        registry.register("mesh_connections_open", "TCP connections open now", m.open);
        registry.register("mesh_request_seconds", "Time to the head of the answer", m.latency);
        registry.register("mesh_denied", "Calls denied, by deciding rule", m.denied);
        registry.register(
            "mesh_audited",
            "Calls an audited rule would have decided otherwise",
            m.audited,
        );
        registry.register(
            "mesh_callers_refused",
            "Local connections whose caller may not use the port",
            m.callers_refused,
        );
        registry.register(
            "mesh_handshakes_refused",
            "Inbound TLS handshakes that failed",
            m.handshakes_refused,
        );
        metrics
    }

    /// Local connections refused so far because `reason`.
    pub(super) fn caller_refused(&self, reason: &'static str) {
        self.callers_refused.get_or_create(&Why { reason }).inc();
    }

    pub(super) fn handshake_refused(&self) {
        self.handshakes_refused.inc();
    }

    /// Counts an open TCP connection until dropped.
    pub(super) fn open(&self, side: Side, src: &str, dst: &str) -> OpenGuard {
        let pair = Pair { side: side.as_str(), src: src.to_owned(), dst: dst.to_owned() };
        let gauge = self.open.get_or_create(&pair).clone();
        gauge.inc();
        OpenGuard(gauge)
    }

    pub(super) fn decided(&self, src: &str, dst: &str, decision: &Decision) {
        let denial = |rule: String| Denial { src: src.to_owned(), dst: dst.to_owned(), rule };
        if !decision.allowed {
            self.denied.get_or_create(&denial(decision.reason.id())).inc();
        }
        let would_deny = decision.allowed
            && !matches!(&decision.reason,
            mesh_core::access::Reason::Rule(rule) if rule.id.kind == mesh_core::resource::RuleKind::Allow);
        if would_deny {
            self.audited.get_or_create(&denial(decision.reason.id())).inc();
        }
        for rule in &decision.audited {
            self.audited.get_or_create(&denial(rule.id.to_string())).inc();
        }
    }
}

/// See [`ProxyMetrics::open`].
#[derive(Debug)]
pub(super) struct OpenGuard(Gauge);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Which calls get a line in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// Those that were refused or failed.
    #[default]
    Failed,
    /// All.
    All,
}

/// What is known of a call when it ends.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) side: Side,
    pub(super) src: &'a str,
    pub(super) dst: &'a str,
    /// Method and canonical path; `None` for a connection.
    pub(super) request: Option<(&'a str, &'a str)>,
    /// Status, or how a connection ended.
    pub(super) code: &'a str,
    /// The other agent, or the application.
    pub(super) upstream: Option<String>,
    /// The deciding rule, where it was decided.
    pub(super) rule: Option<String>,
    pub(super) refusal: Option<&'a Refusal>,
    pub(super) took: Duration,
    pub(super) bytes: Option<super::tcp::Copied>,
}

/// The counters of the calls that one worker saw: found without making labels anew.
#[derive(Debug, Default)]
pub(super) struct Known {
    calls: Mutex<HashTable<(Call, Counter, Histogram)>>,
    hasher: DefaultHashBuilder,
}

impl Known {
    /// Counts an HTTP request.
    fn request(&self, metrics: &ProxyMetrics, call: &CallRef<'_>, took: Duration) {
        let hash = self.hasher.hash_one(call);
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count, latency)) = calls.find(hash, |(known, ..)| call.is(known)) {
            count.inc();
            latency.observe(took.as_secs_f64());
            return;
        }
        let owned = call.owned();
        let pair = Pair { side: call.side, src: owned.src.clone(), dst: owned.dst.clone() };
        let count = metrics.requests.get_or_create(&owned).clone();
        let latency = metrics.latency.get_or_create(&pair).clone();
        count.inc();
        latency.observe(took.as_secs_f64());
        if calls.len() >= KNOWN_CALLS_MAX {
            calls.clear();
        }
        let again =
            |(known, ..): &(Call, Counter, Histogram)| self.hasher.hash_one(CallRef::of(known));
        calls.insert_unique(hash, (owned, count, latency), again);
    }
}

/// [`Call`], borrowed.
#[derive(Clone, Copy, Debug, Hash)]
struct CallRef<'a> {
    side: &'static str,
    src: &'a str,
    dst: &'a str,
    code: &'a str,
    flags: &'static str,
}

impl<'a> CallRef<'a> {
    fn of(call: &'a Call) -> Self {
        Self {
            side: call.side,
            src: &call.src,
            dst: &call.dst,
            code: &call.code,
            flags: call.flags,
        }
    }

    fn is(&self, call: &Call) -> bool {
        let Self { side, src, dst, code, flags } = *self;
        side == call.side
            && src == call.src
            && dst == call.dst
            && code == call.code
            && flags == call.flags
    }

    fn owned(self) -> Call {
        let Self { side, src, dst, code, flags } = self;
        Call { side, src: src.to_owned(), dst: dst.to_owned(), code: code.to_owned(), flags }
    }
}

impl super::Proxy {
    /// Counts and logs a call that ended.
    pub(super) fn observe(&self, record: &Record<'_>) {
        let side = record.side.as_str();
        let flags = record.refusal.map_or("", Refusal::code);
        let call = CallRef { side, src: record.src, dst: record.dst, code: record.code, flags };
        if record.request.is_some() {
            self.known.request(&self.metrics, &call, record.took);
        } else {
            self.metrics.connections.get_or_create(&call.owned()).inc();
        }
        let failed = record.refusal.is_some();
        let wanted = match self.access_log {
            AccessLog::Off => false,
            AccessLog::Failed => failed,
            AccessLog::All => true,
        };
        if wanted {
            write_line(side, record);
        }
    }
}

fn write_line(side: &'static str, record: &Record<'_>) {
    let (method, path) = record.request.unzip();
    let copied = record.bytes.unwrap_or_default();
    tracing::info!(
        target: "mesh::access",
        side,
        src = record.src,
        dst = record.dst,
        method,
        path,
        code = record.code,
        rule = record.rule.as_deref(),
        upstream = record.upstream.as_deref(),
        flags = record.refusal.map(Refusal::code),
        why = record.refusal.map(tracing::field::display),
        took_us = u64::try_from(record.took.as_micros()).unwrap_or(u64::MAX),
        sent = copied.sent,
        received = copied.received,
        "access"
    );
}
