//! [`Clients`]: the client of the servers' API, made anew when the node's certificate is.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use mesh_net::client::{ADDRESSES_MAX, Client, ClientBuilder, ClientError, Trust};
use mesh_net::tls::{SvidSource, TrustStore};
use tokio::sync::watch;

/// The client in use. A connection speaks for the certificate it was opened with, also once that
/// has ended, so that a renewed certificate needs new connections.
#[derive(Debug)]
pub(crate) struct Clients {
    current: ArcSwap<Client>,
    identity: Arc<SvidSource>,
    trust: Arc<TrustStore>,
    /// From the settings: kept whatever servers say, so that a wrong list can be mended there.
    configured: Vec<String>,
    addresses: Mutex<Vec<String>>,
    renewed: watch::Sender<u64>,
}

impl Clients {
    /// A client of the `configured` servers and those that servers told of before.
    pub(crate) fn new(
        identity: Arc<SvidSource>, trust: Arc<TrustStore>, configured: Vec<String>, told: &[String],
    ) -> Result<Self, ClientError> {
        let addresses = merged(&configured, told);
        let client = build(&addresses, &identity, &trust)?;
        Ok(Self {
            current: ArcSwap::from_pointee(client),
            identity,
            trust,
            configured,
            addresses: Mutex::new(addresses),
            renewed: watch::Sender::new(0),
        })
    }

    /// The client in use. Not to be kept over a wait.
    pub(crate) fn current(&self) -> Arc<Client> {
        self.current.load_full()
    }

    /// A client with connections of its own.
    pub(crate) fn fresh(&self) -> Result<Client, ClientError> {
        build(&self.addresses(), &self.identity, &self.trust)
    }

    /// Puts a fresh client in use: the node's certificate is a new one.
    pub(crate) fn renew(&self) {
        match self.fresh() {
            Ok(client) => {
                self.current.store(Arc::new(client));
                self.renewed.send_modify(|count| *count += 1);
            }
            Err(why) => tracing::error!("cannot renew the client of the servers' API: {why}"),
        }
    }

    /// Changes when [`Self::current`] gives another client.
    pub(crate) fn renewed(&self) -> watch::Receiver<u64> {
        self.renewed.subscribe()
    }

    /// The servers that are tried.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of the servers that a server told of.
    pub(crate) fn told(&self, servers: &[String]) {
        let next = merged(&self.configured, servers);
        if next == self.addresses() {
            return;
        }
        match self.current().set_addresses(next.clone()) {
            Ok(()) => {
                *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = next;
            }
            Err(why) => tracing::warn!("servers told of are not used: {why}"),
        }
    }
}

fn build(
    addresses: &[String], identity: &Arc<SvidSource>, trust: &Arc<TrustStore>,
) -> Result<Client, ClientError> {
    let client = ClientBuilder::new(addresses.iter().cloned())
        .trust(Trust::Store(trust.clone()))
        .identity(identity.clone())
        .build()?;
    // A fleet that starts at once must not begin with one server.
    let skip = super::backoff::random_permille() as usize % addresses.len().max(1);
    (0..skip).for_each(|_| client.prefer_next());
    Ok(client)
}

fn merged(configured: &[String], told: &[String]) -> Vec<String> {
    let mut all = configured.to_vec();
    all.extend(told.iter().filter(|server| !configured.contains(server)).cloned());
    all.truncate(ADDRESSES_MAX);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_servers_stay() {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let configured = list(&["a:1", "b:1"]);
        assert_eq!(merged(&configured, &list(&["b:1", "c:1"])), list(&["a:1", "b:1", "c:1"]));
        assert_eq!(merged(&configured, &[]), configured);
        let many: Vec<String> = (0..100).map(|n| format!("s{n}:1")).collect();
        assert_eq!(merged(&configured, &many).len(), ADDRESSES_MAX);
    }
}
