//! [`ClientBuilder`]: servers, trust and credentials.

use std::sync::Arc;
use std::time::Duration;

use super::call::Client;
use super::shared::Shared;
use super::{ADDRESSES_MAX, CALL_TIMEOUT, CONNECT_TIMEOUT, ClientError};
use crate::tls::{Expected, SvidSource, TrustStore, roots_from_pem};
use crate::token::Secret;

/// How servers are recognised. Always as control servers of the mesh; never by host name.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The mesh's bundle, kept up to date by its owner, with the deny list.
    Store(Arc<TrustStore>),
    /// CA certificates in PEM.
    Pem(String),
    /// SHA-256 of the root certificate, as tokens carry it.
    Pin([u8; 32]),
}

/// Makes a [`Client`].
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    addresses: Vec<String>,
    trust: Option<Trust>,
    identity: Option<Arc<SvidSource>>,
    token: Option<Secret>,
    connect_timeout: Duration,
    call_timeout: Duration,
}

impl ClientBuilder {
    /// For servers at these addresses (`host:port`), tried in this order.
    pub fn new<S: Into<String>>(addresses: impl IntoIterator<Item = S>) -> Self {
        Self {
            addresses: addresses.into_iter().map(Into::into).collect(),
            trust: None,
            identity: None,
            token: None,
            connect_timeout: CONNECT_TIMEOUT,
            call_timeout: CALL_TIMEOUT,
        }
    }

    /// How servers are recognised. Required.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = Some(trust);
        self
    }

    /// The certificate to show. When it is swapped, new connections show the new one.
    #[must_use]
    pub fn identity(mut self, identity: Arc<SvidSource>) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The API token to show.
    #[must_use]
    pub fn token(mut self, token: Secret) -> Self {
        self.token = Some(token);
        self
    }

    /// How long connecting to one server may take.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call may take with all its repetitions; a watch adds its wait.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// The client. Connects to nobody yet.
    ///
    /// # Errors
    /// [`ClientError`] if an address, the trust or the token is invalid.
    pub fn build(self) -> Result<Client, ClientError> {
        let addresses = check_addresses(self.addresses)?;
        let (store, expected) = match self.trust.ok_or(ClientError::NoTrust)? {
            Trust::Store(store) => (store, Expected::AnyServer),
            Trust::Pem(pem) => (TrustStore::empty(), Expected::Roots(roots_from_pem(&pem)?)),
            Trust::Pin(pin) => (TrustStore::empty(), Expected::Pin(pin)),
        };
        let authorization = self.token.map(|token| bearer(&token)).transpose()?;
        let shared = Shared::new(
            addresses,
            store,
            expected,
            self.identity,
            authorization,
            self.connect_timeout,
        )?;
        Ok(Client { shared: Arc::new(shared), call_timeout: self.call_timeout })
    }
}

/// Checks that each address is `host:port` and that their number is in bounds.
pub(crate) fn check_addresses(addresses: Vec<String>) -> Result<Vec<String>, ClientError> {
    if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
        return Err(ClientError::Addresses { found: addresses.len() });
    }
    for address in &addresses {
        let authority: Option<http::uri::Authority> = address.parse().ok();
        let whole = authority.is_some_and(|authority| {
            let named = !authority.host().is_empty() && !address.contains('@');
            named && authority.port_u16().is_some()
        });
        if !whole {
            return Err(ClientError::Address { found: address.clone() });
        }
    }
    Ok(addresses)
}

fn bearer(token: &Secret) -> Result<http::HeaderValue, ClientError> {
    let text = zeroize::Zeroizing::new(format!("Bearer {}", token.reveal()));
    let mut value = http::HeaderValue::from_str(&text).map_err(|_| ClientError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}
