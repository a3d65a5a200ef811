//! Connections to the applications of this host: plain HTTP/1.1 on loopback, kept and reused.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Proxy;
use super::body::ProxyBody;

/// Idle connections kept for one application.
const IDLE_MAX: usize = 64;
/// After this an idle connection is not used again: most servers close theirs later than that.
const IDLE_TIME: Duration = Duration::from_secs(4);
/// For a connection on loopback.
const CONNECT: Duration = Duration::from_secs(1);

/// Idle connections, by application.
#[derive(Debug)]
pub(super) struct Apps(Mutex<HashMap<SocketAddr, Vec<Idle>>>);

#[derive(Debug)]
struct Idle {
    sender: SendRequest<ProxyBody>,
    since: Instant,
}

/// Why an application did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppError {
    /// It saw nothing of the request.
    #[error("cannot connect to the application on {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It may have seen the request.
    #[error("the application broke off")]
    Broken(#[source] hyper::Error),
}

impl Apps {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    fn take(&self, address: SocketAddr) -> Option<SendRequest<ProxyBody>> {
        let mut apps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = apps.get_mut(&address)?;
        while let Some(last) = idle.pop() {
            if last.since.elapsed() < IDLE_TIME && last.sender.is_ready() {
                return Some(last.sender);
            }
        }
        None
    }

    fn put(&self, address: SocketAddr, sender: SendRequest<ProxyBody>) {
        if !sender.is_ready() {
            return;
        }
        let mut apps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = apps.entry(address).or_default();
        idle.retain(|one| one.since.elapsed() < IDLE_TIME && !one.sender.is_closed());
        if idle.len() < IDLE_MAX {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Closes what was idle for too long, and forgets applications that have nothing else.
    pub(super) fn prune(&self) {
        let mut apps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        apps.retain(|_, idle| {
            idle.retain(|one| one.since.elapsed() < IDLE_TIME && !one.sender.is_closed());
            !idle.is_empty()
        });
    }
}

impl Proxy {
    /// Sends `request`, in origin form, to the application on `address`.
    pub(super) async fn send_to_app(
        self: &Arc<Self>, address: SocketAddr, request: Request<ProxyBody>,
    ) -> Result<Response<Incoming>, AppError> {
        let mut sender = match self.apps.take(address) {
            Some(sender) => sender,
            None => self.connect_app_http(address).await?,
        };
        match sender.try_send_request(request).await {
            Ok(response) => {
                self.give_back(address, sender);
                Ok(response)
            }
            Err(mut failed) => match failed.take_message() {
                // a kept connection closed under us, and the application saw nothing
                Some(request) => {
                    let mut sender = self.connect_app_http(address).await?;
                    let response = sender.send_request(request).await.map_err(AppError::Broken)?;
                    self.give_back(address, sender);
                    Ok(response)
                }
                None => Err(AppError::Broken(failed.into_error())),
            },
        }
    }

    /// Connects to the application on `address` as a caller of raw TCP.
    pub(super) async fn connect_app(&self, address: SocketAddr) -> Result<TcpStream, AppError> {
        let failed = |source| AppError::Connect { address, source };
        let connecting = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
        let stream = connecting.map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?;
        let stream = stream.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(stream)
    }

    async fn connect_app_http(
        self: &Arc<Self>, address: SocketAddr,
    ) -> Result<SendRequest<ProxyBody>, AppError> {
        let stream = self.connect_app(address).await?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(AppError::Broken)?;
        self.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "connection to the application ended");
            }
        });
        Ok(sender)
    }

    /// Keeps the connection for later once the answer's body is through.
    fn give_back(self: &Arc<Self>, address: SocketAddr, mut sender: SendRequest<ProxyBody>) {
        let proxy = Arc::clone(self);
        self.spawn(async move {
            if sender.ready().await.is_ok() {
                proxy.apps.put(address, sender);
            }
        });
    }
}
