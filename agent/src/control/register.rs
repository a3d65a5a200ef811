//! Registration: tells the servers the difference between what the host declares and what they
//! know, again and again until there is none.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::api::{AddressRequest, SyncRequest};
use mesh_core::catalog::{Health, InstanceSpec};
use mesh_core::command::HealthChange;
use mesh_core::name::InstanceId;
use mesh_net::client::{ClientError, ErrorKind, ReadOptions};
use mesh_net::telemetry::Chain;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Clients, backoff};
use crate::health::Report;
use crate::host::{Declared, HostState};
use crate::limits::control::{REGISTER_RECHECK, RETRY_REFUSED};
use crate::status::Board;

/// Instances as registered, or as they should be.
pub type Specs = BTreeMap<InstanceId, InstanceSpec>;

/// What makes `acked` into `desired`. Pure.
///
/// Health is left to the stream, which is faster: a difference in it alone is none, but what is
/// sent carries it.
pub fn diff(desired: &Specs, acked: &Specs) -> SyncRequest {
    let changed = |(id, spec): &(&InstanceId, &InstanceSpec)| {
        acked.get(*id).is_none_or(|known| !same_registration(spec, known))
    };
    let upsert = desired.iter().filter(changed).map(|(_, spec)| spec.clone()).collect();
    let remove = acked.keys().filter(|id| !desired.contains_key(*id)).cloned().collect();
    SyncRequest { upsert, remove }
}

fn same_registration(a: &InstanceSpec, b: &InstanceSpec) -> bool {
    a.service == b.service && a.port == b.port && a.meta == b.meta && a.upstreams == b.upstreams
}

/// What is to be registered of `host`, with its health.
pub(crate) fn desired(host: &HostState, health: &Report) -> Specs {
    let spec = |(id, declared): (&InstanceId, &Arc<Declared>)| {
        let HealthChange { health, checks } = health.get(id).cloned().unwrap_or_else(unknown);
        let file = &declared.file;
        let spec = InstanceSpec {
            id: id.clone(),
            service: file.service.clone(),
            port: file.port,
            meta: file.meta.clone(),
            upstreams: file.upstreams.iter().map(|up| up.service.clone()).collect(),
            health,
            checks,
        };
        (id.clone(), spec)
    };
    host.instances.iter().map(spec).collect()
}

/// The health of an instance whose checks are not known yet.
fn unknown() -> HealthChange {
    HealthChange { health: Health::Critical, checks: BTreeMap::new() }
}

/// What registration works with.
pub(crate) struct Registrar {
    pub(crate) clients: Arc<Clients>,
    pub(crate) host: watch::Receiver<Arc<HostState>>,
    pub(crate) health: watch::Receiver<Arc<Report>>,
    /// Counts streams: after each new one everything is compared again.
    pub(crate) connected: watch::Receiver<u64>,
    /// Counts registrations that changed something.
    pub(crate) registered: watch::Sender<u64>,
    pub(crate) board: Arc<Board>,
    /// Where this agent is dialled; told once a process, for it may have moved.
    pub(crate) address: AddressRequest,
}

/// What the registrar knows between its rounds.
#[derive(Default)]
struct Progress {
    /// What servers know; `None` until they are asked.
    acked: Option<Specs>,
    address_told: bool,
    refused: BTreeMap<InstanceId, Refusal>,
    attempt: u32,
}

/// An instance that servers will not have.
#[derive(Clone, Debug)]
struct Refusal {
    spec: InstanceSpec,
    retry_at: Instant,
    why: String,
}

/// Keeps the servers' list what the host declares, until `shutdown`.
pub(crate) async fn run(mut registrar: Registrar, shutdown: CancellationToken) {
    let mut progress = Progress::default();
    let work = async {
        loop {
            // Nothing can be told before the first stream, nor need it be.
            if *registrar.connected.borrow_and_update() > 0 {
                registrar.round(&mut progress).await;
            }
            let wait = match progress.attempt {
                0 => REGISTER_RECHECK,
                attempt => backoff::wait_before(attempt, backoff::random_permille()),
            };
            // Cancel safe: nothing is taken.
            tokio::select! {
                () = tokio::time::sleep(wait) => if progress.attempt == 0 {
                    progress.acked = None;
                },
                changed = registrar.host.changed() => if changed.is_err() { return },
                changed = registrar.connected.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    progress.acked = None;
                }
            }
        }
    };
    let _: Option<()> = shutdown.run_until_cancelled(work).await;
}

