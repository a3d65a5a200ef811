//! rustls configurations: the only two ways into a TLS connection of the mesh.

use std::fmt;
use std::sync::Arc;

use mesh_core::identity::{CaRole, SpiffeId};
use mesh_core::trust::CertDer;
use rustls::client::Resumption;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use super::trust::anchors;
use super::verify::{CallerVerifier, DialledVerifier};
use super::{SvidSource, TlsError, TrustStore, provider};

/// Whom a dialler takes for its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// This identity only.
    Id(SpiffeId),
    /// Any control server of the mesh.
    AnyServer,
    /// Any control server below the root with this SHA-256 (of its DER), which the server must
    /// present in its chain. The trust store is not looked at: a joiner has none.
    Pin([u8; 32]),
    /// Any control server below one of these roots, whatever its trust domain. The trust store is
    /// not looked at: for callers who hold a CA file and know no more of the mesh.
    Roots(Vec<CertDer>),
}

/// Whom a listener takes.
#[derive(Clone, Copy, Debug)]
pub enum ClientAuth {
    /// Only callers with a certificate of one of these roles.
    Required(&'static [CaRole]),
    /// Callers without a certificate too, who prove themselves otherwise.
    Optional {
        /// A certificate that is presented must be of one of these roles.
        roles: &'static [CaRole],
        /// Whether a node whose certificate ended within the offline grace is let in, and marked.
        allow_expired: bool,
    },
}

/// Which identity a listener shows.
#[derive(Clone)]
pub enum Resolver {
    /// Always this one.
    One(Arc<SvidSource>),
    /// That of the TLS server name asked for; a caller who asks for none, or for one without an
    /// identity here, is refused.
    BySni(Arc<SvidBySni>),
}

/// Finds an identity by TLS server name.
pub type SvidBySni = dyn Fn(&str) -> Option<Arc<SvidSource>> + Send + Sync;

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(source) => f.debug_tuple("One").field(source).finish(),
            Self::BySni(_) => f.write_str("BySni"),
        }
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match self {
            Self::One(source) => Some(source.certified()),
            Self::BySni(find) => Some(find(hello.server_name()?)?.certified()),
        }
    }
}

/// A configuration to dial with: TLS 1.3, no resumption, the peer verified as `expected`.
///
/// `identity` and `trust` are read at each handshake, so swapping them needs no new configuration.
///
/// # Errors
/// [`TlsError::Root`] or [`TlsError::Roots`] if given roots are none; [`TlsError::Config`] if the
/// provider lacks TLS 1.3.
pub fn client_config(
    identity: Option<Arc<SvidSource>>, trust: Arc<TrustStore>, expected: Expected, alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let anchors = match &expected {
        Expected::Roots(roots) => anchors(roots)?,
        Expected::Id(_) | Expected::AnyServer | Expected::Pin(_) => Vec::new(),
    };
    let verifier = DialledVerifier { trust, expected, anchors, provider: provider() };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Config)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(source) => builder.with_client_cert_resolver(source),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = protocols(alpn);
    Ok(Arc::new(config))
}

/// A configuration for joining, when only the root's hash is known: see [`Expected::Pin`].
///
/// # Errors
/// As [`client_config`].
pub fn pinned_client_config(pin: [u8; 32], alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    client_config(None, TrustStore::empty(), Expected::Pin(pin), alpn)
}

/// A configuration to listen with: TLS 1.3, no resumption, callers verified as `auth` says.
///
/// `identity` and `trust` are read at each handshake, so swapping them needs no new configuration.
///
/// # Errors
/// [`TlsError::Config`] if the provider lacks TLS 1.3.
pub fn server_config(
    identity: Resolver, trust: Arc<TrustStore>, auth: ClientAuth, alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let (roles, mandatory, allow_expired) = match auth {
        ClientAuth::Required(roles) => (roles, true, false),
        ClientAuth::Optional { roles, allow_expired } => (roles, false, allow_expired),
    };
    let verifier = CallerVerifier { trust, roles, mandatory, allow_expired, provider: provider() };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Config)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(identity));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = protocols(alpn);
    Ok(Arc::new(config))
}

fn protocols(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}
