//! The CA's own keys: made, sealed, opened, and used to sign.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair,
};
use mesh_core::trust::SealedKey;
use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};

use super::Kek;
use super::authority::CaError;
use super::seal::{self, KeyName};

/// A signing key of the CA. The library keeps the private half and wipes it when dropped.
pub(super) struct CaKey {
    pair: EcdsaKeyPair,
    curve: Curve,
}

/// The curve of a CA key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Curve {
    /// Of intermediates: signs often.
    P256,
    /// Of roots: signs seldom, lives long.
    P384,
}

impl Curve {
    fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        }
    }

    fn x509(self) -> &'static SignatureAlgorithm {
        match self {
            Self::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        }
    }
}

impl CaKey {
    /// A new key.
    pub(super) fn generate(curve: Curve) -> Result<Self, CaError> {
        let pair = EcdsaKeyPair::generate(curve.signing()).map_err(|_| CaError::Crypto)?;
        Ok(Self { pair, curve })
    }

    /// The key, encrypted under `kek` as the one called `name`.
    pub(super) fn seal(&self, kek: &Kek, name: &KeyName) -> Result<SealedKey, CaError> {
        // The document wipes itself when dropped.
        let pkcs8 = self.pair.to_pkcs8v1().map_err(|_| CaError::Crypto)?;
        Ok(seal::seal(kek, name, pkcs8.as_ref())?)
    }

    /// Opens what [`CaKey::seal`] made.
    pub(super) fn open(kek: &Kek, name: &KeyName, sealed: &SealedKey) -> Result<Self, CaError> {
        let pkcs8 = seal::open(kek, name, sealed)?;
        [Curve::P256, Curve::P384]
            .into_iter()
            .find_map(|curve| {
                let pair = EcdsaKeyPair::from_pkcs8(curve.signing(), &pkcs8).ok()?;
                Some(Self { pair, curve })
            })
            .ok_or_else(|| CaError::KeyForm(name.clone()))
    }
}

impl PublicKeyData for CaKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.curve.x509()
    }
}

impl SigningKey for CaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        Ok(signature.map_err(|_| rcgen::Error::RemoteKeyError)?.as_ref().to_vec())
    }
}
