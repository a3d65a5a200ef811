//! Backups of the whole state, and coming back from one.

use std::sync::Arc;

use mesh_core::api::Written;
use mesh_core::command::{CommandKind, Rejected, Restore1};
use mesh_core::state::MeshState;
use mesh_net::clock;
use mesh_net::tls::{TrustStore, describe};

use super::error::{Failure, Kind};
use super::request::Call;
use super::{Answer, BINARY};
use crate::ca::Issuer;
use crate::lease;
use crate::limits::api::{BACKUP_FRESH_MAX, CLOCK_AHEAD_MS_MAX, EPOCHS_AHEAD_MAX};
use crate::raft::decode_backup;
use crate::server::Server;

pub(super) async fn save(call: &Call) -> Result<Answer, Failure> {
    // A backup must hold every write that was acknowledged before it was asked for.
    call.server.node.linearizable(BACKUP_FRESH_MAX).await?;
    let revision = call.server.node.state().revision;
    let bytes = call.server.node.checkpoint_bytes().await?;
    Ok(Answer::of(bytes, BINARY, Some(revision)))
}

/// The new epoch is above any that this mesh, the backup or an agent has seen, so that agents take
/// it for newer than whatever they hold.
pub(super) async fn restore(call: &Call) -> Result<Answer, Failure> {
    let bytes = call.bytes();
    let server = Arc::clone(&call.server);
    let read = move || {
        let backup = decode_backup(&bytes)?;
        check(&server, &backup).map_err(unfit)?;
        Ok::<_, Failure>(backup)
    };
    let backup = tokio::task::spawn_blocking(read).await??;
    let agents = lease::all_agents(&call.server).await;
    let agents = agents.map_err(|why| Failure::new(Kind::Unavailable, "no_leader", why))?;
    let known = call.server.node.state().revision.epoch.max(backup.revision.epoch);
    // An agent's word must not use up all epochs: what is far off is no epoch of this mesh.
    let reported = agents.iter().map(|agent| agent.report.applied.epoch);
    let credible = reported.filter(|epoch| epoch.saturating_sub(known) <= EPOCHS_AHEAD_MAX);
    let epoch = credible.max().unwrap_or(0).max(known).saturating_add(1);
    tracing::warn!(by = %call.by, backup = %backup.revision, epoch, "restoring a backup");
    let restore = Restore1 { epoch, state: Box::new(backup) };
    let kind = CommandKind::Restore1(restore);
    let revision = call.server.node.propose(call.by.clone(), kind).await?.revision()?;
    Answer::json(&Written { revision }, revision)
}

/// Whether the mesh can live on with `backup`: a whole file may be another mesh's, or made to harm,
/// and once it is in the log there is no way back.
fn check(server: &Server, backup: &MeshState) -> Result<(), String> {
    let (now, found) = (server.node.state().revision.epoch, backup.revision.epoch);
    if found.saturating_sub(now) > EPOCHS_AHEAD_MAX {
        return Err(format!("it is of epoch {found}, this mesh of {now}"));
    }
    let (clock, wall) = (backup.clock, clock::now());
    if clock.since(wall) > CLOCK_AHEAD_MS_MAX {
        return Err(format!("it is of {clock}, expected the past: every token would have ended"));
    }
    let (Some(mesh), Some(bundle)) = (&backup.mesh, backup.bundle()) else {
        return Err("it holds no initialised mesh".to_owned());
    };
    Issuer::open(&mesh.trust_domain, &mesh.ca, &server.kek).map_err(|error| {
        format!("its CA does not open with this server's key-encryption key: {}", describe(&error))
    })?;
    TrustStore::new(&bundle).map(drop).map_err(|error| describe(&error))
}

fn unfit(why: String) -> Failure {
    Rejected::Restore(why).into()
}
