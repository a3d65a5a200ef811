//! Tells the service manager how the agent fares.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::limits::run::{ANNOUNCE_EVERY, READY_WITHIN};
use crate::status::Board;

/// Tells the service manager once the agent serves; and also if that takes long, for then it lives
/// without servers, which a restart would not mend.
pub(super) async fn announce(board: Arc<Board>, stop: CancellationToken) {
    let mut changed = board.changed();
    let ready = changed.wait_for(|status| status.ready().is_ok());
    match stop.run_until_cancelled(tokio::time::timeout(READY_WITHIN, ready)).await {
        None => return,
        Some(Ok(_)) => {}
        Some(Err(_)) => tracing::warn!("{}", board.status().ready().err().unwrap_or_default()),
    }
    mesh_net::notify::ready();
    loop {
        let status = changed.borrow_and_update().clone();
        let line = match (&status.server, status.ready()) {
            (_, Err(why)) => why,
            (Some(server), Ok(())) => format!("revision {} from {server}", status.revision),
            (None, Ok(())) => format!("revision {}, stale: no server answers", status.revision),
        };
        mesh_net::notify::status(&line);
        // Not more often than people read.
        let next = async {
            tokio::time::sleep(ANNOUNCE_EVERY).await;
            changed.changed().await.is_ok()
        };
        if stop.run_until_cancelled(next).await != Some(true) {
            return;
        }
    }
}