impl Registrar {
    async fn round(&mut self, progress: &mut Progress) {
        let host = self.host.borrow_and_update().clone();
        let desired = desired(&host, &self.health.borrow().clone());
        progress.refused.retain(|id, refusal| {
            desired.get(id).is_some_and(|spec| same_registration(spec, &refusal.spec))
        });
        let result = self.settle(progress, desired).await;
        if let Err(why) = &result {
            progress.attempt = progress.attempt.saturating_add(1);
            if progress.attempt == 1 {
                tracing::warn!("cannot register what the host declares: {}", Chain(why));
            }
        } else {
            progress.attempt = 0;
        }
        self.board.update(|status| {
            status.register_error = result.err().map(|why| Chain(&why).to_string());
            let refused = progress.refused.iter();
            status.refused =
                refused.map(|(id, refusal)| (id.clone(), refusal.why.clone())).collect();
        });
    }

    async fn settle(&self, progress: &mut Progress, mut desired: Specs) -> Result<(), ClientError> {
        let client = self.clients.current();
        if !progress.address_told {
            client.set_address(&self.address).await?;
            progress.address_told = true;
        }
        let mut acked = match progress.acked.take() {
            Some(acked) => acked,
            None => {
                let own = client.own_instances(ReadOptions::consistent()).await?.value;
                own.into_iter().map(|known| (known.spec.id.clone(), known.spec)).collect()
            }
        };
        let now = Instant::now();
        let waits = |refusal: &Refusal| refusal.retry_at > now;
        // What is refused stays as the servers have it, which may be an older version of it.
        for (id, _) in progress.refused.iter().filter(|(_, refusal)| waits(refusal)) {
            match acked.get(id) {
                Some(known) => drop(desired.insert(id.clone(), known.clone())),
                None => drop(desired.remove(id)),
            }
        }
        let request = diff(&desired, &acked);
        let sent = self.send(progress, &mut acked, request).await;
        // After an unknown outcome the servers are asked again.
        progress.acked = sent.is_ok().then_some(acked);
        sent
    }

    /// Sends the whole difference; if that is refused, one instance at a time, so that none
    /// stands in another's way.
    async fn send(
        &self, progress: &mut Progress, acked: &mut Specs, request: SyncRequest,
    ) -> Result<(), ClientError> {
        if request.upsert.is_empty() && request.remove.is_empty() {
            return Ok(());
        }
        match self.sync(acked, &request).await {
            Ok(()) => {
                request.upsert.iter().for_each(|spec| drop(progress.refused.remove(&spec.id)));
                return Ok(());
            }
            Err(why) if is_refusal(&why) => {}
            Err(why) => return Err(why),
        }
        for part in split(request) {
            match self.sync(acked, &part).await {
                Ok(()) => {
                    part.upsert.iter().for_each(|spec| drop(progress.refused.remove(&spec.id)))
                }
                Err(why) if is_refusal(&why) => note_refusal(progress, &part, &why),
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    async fn sync(&self, acked: &mut Specs, request: &SyncRequest) -> Result<(), ClientError> {
        self.clients.current().sync_instances(request).await?;
        request.remove.iter().for_each(|id| drop(acked.remove(id)));
        acked.extend(request.upsert.iter().map(|spec| (spec.id.clone(), spec.clone())));
        self.registered.send_modify(|count| *count += 1);
        Ok(())
    }
}

fn note_refusal(progress: &mut Progress, part: &SyncRequest, why: &ClientError) {
    let Some(spec) = part.upsert.first() else {
        tracing::warn!("instances cannot be taken back: {}", Chain(why));
        return;
    };
    let why = Chain(why).to_string();
    if progress.refused.get(&spec.id).is_none_or(|known| known.why != why) {
        tracing::error!(instance = %spec.id, service = %spec.service, "registration refused: {why}");
    }
    let refusal = Refusal { spec: spec.clone(), retry_at: Instant::now() + RETRY_REFUSED, why };
    progress.refused.insert(spec.id.clone(), refusal);
}

/// The removals, then each instance alone.
fn split(request: SyncRequest) -> Vec<SyncRequest> {
    let mut parts = Vec::with_capacity(request.upsert.len() + 1);
    if !request.remove.is_empty() {
        parts.push(SyncRequest { upsert: Vec::new(), remove: request.remove });
    }
    let alone = |spec| SyncRequest { upsert: vec![spec], remove: Vec::new() };
    parts.extend(request.upsert.into_iter().map(alone));
    parts
}

/// Whether a server will say the same again to the same request.
fn is_refusal(why: &ClientError) -> bool {
    match why.kind() {
        ErrorKind::Invalid | ErrorKind::Forbidden | ErrorKind::Conflict | ErrorKind::NotFound => {
            why.api().is_some()
        }
        ErrorKind::Unavailable | ErrorKind::Unknown => false,
    }
}

#[cfg(test)]
mod tests;
