//! What an agent needs before its first task.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;

use mesh_core::revision::Revision;
use mesh_core::snapshot::ProxySnapshot;
use mesh_core::trust::Bundle;
use mesh_net::tls::roots_from_pem;

use crate::config::Config;
use crate::error::RunError;
use crate::identity::{self, Enrolled};

/// The config of a host that has just joined: whom to trust, and nothing else.
pub(super) fn first_snapshot(enrolled: &Enrolled) -> Result<ProxySnapshot, RunError> {
    let roots = roots_from_pem(&enrolled.roots_pem).map_err(RunError::Trust)?;
    let trust_domain = enrolled.host.trust_domain.clone();
    let bundle = Bundle { trust_domain, roots, revoked: Vec::new() };
    let snapshot = ProxySnapshot::empty(enrolled.host.clone(), bundle);
    debug_assert_eq!(snapshot.revision, Revision::ZERO);
    Ok(snapshot)
}

/// Takes the data directory for this process: one writer at a time.
pub(super) fn lock(data_dir: &Path) -> Result<File, RunError> {
    let wrong = |source| RunError::DataDir { path: data_dir.to_owned(), source };
    identity::private_dir(data_dir).map_err(wrong)?;
    let file = File::create(data_dir.join("lock")).map_err(wrong)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(RunError::InUse { path: data_dir.to_owned() })
        }
        Err(std::fs::TryLockError::Error(source)) => Err(wrong(source)),
    }
}

/// Where other agents dial this one: as configured, or this host's address towards the servers.
pub(super) fn advertised(config: &Config) -> Result<IpAddr, RunError> {
    if let Some(address) = config.address {
        return Ok(address);
    }
    if !config.inbound.ip().is_unspecified() {
        return Ok(config.inbound.ip());
    }
    let unknown = || RunError::Address { servers: config.servers.clone() };
    config.servers.iter().find_map(|server| address_towards(server)).ok_or_else(unknown)
}

/// The address from which packets to `server` would leave. Sends none.
fn address_towards(server: &str) -> Option<IpAddr> {
    let target = server.to_socket_addrs().ok()?.next()?;
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}
