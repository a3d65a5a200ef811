//! SETTINGS: the first frame of each side, what that side is ready to receive.

use bytes::{BufMut, BytesMut};

use super::error::LinkError;
use super::limits::{ENTRIES_MAX, WINDOW_MAX};

/// What one side takes. Until the peer's arrive, [`Settings::FLOOR`] holds, which no side may
/// go below, so that nobody waits a round trip before the first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Minor version, for information only; the major one is the ALPN.
    pub minor: u32,
    /// Initial window of each stream, bytes.
    pub stream_window: u32,
    /// Initial window of the connection, bytes.
    pub connection_window: u32,
    /// Payload bytes of a DATA frame.
    pub data_max: u32,
    /// Payload bytes of an OPEN, HEAD or TRAILERS frame.
    pub head_max: u32,
    /// Header fields in a head or in trailers.
    pub headers_max: u32,
    /// Streams open at once.
    pub streams_max: u32,
}

impl Settings {
    /// The minor version spoken here.
    pub const MINOR: u32 = 0;

    /// What every peer takes, announced or not.
    pub const FLOOR: Self = Self {
        minor: 0,
        stream_window: 32 << 10,
        connection_window: 256 << 10,
        data_max: (16 << 10) - 8,
        head_max: 16 << 10,
        headers_max: 100,
        streams_max: 64,
    };

    /// The most a side may announce.
    pub const CEILING: Self = Self {
        minor: u32::MAX,
        stream_window: WINDOW_MAX,
        connection_window: WINDOW_MAX,
        data_max: 65_535,
        head_max: 65_535,
        headers_max: 1_000,
        streams_max: 1 << 20,
    };

    /// Brings every value into the format's range.
    pub(super) fn clamped(self) -> Self {
        let mut pairs = self.pairs();
        let bounds = Self::FLOOR.pairs().into_iter().zip(Self::CEILING.pairs());
        for (value, (floor, ceiling)) in pairs.iter_mut().zip(bounds) {
            *value = (*value).clamp(floor, ceiling);
        }
        Self::from_pairs(pairs)
    }

    /// Appends the payload: (id u16, value u32) for each setting, ids ascending from 1.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        for (id, value) in (1u16..).zip(self.pairs()) {
            out.put_u16(id);
            out.put_u32(value);
        }
    }

    /// Bytes that [`Self::encode`] appends.
    pub(super) const LEN: usize = 7 * ENTRY;

    /// Reads a payload. Missing ids keep the floor, unknown ones are skipped.
    pub(super) fn decode(payload: &[u8]) -> Result<Self, LinkError> {
        let (entries, rest) = payload.as_chunks::<ENTRY>();
        if !rest.is_empty() || entries.len() > ENTRIES_MAX {
            return Err(LinkError::Malformed("settings are not 0 to 32 entries of 6 bytes"));
        }
        let (floor, ceiling) = (Self::FLOOR.pairs(), Self::CEILING.pairs());
        let mut pairs = floor;
        let mut last = 0;
        for &[a, b, value @ ..] in entries {
            let (id, value) = (u16::from_be_bytes([a, b]), u32::from_be_bytes(value));
            if id <= last {
                return Err(LinkError::Malformed("setting ids do not ascend from 1"));
            }
            last = id;
            let at = usize::from(id) - 1;
            let Some(slot) = pairs.get_mut(at) else { continue };
            if !(floor[at]..=ceiling[at]).contains(&value) {
                let (min, max) = (floor[at], ceiling[at]);
                return Err(LinkError::Setting { id, found: value, min, max });
            }
            *slot = value;
        }
        Ok(Self::from_pairs(pairs))
    }

    fn pairs(&self) -> [u32; 7] {
        [
            self.minor,
            self.stream_window,
            self.connection_window,
            self.data_max,
            self.head_max,
            self.headers_max,
            self.streams_max,
        ]
    }

    fn from_pairs(pairs: [u32; 7]) -> Self {
        let [minor, stream_window, connection_window, data_max, head_max, headers_max, streams_max] =
            pairs;
        Self {
            minor,
            stream_window,
            connection_window,
            data_max,
            head_max,
            headers_max,
            streams_max,
        }
    }
}

/// Bytes of an entry.
pub(super) const ENTRY: usize = 6;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
    use super::*;

    fn entry(id: u16, value: u32) -> Vec<u8> {
        [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
    }

    #[test]
    fn settings_parse_only_within_their_range() {
        let floor = Settings::FLOOR;
        let malformed = |text| Err(LinkError::Malformed(text));
        let order = "setting ids do not ascend from 1";
        let shape = "settings are not 0 to 32 entries of 6 bytes";
        let many = |n: u16| (100..100 + n).flat_map(|id| entry(id, 0)).collect::<Vec<_>>();
        let (min, max) = (32 << 10, WINDOW_MAX);
        let low = Err(LinkError::Setting { id: 2, found: min - 1, min, max });
        let high = Err(LinkError::Setting { id: 2, found: max + 1, min, max });
        let cases: &[(&str, Vec<u8>, Result<Settings, LinkError>)] = &[
            ("none", vec![], Ok(floor)),
            ("unknown id", entry(8, 9), Ok(floor)),
            ("at floor", entry(2, min), Ok(floor)),
            ("below floor", entry(2, min - 1), low),
            ("at ceiling", entry(2, max), Ok(Settings { stream_window: max, ..floor })),
            ("over ceiling", entry(2, max + 1), high),
            ("id 0", entry(0, 1), malformed(order)),
            ("twice", [entry(1, 1), entry(1, 1)].concat(), malformed(order)),
            ("descending", [entry(9, 1), entry(8, 1)].concat(), malformed(order)),
            ("cut", entry(1, 1)[..5].to_vec(), malformed(shape)),
            ("32 entries", many(32), Ok(floor)),
            ("33 entries", many(33), malformed(shape)),
        ];
        for (name, payload, want) in cases {
            assert_eq!(Settings::decode(payload), *want, "case: {name}");
        }
    }

    #[test]
    fn settings_round_trip() {
        for settings in [Settings::FLOOR, Settings::CEILING] {
            let mut out = BytesMut::new();
            settings.encode(&mut out);
            assert_eq!(out.len(), Settings::LEN);
            assert_eq!(Settings::decode(&out), Ok(settings));
        }
    }
}
