//! Certificate requests (PKCS#10, RFC 2986): proof that the asker holds a key, and that key.
//!
//! Nothing else of a request is used. The names, constraints and extensions that it asks for are
//! not even looked at: a certificate says what the registry says.

pub use crate::limits::ca::CSR_BYTES_MAX;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    ED25519, UnparsedPublicKey, VerificationAlgorithm,
};
use mesh_core::catalog::KeyHash;
use mesh_net::hash;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ED25519, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A public key whose holder proved to hold it. Only [`CsrKey::from_pem`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsrKey {
    spki: Vec<u8>,
}

/// Why a certificate request was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// Larger than any honest request.
    #[error("certificate request has {found} bytes, expected at most {CSR_BYTES_MAX}")]
    Length {
        /// Bytes found.
        found: usize,
    },
    /// Not exactly one request in PEM.
    #[error(
        "certificate request is not one PEM block, expected -----BEGIN CERTIFICATE REQUEST-----"
    )]
    Pem,
    /// Not a request.
    #[error("certificate request is malformed: {0}, expected PKCS#10 in DER")]
    Malformed(String),
    /// A key that the mesh does not certify.
    #[error(
        "certificate request has a key of type {found}, expected ECDSA P-256 or P-384 with an uncompressed point, or Ed25519"
    )]
    Key {
        /// The object identifier of its algorithm.
        found: String,
    },
    /// A signature of another kind than the key's.
    #[error(
        "certificate request is signed with {found}, expected ECDSA with SHA-256 or SHA-384, or Ed25519"
    )]
    Algorithm {
        /// The object identifier of the signature's algorithm.
        found: String,
    },
    /// The asker does not hold the key.
    #[error("certificate request is not signed by the key in it")]
    Proof,
}

impl CsrKey {
    /// Reads a request in PEM, verifies that it is signed by the key in it, and keeps that key.
    ///
    /// # Errors
    /// [`CsrError`].
    pub fn from_pem(pem: &str) -> Result<Self, CsrError> {
        if pem.len() > CSR_BYTES_MAX {
            return Err(CsrError::Length { found: pem.len() });
        }
        let mut blocks = CertificateSigningRequestDer::pem_slice_iter(pem.as_bytes());
        match (blocks.next(), blocks.next()) {
            (Some(Ok(der)), None) => Self::from_der(&der),
            _ => Err(CsrError::Pem),
        }
    }

    /// The public key (SPKI, DER), in the one encoding that the mesh knows.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The name of the key: SHA-256 of [`CsrKey::spki`].
    pub fn hash(&self) -> KeyHash {
        hash::key_hash(&self.spki)
    }

    fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        let (rest, csr) = X509CertificationRequest::from_der(der)
            .map_err(|error| CsrError::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed(format!("{} bytes behind it", rest.len())));
        }
        let info = &csr.certification_request_info;
        let (kind, point) = key_kind(&info.subject_pki)?;
        let algorithm = verification(kind, &csr.signature_algorithm.algorithm)?;
        if csr.signature_value.unused_bits != 0 {
            return Err(CsrError::Malformed("signature of odd bits".to_owned()));
        }
        UnparsedPublicKey::new(algorithm, point)
            .verify(info.raw, &csr.signature_value.data)
            .map_err(|_| CsrError::Proof)?;
        Ok(Self { spki: info.subject_pki.raw.to_vec() })
    }
}

/// The kinds of key that the mesh certifies.
#[derive(Clone, Copy, Debug)]
enum Kind {
    P256,
    P384,
    Ed25519,
}

/// What each kind's SPKI begins with, and the bytes of key that follow (RFC 5480 §2.1.1 and §2.2
/// with the uncompressed point's 04; RFC 8410 §4).
///
/// Compared whole, so that one key has one encoding and one [`KeyHash`].
const KINDS: [(Kind, &[u8], usize); 3] = [
    (
        Kind::P256,
        b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04",
        64,
    ),
    (
        Kind::P384,
        b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00\x04",
        96,
    ),
    (Kind::Ed25519, b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", 32),
];

/// The kind of `spki` and the key within it.
fn key_kind<'a>(spki: &'a SubjectPublicKeyInfo<'_>) -> Result<(Kind, &'a [u8]), CsrError> {
    let known = KINDS.into_iter().find(|(_, prefix, len)| {
        spki.raw.starts_with(prefix) && spki.raw.len() == prefix.len() + len
    });
    let unknown = || CsrError::Key { found: spki.algorithm.algorithm.to_id_string() };
    known.map(|(kind, _, _)| (kind, &*spki.subject_public_key.data)).ok_or_else(unknown)
}

/// How a signature by a key of `kind` that claims to be `oid` is verified.
fn verification(kind: Kind, oid: &Oid<'_>) -> Result<&'static dyn VerificationAlgorithm, CsrError> {
    let known: &[(Oid<'_>, &'static dyn VerificationAlgorithm)] = match kind {
        Kind::P256 => &[
            (OID_SIG_ECDSA_WITH_SHA256, &ECDSA_P256_SHA256_ASN1),
            (OID_SIG_ECDSA_WITH_SHA384, &ECDSA_P256_SHA384_ASN1),
        ],
        Kind::P384 => &[
            (OID_SIG_ECDSA_WITH_SHA256, &ECDSA_P384_SHA256_ASN1),
            (OID_SIG_ECDSA_WITH_SHA384, &ECDSA_P384_SHA384_ASN1),
        ],
        Kind::Ed25519 => &[(OID_SIG_ED25519, &ED25519)],
    };
    let found = known.iter().find(|(name, _)| name == oid);
    found
        .map(|(_, algorithm)| *algorithm)
        .ok_or_else(|| CsrError::Algorithm { found: oid.to_id_string() })
}
