//! One try of a check. Each is bounded by the check's timeout and by what it reads.

mod exec;
mod http;

use std::net::SocketAddr;
use std::time::Duration;

use mesh_core::hostfile::{CheckFile, CheckKind};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::state::Try;

/// What a check may do besides opening connections to its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exec {
    /// It may run its command: root declared it.
    Allowed,
    /// It may not.
    Refused,
}

/// Tries `check` once against an instance that listens at `address`.
///
/// Ends within the check's timeout. Cancel safe: a command under way is killed.
pub(super) async fn probe(check: &CheckFile, address: SocketAddr, exec: Exec) -> Try {
    let limit = Duration::from_millis(check.timeout_ms);
    let result = match &check.kind {
        CheckKind::Http(path) => bounded(limit, http::get(address, path)).await,
        CheckKind::Tcp => bounded(limit, connect(address)).await,
        CheckKind::Exec(words) => match exec {
            Exec::Allowed => exec::run(words, limit).await,
            Exec::Refused => Err(EXEC_REFUSED.to_owned()),
        },
    };
    match result {
        Ok(output) => Try { good: true, output },
        Err(output) => Try { good: false, output },
    }
}

/// What a refused command's check says.
pub const EXEC_REFUSED: &str =
    "exec checks run only from files that are owned and writable by root alone";

async fn bounded(
    limit: Duration, attempt: impl Future<Output = Result<String, String>>,
) -> Result<String, String> {
    timeout(limit, attempt).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

async fn connect(address: SocketAddr) -> Result<String, String> {
    match TcpStream::connect(address).await {
        Ok(_) => Ok(format!("{address} accepts connections")),
        Err(why) => Err(format!("cannot connect to {address}: {why}")),
    }
}

#[cfg(test)]
mod tests;
