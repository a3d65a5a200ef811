//! Links to other agents: one per source identity, destination identity and agent, made at first
//! use, kept, and replaced before either certificate ends.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use mesh_core::identity::{self, SpiffeId};
use mesh_core::time::UnixMillis;
use mesh_net::tls::{self, Expected, SvidSource};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::Proxy;
use super::connections::Check;
use super::refusal::Refusal;
use crate::limits::proxy::{LINKS_EVICTED, UNACKNOWLEDGED_MAX};
use crate::link::{self, LinkClient};

/// A connection speaks for exactly one source and one destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LinkKey {
    /// Whose certificate is shown.
    pub(super) source: SpiffeId,
    /// Who must answer.
    pub(super) destination: SpiffeId,
    /// The other agent.
    pub(super) address: SocketAddr,
}

/// One link, or none yet. Its lock is held while connecting, so that a cold key makes one link.
#[derive(Debug, Default)]
struct Slot(tokio::sync::Mutex<Option<LinkClient>>);

/// All links of this worker to other agents.
#[derive(Debug)]
pub(super) struct Links {
    slots: Mutex<HashMap<LinkKey, Arc<Slot>>>,
    max: usize,
}

impl Links {
    /// No links yet; `max` may be kept.
    pub(super) fn new(max: usize) -> Self {
        Self { slots: Mutex::default(), max: max.max(1) }
    }

    /// Tells every link to finish what it has and close.
    pub(super) fn close_gracefully(&self) {
        let slots: Vec<_> = self.lock().drain().map(|(_, slot)| slot).collect();
        for slot in slots {
            slot.close();
        }
    }

    /// The slot of `key`; none if all that may be kept are in use.
    fn slot(&self, key: &LinkKey) -> Option<Arc<Slot>> {
        let mut slots = self.lock();
        if let Some(slot) = slots.get(key) {
            return Some(Arc::clone(slot));
        }
        if slots.len() >= self.max {
            let mut evicted = 0;
            slots.retain(|_, slot| {
                let keep = evicted > self.max / LINKS_EVICTED
                    || Arc::strong_count(slot) > 1
                    || slot.is_busy();
                if !keep {
                    evicted += 1;
                    slot.close(); // its task holds the link as well: forgetting it is not enough
                }
                keep
            });
        }
        if slots.len() >= self.max {
            return None;
        }
        Some(Arc::clone(slots.entry(key.clone()).or_default()))
    }

    /// Closes idle links to where none of `wanted` is any more.
    pub(super) fn reconcile(&self, wanted: &HashSet<SocketAddr>) {
        self.lock().retain(|key, slot| {
            let keep =
                wanted.contains(&key.address) || Arc::strong_count(slot) > 1 || slot.is_busy();
            if !keep {
                slot.close();
            }
            keep
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<LinkKey, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Tells its link, if there is one, to finish what it has and close.
    fn close(&self) {
        if let Ok(mut link) = self.0.try_lock()
            && let Some(link) = link.take()
        {
            link.close_gracefully();
        }
    }

    fn is_busy(&self) -> bool {
        self.0.try_lock().map_or(true, |link| {
            link.as_ref().is_some_and(|link| link.is_open() && link.in_flight() > 0)
        })
    }
}

impl Proxy {
    /// An open link for `key`, shown by `svid`; made now if there is none, by `deadline`.
    pub(super) async fn link(
        self: &Arc<Self>, key: &LinkKey, svid: &Arc<SvidSource>, deadline: Instant,
    ) -> Result<LinkClient, Refusal> {
        let full = || Refusal::Connect(format!("{} (too many links)", key.address));
        let slot = self.links.slot(key).ok_or_else(full)?;
        let timed_out = |_| Refusal::Connect(format!("{} (too slow)", key.address));
        let mut held = timeout_at(deadline, slot.0.lock()).await.map_err(timed_out)?;
        if let Some(link) = held.as_ref().filter(|link| link.is_open()) {
            return Ok(link.clone());
        }
        let connecting = self.connect(key, svid);
        let link = timeout_at(deadline, connecting).await.map_err(timed_out)??;
        *held = Some(link.clone());
        Ok(link)
    }

    async fn connect(
        self: &Arc<Self>, key: &LinkKey, svid: &Arc<SvidSource>,
    ) -> Result<LinkClient, Refusal> {
        let failed = |why: String| {
            tracing::debug!(peer = %key.address, destination = %key.destination, why, "link failed");
            Refusal::Connect(format!("{}: {why}", key.address))
        };
        let Some((dc, service)) = key.destination.as_service() else {
            return Err(failed("the destination is no service".to_owned()));
        };
        let sni = identity::server_name(&key.destination.trust_domain, dc, service);
        let sni = ServerName::try_from(sni).map_err(|why| failed(why.to_string()))?;
        let expected = Expected::Id(key.destination.clone());
        let trust = self.identities.trust();
        let config = tls::client_config(Some(Arc::clone(svid)), trust, expected, &[link::ALPN])
            .map_err(|why| failed(why.to_string()))?;
        let tcp = TcpStream::connect(key.address).await.map_err(|why| failed(why.to_string()))?;
        prepare(&tcp).map_err(|why| failed(why.to_string()))?;
        let tls = TlsConnector::from(config)
            .connect(sni, link::ReadAhead::new(tcp))
            .await
            .map_err(|why| failed(tls::describe(&why)))?;
        let (_, session) = tls.get_ref();
        if session.alpn_protocol() != Some(link::ALPN) {
            return Err(failed("it does not speak mesh/1".to_owned()));
        }
        let peer = tls::peer_identity(session.peer_certificates())
            .map_err(|why| failed(why.to_string()))?
            .ok_or_else(|| failed("it showed no certificate".to_owned()))?;
        let life = remaining(peer.not_after.min(svid.current().not_after));
        let peer = Arc::new(peer);
        let registered = self.connections.register(Check::Link(Arc::clone(&peer)));
        // after it is registered: what is revoked from now on closes it
        if self.identities.trust().is_revoked(&peer) {
            return Err(failed("its certificate was revoked".to_owned()));
        }
        let (client, driver) = link::client(tls, link::Config::default());
        let retiring = client.clone();
        self.spawn(async move {
            tokio::select! {
                ended = driver => {
                    if let Err(why) = ended {
                        tracing::debug!(%why, "link ended");
                    }
                }
                () = registered.close.cancelled() => {}
                () = retire(&retiring, life) => {}
            }
        });
        Ok(client)
    }
}

/// Sets up a socket between agents. One that the network has lost is given up soon: its kernel
/// would try ever more rarely, and calls on it wait long after the network is back.
pub(super) fn prepare(tcp: &TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let limit = u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(tcp, limit)?)
}

/// Stops using the link in time for what is in flight to finish before a certificate ends.
async fn retire(link: &LinkClient, life: Duration) {
    let early = life / 10;
    tokio::time::sleep(life - early).await;
    link.close_gracefully();
    tokio::time::sleep(early).await;
}

/// How long until `end`; nothing if it has passed.
pub(super) fn remaining(end: UnixMillis) -> Duration {
    Duration::from_millis(end.since(mesh_net::clock::now()))
}
