//! What this process learned of endpoints: latency and calls in flight. *Ephemeral*: keyed beside
//! the snapshot, kept over swaps, lost at restart without harm.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use hashbrown::HashMap;
use mesh_core::name::{InstanceId, NodeName, ServiceName, SubsetName};
use mesh_core::resource::{Endpoint, EndpointState, ServiceEndpoints};
use mesh_core::snapshot::ProxySnapshot;

use crate::traffic::balance::{self, Ewma, FAILURE_NS};

/// Which instance: unique in the mesh.
type Key = (ServiceName, NodeName, InstanceId);

/// Loads of all endpoints in use.
#[derive(Debug)]
pub(super) struct Endpoints {
    started: Instant,
    draws: AtomicU64,
    loads: RwLock<HashMap<Key, Arc<Load>>>,
}

/// The load of one endpoint.
#[derive(Debug)]
pub(super) struct Load {
    outstanding: AtomicU32,
    ewma: Mutex<Ewma>,
}

/// A call in flight on an endpoint until dropped; what came of it is told with [`InFlight::done`].
#[derive(Debug)]
pub(super) struct InFlight {
    load: Arc<Load>,
    origin: Instant,
    /// Of `origin`, when it began.
    began_ns: AtomicU64,
}

impl Endpoints {
    pub(super) fn new() -> Self {
        let started = Instant::now();
        // two processes should not draw alike: the address of a local is different with ASLR
        let seed = std::ptr::from_ref(&started) as u64 ^ u64::from(std::process::id());
        Self { started, draws: AtomicU64::new(seed), loads: RwLock::default() }
    }

    /// A number like random, for choices that need not be secret.
    pub(super) fn draw(&self) -> u64 {
        balance::split_mix(self.draws.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
    }

    /// Picks among the usable endpoints of `subset` that were not `tried`: healthy ones first,
    /// suspect ones if there are none.
    pub(super) fn pick<'a>(
        &self, endpoints: &'a ServiceEndpoints, subset: Option<&SubsetName>, tried: &[&Endpoint],
    ) -> Option<&'a Endpoint> {
        let wanted = |state: EndpointState| -> Vec<&'a Endpoint> {
            let usable = |e: &&Endpoint| {
                e.state == state
                    && subset.is_none_or(|subset| e.subsets.contains(subset))
                    && !tried.contains(e)
            };
            endpoints.endpoints.iter().filter(usable).collect()
        };
        let mut candidates = wanted(EndpointState::Healthy);
        if candidates.is_empty() {
            candidates = wanted(EndpointState::Suspect);
        }
        let now = self.now_ns();
        let cost = |at: usize| self.load(&endpoints.service, candidates[at]).cost(now);
        balance::pick(candidates.len(), self.draw(), cost).map(|at| candidates[at])
    }

    /// Counts a call on `endpoint` until the guard is done.
    pub(super) fn begin(&self, service: &ServiceName, endpoint: &Endpoint) -> InFlight {
        let load = self.load(service, endpoint);
        load.outstanding.fetch_add(1, Ordering::Relaxed);
        InFlight { load, origin: self.started, began_ns: AtomicU64::new(self.now_ns()) }
    }

    /// Forgets endpoints that no snapshot names any more.
    pub(super) fn reconcile(&self, snapshot: &ProxySnapshot) {
        let all = snapshot.endpoints.values();
        let known: HashSet<_> = all
            .flat_map(|of| of.endpoints.iter().map(|e| (&of.service, &e.node, &e.instance)))
            .collect();
        let mut loads = self.loads.write().unwrap_or_else(PoisonError::into_inner);
        loads.retain(|(service, node, instance), _| known.contains(&(service, node, instance)));
    }

    fn load(&self, service: &ServiceName, endpoint: &Endpoint) -> Arc<Load> {
        let key = (service.clone(), endpoint.node.clone(), endpoint.instance.clone());
        let loads = self.loads.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(load) = loads.get(&key) {
            return Arc::clone(load);
        }
        drop(loads);
        let mut loads = self.loads.write().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let ewma = Mutex::new(Ewma::new(self.now_ns()));
            Arc::new(Load { outstanding: AtomicU32::new(0), ewma })
        };
        Arc::clone(loads.entry(key).or_insert_with(new))
    }

    fn now_ns(&self) -> u64 {
        nanos(self.started)
    }
}

impl Load {
    fn cost(&self, now_ns: u64) -> f64 {
        let ewma = *self.ewma.lock().unwrap_or_else(PoisonError::into_inner);
        ewma.cost(self.outstanding.load(Ordering::Relaxed), now_ns)
    }
}

impl InFlight {
    /// The call begins now: making a link is no property of the endpoint, and counted as its
    /// latency it would keep calls off an endpoint for having been cold.
    pub(super) fn link_ready(&self) {
        self.began_ns.store(nanos(self.origin), Ordering::Relaxed);
    }

    /// The call's answer began, well or not.
    pub(super) fn done(&self, ok: bool) {
        let now = nanos(self.origin);
        let took = now.saturating_sub(self.began_ns.load(Ordering::Relaxed));
        let latency = if ok { took } else { took.max(FAILURE_NS) };
        let mut ewma = self.load.ewma.lock().unwrap_or_else(PoisonError::into_inner);
        *ewma = ewma.observe(latency, now);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.load.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use mesh_core::revision::Revision;

    use super::*;

    fn endpoint(instance: &str, state: EndpointState) -> Endpoint {
        Endpoint {
            instance: instance.parse().unwrap(),
            node: "n1".parse().unwrap(),
            address: "127.0.0.1:7443".parse().unwrap(),
            subsets: vec![instance.parse().unwrap()],
            state,
        }
    }

    fn of(endpoints: Vec<Endpoint>) -> ServiceEndpoints {
        let service = "orders".parse().unwrap();
        ServiceEndpoints { service, revision: Revision::ZERO, endpoints }
    }

    #[test]
    fn only_usable_endpoints_are_picked_and_suspects_last() {
        let endpoints = Endpoints::new();
        let all = of(vec![
            endpoint("a", EndpointState::Healthy),
            endpoint("b", EndpointState::Critical),
            endpoint("c", EndpointState::Suspect),
            endpoint("d", EndpointState::Gone),
        ]);
        for _ in 0..100 {
            assert_eq!(endpoints.pick(&all, None, &[]), Some(&all.endpoints[0]));
        }
        let tried = [&all.endpoints[0]];
        assert_eq!(endpoints.pick(&all, None, &tried), Some(&all.endpoints[2]));
        let subset = "b".parse().unwrap();
        assert_eq!(endpoints.pick(&all, Some(&subset), &[]), None);
    }

    #[test]
    fn a_failing_endpoint_is_avoided() {
        let endpoints = Endpoints::new();
        let all =
            of(vec![endpoint("a", EndpointState::Healthy), endpoint("b", EndpointState::Healthy)]);
        endpoints.begin(&all.service, &all.endpoints[0]).done(false);
        endpoints.begin(&all.service, &all.endpoints[1]).done(true);
        for _ in 0..100 {
            assert_eq!(endpoints.pick(&all, None, &[]), Some(&all.endpoints[1]));
        }
    }
}
