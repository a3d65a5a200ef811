//! What an agent needs before its first task.

use std::fs::File;
use std::io;
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
    let mut tried = Vec::new();
    for server in &config.servers {
        match address_towards(server) {
            Ok(address) => return Ok(address),
            Err(why) => tried.push(format!("{server}: {why}")),
        }
    }
    Err(RunError::Address { tried })
}

/// The address from which packets to `server` would leave. Sends none.
fn address_towards(server: &str) -> io::Result<IpAddr> {
    let unknown = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let target = server.to_socket_addrs()?.next().ok_or_else(unknown)?;
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    let address = socket.local_addr()?.ip();
    if address.is_unspecified() { Err(unknown()) } else { Ok(address) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn a_server_that_cannot_be_resolved_is_named_with_the_reason() {
        let servers = vec!["ctl-1:port".to_owned(), "127.0.0.1:7300".to_owned()];
        let mut config = Config::new("web-1".parse().unwrap(), servers, "/nowhere".into());
        assert_eq!(advertised(&config).unwrap(), IpAddr::from([127, 0, 0, 1]));
        config.servers.truncate(1);
        let said = advertised(&config).unwrap_err().to_string();
        assert!(said.contains("(ctl-1:port: invalid port value)"), "{said}");
    }
}
