//! Handshakes as an attacker makes them, with certificates as only the mesh's own CA could sign.
//!
//! The CA's keys come out of a backup by the key-encryption key, which the tests have: so what is
//! refused is refused for the fault alone, by a verifier that trusts the issuer.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::identity::{CaRole, TrustDomain};
use mesh_core::name::Datacenter;
use mesh_net::testing::{set_life, uri_name};
use mesh_net::tls::provider;
use meshd::ca::{Kek, seal};
use meshd::raft::decode_backup;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

/// The mesh's CA, able to sign.
pub struct RealCa {
    /// What it vouches for.
    pub trust_domain: TrustDomain,
    /// The datacenter of its mesh.
    pub datacenter: Datacenter,
    issuers: BTreeMap<CaRole, (CertificateDer<'static>, Issuer<'static, KeyPair>)>,
    root: CertificateDer<'static>,
}

/// A certificate to show, with its key.
#[derive(Debug)]
pub struct Shown {
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8 in DER.
    pub key: Vec<u8>,
}

impl Shown {
    /// From a chain in PEM and a key in PKCS#8 DER.
    ///
    /// # Panics
    /// If the PEM holds no certificate.
    pub fn new(chain_pem: &str, key: Vec<u8>) -> Self {
        let certs = CertificateDer::pem_slice_iter(chain_pem.as_bytes());
        let chain: Vec<_> = certs.map(|cert| cert.expect("PEM")).collect();
        assert!(!chain.is_empty(), "no certificate in {chain_pem:?}");
        Self { chain, key }
    }
}

impl RealCa {
    /// Opens the CA in a backup by the key-encryption key in a file.
    ///
    /// # Panics
    /// If either is of no use.
    pub fn open(backup: &Path, kek: &Path) -> Self {
        let state = decode_backup(&fs::read(backup).expect("backup")).expect("a backup");
        let mesh = state.mesh.as_ref().expect("a mesh");
        let kek = Kek::load(kek, Path::new("/nowhere")).expect("the key-encryption key");
        let trust_domain = mesh.trust_domain.clone();
        let open = |(role, intermediate): (&CaRole, &mesh_core::trust::Intermediate)| {
            let name = seal::KeyName { trust_domain: trust_domain.clone(), role: Some(*role) };
            let key = seal::open(&kek, &name, &intermediate.key).expect("the key opens");
            let key = KeyPair::try_from(key.as_slice()).expect("a key");
            let cert = CertificateDer::from(intermediate.cert.0.clone());
            let issuer = Issuer::from_ca_cert_der(&cert, key).expect("an issuer");
            (*role, (cert, issuer))
        };
        let issuers = mesh.ca.intermediates.iter().map(open).collect();
        let root = CertificateDer::from(mesh.ca.root.0.clone());
        Self { trust_domain, datacenter: mesh.datacenter.clone(), issuers, root }
    }

    /// A leaf of `uris` by the intermediate of `role`, valid from and to these seconds from now.
    ///
    /// # Panics
    /// If it cannot be signed.
    pub fn leaf(&self, role: CaRole, uris: &[String], life: (i64, i64)) -> Shown {
        self.leaf_of(role, uris, life, KeyPair::generate().expect("a key"))
    }

    /// As [`RealCa::leaf`], of a key that is there.
    ///
    /// # Panics
    /// If it cannot be signed.
    pub fn leaf_of(&self, role: CaRole, uris: &[String], life: (i64, i64), key: KeyPair) -> Shown {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        set_life(&mut params, life.0, life.1);
        params.is_ca = IsCa::ExplicitNoCa;
        params.subject_alt_names = uris.iter().map(|uri| uri_name(uri)).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let (cert, issuer) = &self.issuers[&role];
        let leaf = params.signed_by(&key, issuer).expect("a leaf");
        let chain = vec![leaf.der().clone(), cert.clone(), self.root.clone()];
        Shown { chain, key: key.serialize_der() }
    }
}

/// What came of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer took the certificate, and waits or speaks.
    Open,
    /// The peer ended the connection, and how.
    Refused(String),
}

/// A connection to be made.
#[derive(Clone, Copy, Debug)]
pub struct Dial<'a> {
    /// Where to.
    pub address: SocketAddr,
    /// The TLS server name.
    pub name: &'a str,
    /// The protocol.
    pub alpn: &'a str,
}

type Session = rustls::StreamOwned<ClientConnection, TcpStream>;

impl Dial<'_> {
    fn session(&self, shown: Option<&Shown>) -> Session {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer));
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(shown) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(shown.key.clone()));
                builder.with_client_auth_cert(shown.chain.clone(), key).expect("a certificate")
            }
        };
        config.alpn_protocols = vec![self.alpn.as_bytes().to_vec()];
        let name = ServerName::try_from(self.name.to_owned()).expect("a server name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
        let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5));
        let stream = stream.expect("connect");
        stream.set_read_timeout(Some(Duration::from_millis(700))).expect("timeout");
        rustls::StreamOwned::new(connection, stream)
    }

    /// Shakes hands, then waits for what the peer does: with TLS 1.3 a refusal comes after.
    pub fn handshake(&self, shown: Option<&Shown>) -> Outcome {
        let mut session = self.session(shown);
        let read = session.read(&mut [0; 64]);
        match read {
            Ok(0) => Outcome::Refused("closed".to_owned()),
            Ok(_) => Outcome::Open,
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                match session.conn.is_handshaking() {
                    true => Outcome::Refused("no handshake".to_owned()),
                    false => Outcome::Open,
                }
            }
            Err(why) => Outcome::Refused(why.to_string()),
        }
    }

    /// Sends an HTTP/1.1 request and gives the status of the answer.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn ask(
        &self, shown: Option<&Shown>, method: &str, path: &str, body: &str,
    ) -> (u16, String) {
        let mut session = self.session(shown);
        session.sock.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: mesh\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        session.write_all(request.as_bytes()).expect("request");
        let mut answer = Vec::new();
        // A peer may leave without a goodbye; what it said is what counts.
        let ended = session.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{method} {path}: {answer:?}, {ended:?}"));
        (status, answer)
    }
}

/// Takes any server: it is the server that is tested.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self, _: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: &ServerName<'_>, _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
