//! [`Shared`]: what clones of a client share, and the HTTP client beneath.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use mesh_core::trust::Bundle;

use super::ClientError;
use crate::limits::client::KEEP_ALIVE;
use crate::tls::{Expected, Svid, SvidSource, TrustStore, client_config};

/// What clones of a client share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) addresses: ArcSwap<Vec<String>>,
    /// Index of the server that answered last.
    pub(super) good: AtomicUsize,
    trust: Arc<TrustStore>,
    expected: Expected,
    identity: Option<Arc<SvidSource>>,
    pub(super) authorization: Option<HeaderValue>,
    connect_timeout: Duration,
    http: ArcSwap<Http>,
}

/// The HTTP client and what it was made with. Its connections live as long as those are in force.
#[derive(Debug)]
pub(super) struct Http {
    svid: Option<Arc<Svid>>,
    bundle: Arc<Bundle>,
    pub(super) client: reqwest::Client,
}

impl Shared {
    pub(super) fn new(
        addresses: Vec<String>, trust: Arc<TrustStore>, expected: Expected,
        identity: Option<Arc<SvidSource>>, authorization: Option<HeaderValue>,
        connect_timeout: Duration,
    ) -> Result<Self, ClientError> {
        let http = make_http(&trust, &expected, identity.as_ref(), connect_timeout)?;
        Ok(Self {
            addresses: ArcSwap::from_pointee(addresses),
            good: AtomicUsize::new(0),
            trust,
            expected,
            identity,
            authorization,
            connect_timeout,
            http: ArcSwap::from_pointee(http),
        })
    }

    /// The HTTP client; a new one, with new connections, once identity or bundle were swapped.
    pub(super) fn http(&self) -> Result<Arc<Http>, ClientError> {
        let http = self.http.load_full();
        let same_svid = match (&self.identity, &http.svid) {
            (Some(source), Some(svid)) => Arc::ptr_eq(&source.current(), svid),
            _ => true,
        };
        if same_svid && Arc::ptr_eq(&self.trust.bundle(), &http.bundle) {
            return Ok(http);
        }
        let identity = self.identity.as_ref();
        let next =
            Arc::new(make_http(&self.trust, &self.expected, identity, self.connect_timeout)?);
        self.http.store(next.clone());
        Ok(next)
    }
}

fn make_http(
    trust: &Arc<TrustStore>, expected: &Expected, identity: Option<&Arc<SvidSource>>,
    connect_timeout: Duration,
) -> Result<Http, ClientError> {
    let (svid, bundle) = (identity.map(|source| source.current()), trust.bundle());
    let alpn: [&[u8]; 2] = [b"h2", b"http/1.1"];
    let config = client_config(identity.cloned(), trust.clone(), expected.clone(), &alpn)?;
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(Arc::unwrap_or_clone(config))
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .http2_keep_alive_timeout(KEEP_ALIVE)
        .build()
        .map_err(ClientError::Setup)?;
    Ok(Http { svid, bundle, client })
}
