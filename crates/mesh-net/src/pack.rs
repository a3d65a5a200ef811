//! MessagePack, strictly: everything binary in the mesh is written and read here.

pub use crate::limits::pack::DEPTH_MAX;
use mesh_core::stream::{Decode, Encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes are not the value asked for, or a value cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A value that has no MessagePack form.
    #[error("cannot write as MessagePack")]
    Write(#[source] rmp_serde::encode::Error),
    /// Not what was expected.
    #[error("not the MessagePack expected")]
    Read(#[source] rmp_serde::decode::Error),
    /// More behind the value.
    #[error("{0} bytes behind the value, expected 0")]
    Trailing(usize),
}

/// Writes `value`; structs become maps with named fields.
///
/// # Errors
/// [`PackError::Write`], for types that MessagePack cannot hold only.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, PackError> {
    rmp_serde::to_vec_named(value).map_err(PackError::Write)
}

/// Reads one value that takes up all of `bytes`.
///
/// # Errors
/// [`PackError`] if it is another value, nested deeper than [`DEPTH_MAX`], or not alone. Unknown
/// fields are errors where the type denies them.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, PackError> {
    let mut rest = bytes;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    deserializer.set_max_depth(DEPTH_MAX);
    let value = T::deserialize(&mut deserializer).map_err(PackError::Read)?;
    if rest.is_empty() { Ok(value) } else { Err(PackError::Trailing(rest.len())) }
}

/// The bodies of the agents' stream as MessagePack.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessagePack;

impl Decode for MessagePack {
    fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, String> {
        from_slice(body).map_err(|error| crate::tls::describe(&error))
    }
}

impl Encode for MessagePack {
    fn encode<T: Serialize>(&self, body: &T) -> Result<Vec<u8>, String> {
        to_vec(body).map_err(|error| crate::tls::describe(&error))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::collections::BTreeMap;

    use mesh_core::revision::Revision;
    use mesh_core::stream::{Ack1, Heartbeat1};
    use mesh_core::trust::CertDer;

    use super::*;

    #[test]
    fn values_survive_the_way_and_bytes_stay_small() {
        let ack = Ack1 { revision: Revision::new(2, 7) };
        assert_eq!(from_slice::<Ack1>(&to_vec(&ack).unwrap()).unwrap(), ack);
        let cert = CertDer(vec![9; 1000]);
        let bytes = to_vec(&cert).unwrap();
        assert!(bytes.len() < 1010, "{} bytes", bytes.len());
        assert_eq!(from_slice::<CertDer>(&bytes).unwrap(), cert);
    }

    #[test]
    fn what_does_not_belong_is_refused() {
        let good = to_vec(&Ack1 { revision: Revision::ZERO }).unwrap();
        let mut longer = good.clone();
        longer.push(0);
        assert!(matches!(from_slice::<Ack1>(&longer), Err(PackError::Trailing(1))));
        for cut in 0..good.len() {
            assert!(from_slice::<Ack1>(&good[..cut]).is_err(), "accepted {cut} bytes");
        }
        let unknown = to_vec(&BTreeMap::from([("revision", "0.0"), ("more", "")])).unwrap();
        assert!(from_slice::<Ack1>(&unknown).is_err());
        assert!(from_slice::<Heartbeat1>(&good).is_err());
    }

    #[test]
    fn depth_and_claimed_lengths_are_bounded() {
        let deep = [0x91].repeat(10_000);
        assert!(from_slice::<serde_json::Value>(&deep).is_err());
        // An array of 4 billion, a binary of 4 billion: neither is there, neither is allocated.
        for huge in [[0xdd, 0xff, 0xff, 0xff, 0xff], [0xc6, 0xff, 0xff, 0xff, 0xff]] {
            assert!(from_slice::<Vec<u64>>(&huge).is_err());
            assert!(from_slice::<CertDer>(&huge).is_err());
        }
    }
}
