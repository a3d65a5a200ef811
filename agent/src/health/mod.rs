//! Health of this host's instances: runs their checks and folds the outcomes.
//!
//! Ephemeral, but for the last outcomes, which are kept on disk so that a restarted agent does not
//! take its instances out of service until their first try.

mod probe;
mod state;
mod store;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::catalog::CheckStatus;
use mesh_core::command::HealthChange;
use mesh_core::hostfile::{CheckFile, CheckKind};
use mesh_core::name::InstanceId;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub use probe::{EXEC_REFUSED, Exec};
pub use state::{CheckState, Try, fold};
pub use store::HealthStore;

use crate::host::{Declared, HostState};
use crate::limits::health::{OUTCOMES_MAX, SAVE_EVERY, TRIES_MAX};

/// The health of every instance of this host.
pub type Report = BTreeMap<InstanceId, HealthChange>;

/// The health of what `host` declares before the first try: as it was before the restart.
pub fn initial(host: &HostState, store: &HealthStore) -> Report {
    let kept = store.load();
    let change = |(id, declared): (&InstanceId, &Arc<Declared>)| {
        let known = kept.get(id);
        let status = |(name, _): (String, &CheckFile)| {
            let held = known.and_then(|known| known.get(&name)).cloned();
            let state = held.map_or(CheckState::Unknown, CheckState::Restored);
            (name, state.status())
        };
        let checks: BTreeMap<_, _> = named(&declared.file.checks).into_iter().map(status).collect();
        (id.clone(), HealthChange { health: fold(checks.values()), checks })
    };
    host.instances.iter().map(change).collect()
}

/// Runs the checks of what `host` declares, and publishes what they say in `report`.
///
/// Owns its tasks: when it returns, after `shutdown`, none is left. Not meant to be dropped
/// earlier.
pub async fn run(
    mut host: watch::Receiver<Arc<HostState>>, report: watch::Sender<Arc<Report>>,
    store: HealthStore, shutdown: CancellationToken,
) {
    let (results, mut outcomes) = mpsc::channel(OUTCOMES_MAX);
    let mut checker = Checker::new(store.load(), results);
    checker.reconcile(&host.borrow_and_update().clone());
    checker.publish(&report);
    let mut saved = report.borrow().clone();
    let mut save = tokio::time::interval(SAVE_EVERY);
    save.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // All branches are cancel safe: each takes one item or none.
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = host.changed() => match changed {
                Ok(()) => checker.reconcile(&host.borrow_and_update().clone()),
                Err(_) => break,
            },
            Some(outcome) = outcomes.recv() => checker.take(outcome),
            Some(_) = checker.tasks.join_next() => {}
            _ = save.tick() => {
                let now = report.borrow().clone();
                if now != saved {
                    save_on_disk(&store, now.clone()).await;
                    saved = now;
                }
            }
        }
        checker.publish(&report);
    }
    checker.tasks.shutdown().await;
    let last = report.borrow().clone();
    save_on_disk(&store, last).await;
}

/// Keeps `report`, on a thread that may block.
async fn save_on_disk(store: &HealthStore, report: Arc<Report>) {
    let store = store.clone();
    // Only a panic ends it otherwise, which has been said.
    let _ = tokio::task::spawn_blocking(move || store.save(&report)).await;
}

/// What is known and running for each instance.
struct Checker {
    instances: BTreeMap<InstanceId, Watched>,
    tasks: JoinSet<()>,
    results: mpsc::Sender<Outcome>,
    restored: BTreeMap<InstanceId, BTreeMap<String, CheckStatus>>,
    permits: Arc<Semaphore>,
    next_run: u64,
}

struct Watched {
    declared: Arc<Declared>,
    checks: Vec<Watch>,
}

struct Watch {
    name: String,
    check: CheckFile,
    state: CheckState,
    /// Tells the outcomes of this task from those of one before it.
    run: u64,
    task: AbortHandle,
}

struct Outcome {
    instance: InstanceId,
    run: u64,
    tried: Try,
}

