//! What the agent reports on the stream: health as it changes, and heartbeats.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::revision::Revision;
use mesh_core::stream::{ExposedPort, HealthReport1, Heartbeat1};
use tokio::sync::watch;

use crate::health::Report;
use crate::host::HostState;
use crate::identity::Identities;
use crate::limits::control::{INSTANCES_PER_MESSAGE, REPORT_WARNINGS_MAX, WARNING_CHARS_MAX};

/// Where reports come from, and what the server of this stream has been told.
pub(crate) struct Reports {
    health: watch::Receiver<Arc<Report>>,
    /// Counts registrations: a server ignores the health of what it does not know yet.
    registered: watch::Receiver<u64>,
    exposed: watch::Receiver<Vec<ExposedPort>>,
    host: watch::Receiver<Arc<HostState>>,
    told: Report,
}

impl Reports {
    pub(crate) fn new(
        health: watch::Receiver<Arc<Report>>, registered: watch::Receiver<u64>,
        exposed: watch::Receiver<Vec<ExposedPort>>, host: watch::Receiver<Arc<HostState>>,
    ) -> Self {
        Self { health, registered, exposed, host, told: Report::new() }
    }

    /// Begins anew, for a server that knows nothing.
    pub(super) fn start(&mut self) {
        self.told.clear();
        self.health.mark_changed();
    }

    /// Waits until there may be health to report. Cancel safe.
    pub(super) async fn changed(&mut self) {
        // A closed channel means that the agent stops; the stream is stopped from elsewhere.
        let closed = tokio::select! {
            changed = self.health.changed() => changed.is_err(),
            changed = self.registered.changed() => {
                self.told.clear();
                changed.is_err()
            }
        };
        if closed {
            std::future::pending::<()>().await;
        }
    }

    /// The health that the server has not been told, in messages of bounded size.
    pub(super) fn health(&mut self) -> Vec<HealthReport1> {
        let now = self.health.borrow_and_update().clone();
        let messages = changes(&self.told, &now);
        self.told = Report::clone(&now);
        messages
    }

    pub(super) fn heartbeat(&self, applied: Revision, identities: &Identities) -> Heartbeat1 {
        let problems = self.host.borrow().problems.clone();
        let warnings = problems.iter().take(REPORT_WARNINGS_MAX).map(|problem| {
            let line = problem.message.lines().next().unwrap_or_default();
            let text = format!("{}: {line}", problem.file);
            text.chars().take(WARNING_CHARS_MAX).collect()
        });
        let warnings = warnings.collect();
        let exposed = self.exposed.borrow().clone();
        Heartbeat1 { applied, leaves: identities.leaves(), exposed, warnings }
    }
}

/// What of `now` differs from `told`. Pure.
fn changes(told: &Report, now: &Report) -> Vec<HealthReport1> {
    let changed: Vec<_> = now.iter().filter(|(id, change)| told.get(*id) != Some(change)).collect();
    let message = |part: &[(&_, &_)]| {
        let changes: BTreeMap<_, _> =
            part.iter().map(|(id, change)| (Clone::clone(*id), Clone::clone(*change))).collect();
        HealthReport1 { changes }
    };
    changed.chunks(INSTANCES_PER_MESSAGE).map(message).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use mesh_core::catalog::Health;
    use mesh_core::command::HealthChange;
    use mesh_core::name::InstanceId;

    use super::*;

    fn report(all: &[(usize, Health)]) -> Report {
        let change = |(n, health): &(usize, Health)| {
            let id: InstanceId = format!("i{n}").parse().unwrap();
            (id, HealthChange { health: *health, checks: BTreeMap::new() })
        };
        all.iter().map(change).collect()
    }

    #[test]
    fn only_changes_are_told() {
        use Health::{Critical, Passing};
        let told = report(&[(1, Passing), (2, Passing), (3, Passing)]);
        let now = report(&[(1, Passing), (2, Critical), (4, Critical)]);
        let messages = changes(&told, &now);
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].changes, report(&[(2, Critical), (4, Critical)]));
        assert_eq!(changes(&now, &now), []);
    }

    #[test]
    fn messages_are_bounded() {
        let all: Vec<_> = (0..1024).map(|n| (n, Health::Passing)).collect();
        let messages = changes(&Report::new(), &report(&all));
        assert_eq!(messages.len(), 8);
        let together: usize = messages.iter().map(|message| message.changes.len()).sum();
        assert_eq!(together, 1024);
    }

    #[tokio::test]
    async fn a_registration_and_a_new_stream_tell_all_again() {
        let (_health, health) = watch::channel(Arc::new(report(&[(1, Health::Passing)])));
        let (registrations, registered) = watch::channel(0);
        let (_exposed, exposed) = watch::channel(vec![]);
        let (_host, host) = watch::channel(Arc::default());
        let mut reports = Reports::new(health, registered, exposed, host);
        reports.start();
        reports.changed().await;
        assert_eq!(reports.health().len(), 1);
        assert_eq!(reports.health().len(), 0, "told");
        registrations.send(1).unwrap();
        reports.changed().await;
        assert_eq!(reports.health().len(), 1, "told again");
        reports.start();
        assert_eq!(reports.health().len(), 1, "another server");
    }
}
