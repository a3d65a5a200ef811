//! [`Revision`]: which state of the mesh a thing belongs to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A state of the mesh: epoch first, then the index of the last change, compared in that order.
///
/// The index is the Raft log index; the epoch rises only by restore or recovery, above any that
/// was seen before. Receivers refuse revisions older than the one they hold.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Revision {
    /// Raised by restore and recovery only.
    pub epoch: u64,
    /// The Raft log index of the change.
    pub index: u64,
}

impl Revision {
    /// Before any state.
    pub const ZERO: Self = Self { epoch: 0, index: 0 };

    /// The revision `index` of `epoch`.
    pub fn new(epoch: u64, index: u64) -> Self {
        Self { epoch, index }
    }
}

/// A text that is not `<epoch>.<index>`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision is {0:?}, expected EPOCH.INDEX such as 1.42")]
pub struct InvalidRevision(String);

impl FromStr for Revision {
    type Err = InvalidRevision;

    fn from_str(text: &str) -> Result<Self, InvalidRevision> {
        let digits = |part: &str| {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| part.parse().ok()).flatten()
        };
        let parts = text.split_once('.').and_then(|(e, i)| Some((digits(e)?, digits(i)?)));
        let (epoch, index) = parts.ok_or_else(|| InvalidRevision(text.to_owned()))?;
        Ok(Self { epoch, index })
    }
}

impl TryFrom<String> for Revision {
    type Error = InvalidRevision;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Revision> for String {
    fn from(revision: Revision) -> Self {
        revision.to_string()
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_order_by_epoch_then_index() {
        assert!(Revision::new(2, 1) > Revision::new(1, 900));
        assert!(Revision::new(1, 10) > Revision::new(1, 9));
    }

    #[test]
    fn revisions_parse_what_they_print() {
        let revision = Revision::new(3, 1_000);
        assert_eq!(revision.to_string().parse(), Ok(revision));
        for bad in ["", "1", "1.", ".1", "1.-2", "+1.2", "1.2.3", "99999999999999999999.1"] {
            assert!(bad.parse::<Revision>().is_err(), "accepted {bad:?}");
        }
    }
}
