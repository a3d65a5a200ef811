//! [`Server`]: what the parts of one control server share, and how it keeps its trust fresh.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use mesh_core::identity::SpiffeId;
use mesh_core::name::ServerName;
use mesh_core::state::{Mesh, MeshState};
use mesh_net::clock;
use mesh_net::csr;
use mesh_net::tasks::Stop;
use mesh_net::tls::{Svid, SvidSource, TrustStore};
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Budgets;
use crate::ca::{CaError, CsrKey, Issuer, Kek, LEAF_LIFETIME, pem};
use crate::disk::Disk;
use crate::lease::{Agents, Rules};
use crate::limits::server::LOOK_EVERY;
use crate::metrics::Metrics;
use crate::raft::Node;
use crate::watch::Cache;

/// One running control server.
pub(crate) struct Server {
    /// Its name.
    pub(crate) name: ServerName,
    /// Its part in the cluster: state, writes, members.
    pub(crate) node: Node,
    /// What agents report. Ephemeral.
    pub(crate) agents: Agents,
    /// Resources as bytes, shared by all streams. Derived.
    pub(crate) cache: Cache,
    /// Whom to believe, with the deny list.
    pub(crate) trust: Arc<TrustStore>,
    /// Attempts that may still be made.
    pub(crate) budgets: Budgets,
    /// Blocking queries that may still wait.
    pub(crate) watches: Semaphore,
    /// What leases go by.
    pub(crate) rules: Rules,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// Where it is read.
    pub(crate) registry: Arc<Mutex<Registry>>,
    /// The agents' streams, awaited at the end.
    pub(crate) streams: TaskTracker,
    /// Tells streams and waiting queries to end.
    pub(crate) stop: CancellationToken,
    pub(crate) kek: Kek,
    pub(crate) issuer: IssuerCell,
}

/// The CA, opened once per mesh.
#[derive(Default)]
pub(crate) struct IssuerCell(Mutex<Option<(Arc<Mesh>, Arc<Issuer>)>>);

/// Why this server cannot sign.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoIssuer {
    /// There is no mesh yet.
    #[error("the mesh is not initialised")]
    NotInitialised,
    /// The key-encryption key is another one, most likely.
    #[error(transparent)]
    Ca(#[from] CaError),
}

impl Server {
    /// The CA of `state`, ready to sign.
    ///
    /// # Errors
    /// [`NoIssuer`].
    pub(crate) fn issuer(&self, state: &MeshState) -> Result<Arc<Issuer>, NoIssuer> {
        let mesh = state.mesh.as_ref().ok_or(NoIssuer::NotInitialised)?;
        let mut cell = self.issuer.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, issuer)) = cell.as_ref().filter(|(known, _)| Arc::ptr_eq(known, mesh)) {
            return Ok(Arc::clone(issuer));
        }
        let issuer = Arc::new(Issuer::open(&mesh.trust_domain, &mesh.ca, &self.kek)?);
        *cell = Some((Arc::clone(mesh), Arc::clone(&issuer)));
        Ok(issuer)
    }
}

/// The bundle's roots as PEM; empty before there is a mesh.
pub(crate) fn roots_pem(state: &MeshState) -> String {
    let bundle = state.bundle();
    bundle.map_or_else(String::new, |bundle| pem::certificates(&bundle.roots))
}

/// Puts each new bundle and deny list in force here, and keeps the roots on disk; until `stop`.
pub(crate) async fn follow_trust(
    server: Arc<Server>, disk: Disk, mut stop: Stop,
) -> Result<(), Infallible> {
    let mut changed = server.node.changed();
    let mut known = None;
    loop {
        changed.borrow_and_update();
        let state = server.node.state();
        if known != Some(state.trust_modified)
            && let Some(bundle) = state.bundle()
        {
            known = Some(state.trust_modified);
            if let Err(error) = server.trust.update(&bundle) {
                let error = mesh_net::telemetry::Chain(&error);
                tracing::error!(%error, "the bundle cannot be put in force");
            }
            let (disk, roots) = (disk.clone(), pem::certificates(&bundle.roots));
            write(move || disk.write_roots(&roots)).await;
        }
        // Both branches are cancel safe.
        tokio::select! {
            () = stop.requested() => return Ok(()),
            changed = changed.changed() => if changed.is_err() {
                return Ok(());
            }
        }
    }
}

/// Renews this server's own certificate at half its life, and as soon as a restore brought another
/// CA: agents believe that one only. Until `stop`.
pub(crate) async fn renew_own(
    server: Arc<Server>, svid: Arc<SvidSource>, disk: Disk, mut stop: Stop,
) -> Result<(), Infallible> {
    let mut changed = server.node.changed();
    loop {
        let state = server.node.state();
        let current = svid.current();
        if clock::now() >= current.half_life() || !is_below(&current, &state) {
            renew(&server, &svid, &disk).await;
        }
        let trust_changed =
            changed.wait_for(|_| server.node.state().trust_modified != state.trust_modified);
        // All branches are cancel safe.
        tokio::select! {
            () = stop.requested() => return Ok(()),
            () = tokio::time::sleep(LOOK_EVERY) => {}
            changed = trust_changed => if changed.is_err() {
                return Ok(());
            },
        }
    }
}

/// Whether `svid` was issued below the root of `state`, which stands in its chain.
fn is_below(svid: &Svid, state: &MeshState) -> bool {
    let root = state.mesh.as_ref().map(|mesh| &mesh.ca.root);
    root.is_none_or(|root| svid.chain.iter().any(|cert| cert.as_ref() == root.0.as_slice()))
}

/// Renews once, if the state has a CA; what is wrong is logged, and tried again later.
pub(crate) async fn renew(server: &Server, svid: &SvidSource, disk: &Disk) {
    let key = match disk.key() {
        Ok(key) => key,
        Err(error) => return tracing::error!(%error, "cannot read this server's key"),
    };
    match issue_own(server, &svid.current().id, &key) {
        Ok((renewed, chain)) => {
            tracing::info!(until = %renewed.not_after, "renewed this server's certificate");
            svid.swap(renewed);
            let disk = disk.clone();
            write(move || disk.write_chain(&chain)).await;
        }
        Err(why) => tracing::error!(why, "cannot renew this server's certificate"),
    }
}

fn issue_own(server: &Server, id: &SpiffeId, key: &[u8]) -> Result<(Svid, String), String> {
    let issuer = server.issuer(&server.node.state()).map_err(|e| mesh_net::tls::describe(&e))?;
    let request = csr::csr_for(key).map_err(|e| e.to_string())?;
    let request = CsrKey::from_pem(&request).map_err(|e| e.to_string())?;
    let leaf = issuer.issue(id, &request, LEAF_LIFETIME, clock::now());
    let leaf = leaf.map_err(|e| mesh_net::tls::describe(&e))?;
    let chain = issuer.pem_with_root(&leaf);
    let svid = Svid::from_pem(&chain, key).map_err(|e| mesh_net::tls::describe(&e))?;
    Ok((svid, chain))
}

/// Runs a write to disk on a thread for blocking work; what is wrong is logged.
async fn write<E>(write: impl FnOnce() -> Result<(), E> + Send + 'static)
where
    E: std::error::Error + Send + Sync + 'static,
{
    match tokio::task::spawn_blocking(write).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error = mesh_net::telemetry::Chain(&error);
            tracing::error!(%error, "cannot write to the data directory");
        }
        Err(error) => tracing::error!(%error, "a write to disk broke off"),
    }
}