impl Checker {
    fn new(
        restored: BTreeMap<InstanceId, BTreeMap<String, CheckStatus>>,
        results: mpsc::Sender<Outcome>,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(TRIES_MAX));
        let (instances, tasks) = (BTreeMap::new(), JoinSet::new());
        Self { instances, tasks, results, restored, permits, next_run: 0 }
    }

    /// Starts and stops checks so that those of `host` run, and no others.
    fn reconcile(&mut self, host: &HostState) {
        let gone: Vec<InstanceId> =
            self.instances.keys().filter(|id| !host.instances.contains_key(*id)).cloned().collect();
        for id in gone {
            self.stop(&id);
        }
        for (id, declared) in &host.instances {
            let same = |held: &Watched| same_checks(&held.declared, declared);
            if let Some(held) = self.instances.get_mut(id).filter(|held| same(held)) {
                held.declared = declared.clone();
                continue;
            }
            let known = self.stop(id);
            self.start(id, declared, &known);
        }
        self.restored.clear();
    }

    /// Stops the checks of `id`; what they last said, by name.
    fn stop(&mut self, id: &InstanceId) -> BTreeMap<String, CheckStatus> {
        let Some(held) = self.instances.remove(id) else {
            return self.restored.remove(id).unwrap_or_default();
        };
        held.checks.iter().for_each(|watch| watch.task.abort());
        let decided = held.checks.into_iter().filter(|w| w.state != CheckState::Unknown);
        decided.map(|watch| (watch.name, watch.state.status())).collect()
    }

    fn start(
        &mut self, id: &InstanceId, declared: &Arc<Declared>, known: &BTreeMap<String, CheckStatus>,
    ) {
        let mut checks = Vec::with_capacity(declared.file.checks.len());
        for (name, check) in named(&declared.file.checks) {
            let state = match known.get(&name) {
                Some(status) => CheckState::Restored(status.clone()),
                None => CheckState::Unknown,
            };
            self.next_run += 1;
            let schedule = Schedule {
                instance: id.clone(),
                run: self.next_run,
                check: check.clone(),
                address: declared.address(),
                exec: declared.exec,
                permits: self.permits.clone(),
                results: self.results.clone(),
            };
            let task = self.tasks.spawn(schedule.run());
            checks.push(Watch { name, check: check.clone(), state, run: self.next_run, task });
        }
        self.instances.insert(id.clone(), Watched { declared: declared.clone(), checks });
    }

    fn take(&mut self, outcome: Outcome) {
        let Some(held) = self.instances.get_mut(&outcome.instance) else { return };
        let Some(watch) = held.checks.iter_mut().find(|watch| watch.run == outcome.run) else {
            return;
        };
        let before = watch.state.status().passing;
        let state = std::mem::take(&mut watch.state);
        watch.state = state.after(&outcome.tried, watch.check.rise, watch.check.fall);
        let after = watch.state.status();
        if before != after.passing {
            let (instance, check) = (&outcome.instance, &watch.name);
            let (passing, output) = (after.passing, &after.output);
            tracing::info!(%instance, %check, passing, %output, "check changed");
        }
    }

    fn publish(&self, report: &watch::Sender<Arc<Report>>) {
        let now: Report =
            self.instances.iter().map(|(id, held)| (id.clone(), held.report())).collect();
        report.send_if_modified(|held| {
            let changed = **held != now;
            if changed {
                *held = Arc::new(now);
            }
            changed
        });
    }
}

impl Watched {
    fn report(&self) -> HealthChange {
        let checks: BTreeMap<String, CheckStatus> =
            self.checks.iter().map(|w| (w.name.clone(), w.state.status())).collect();
        HealthChange { health: fold(checks.values()), checks }
    }
}

/// One check's endless task; stopped by being aborted.
struct Schedule {
    instance: InstanceId,
    run: u64,
    check: CheckFile,
    address: SocketAddr,
    exec: Exec,
    permits: Arc<Semaphore>,
    results: mpsc::Sender<Outcome>,
}

impl Schedule {
    async fn run(self) {
        for number in 0.. {
            let jitter = crate::control::backoff::random_permille();
            tokio::time::sleep(state::wait_before(&self.check, number, jitter)).await;
            // Closed only when the checker is gone.
            let Ok(permit) = self.permits.acquire().await else { return };
            let tried = probe::probe(&self.check, self.address, self.exec).await;
            drop(permit);
            let outcome = Outcome { instance: self.instance.clone(), run: self.run, tried };
            if self.results.send(outcome).await.is_err() {
                return;
            }
        }
    }
}

/// Whether the same tries would be made for both.
fn same_checks(a: &Declared, b: &Declared) -> bool {
    a.address() == b.address() && a.exec == b.exec && a.file.checks == b.file.checks
}

/// Checks with names that are unique in their instance, such as `http:/health` and `tcp#2`.
fn named(checks: &[CheckFile]) -> Vec<(String, &CheckFile)> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut out = Vec::with_capacity(checks.len());
    for check in checks {
        let base: String = match &check.kind {
            CheckKind::Http(path) => format!("http:{path}"),
            CheckKind::Tcp => "tcp".to_owned(),
            CheckKind::Exec(words) => {
                format!("exec:{}", words.first().map_or("", String::as_str))
            }
        };
        // A character has at most 4 bytes, and a name at most 256 with its number.
        let base: String = base.chars().take(60).collect();
        let count = seen.entry(base.clone()).or_default();
        *count += 1;
        let name = if *count == 1 { base } else { format!("{base}#{count}") };
        out.push((name, check));
    }
    out
}

#[cfg(test)]
mod tests;
