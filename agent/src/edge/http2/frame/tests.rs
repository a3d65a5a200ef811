#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// A frame of these parts, as it came.
fn raw(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(payload.len(), kind, flags, stream).to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

fn read(bytes: &[u8]) -> Result<Frame<'_>, Fault> {
    let header = Header::read(bytes).unwrap();
    header.check()?;
    assert_eq!(header.len, bytes.len() - HEADER_LEN);
    header.parse(&bytes[HEADER_LEN..])
}

/// Which code, and whether it is a stream's.
fn verdict(bytes: &[u8]) -> Result<String, (Code, bool)> {
    match read(bytes) {
        Ok(frame) => Ok(format!("{frame:?}")),
        Err(Fault::Connection { code, .. }) => Err((code, false)),
        Err(Fault::Stream { code, .. }) => Err((code, true)),
    }
}

#[test]
fn every_frame_is_read() {
    let prioritized = [0, 0, 0, 7, 9, b'x'];
    let cases: &[(Vec<u8>, Frame<'_>)] = &[
        (raw(0, 1, 1, b"hi"), Frame::Data { stream: 1, data: b"hi", flow: 2, end: true }),
        (raw(0, 8, 1, b"\x01hi!"), Frame::Data { stream: 1, data: b"hi", flow: 4, end: false }),
        (raw(0, 8, 1, b"\x00"), Frame::Data { stream: 1, data: b"", flow: 1, end: false }),
        (
            raw(1, 0x24, 3, &prioritized),
            Frame::Headers {
                stream: 3,
                block: b"x",
                end_stream: false,
                end_headers: true,
                depends_on: Some(7),
            },
        ),
        (
            raw(1, 0x9, 3, b"\x02x__"),
            Frame::Headers {
                stream: 3,
                block: b"x",
                end_stream: true,
                end_headers: false,
                depends_on: None,
            },
        ),
        (raw(2, 0, 5, &[128, 0, 0, 3, 0]), Frame::Priority { stream: 5, depends_on: 3 }),
        (raw(3, 0, 5, &[0, 0, 0, 8]), Frame::Reset { stream: 5, code: Code::Cancel }),
        (raw(3, 0, 5, &[9, 0, 0, 8]), Frame::Reset { stream: 5, code: Code::Other(0x0900_0008) }),
        (raw(4, 0, 0, &[0, 4, 0, 0, 1, 0, 0, 99, 0, 0, 0, 1, 0, 4, 0, 0, 2, 0]), {
            Frame::Settings(Settings { window: Some(512), ..Settings::default() })
        }),
        (raw(4, 1, 0, &[]), Frame::SettingsAck),
        (raw(6, 1, 0, b"12345678"), Frame::Ping { ack: true, payload: *b"12345678" }),
        (raw(7, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 11, b'!']), {
            Frame::GoAway { last: 3, code: Code::Calm }
        }),
        (raw(8, 0, 0, &[128, 0, 0, 1]), Frame::WindowUpdate { stream: 0, increment: 1 }),
        (raw(9, 4, 1, b"x"), Frame::Continuation { stream: 1, block: b"x", end_headers: true }),
        (raw(77, 255, 1, b"x"), Frame::Unknown),
    ];
    for (bytes, want) in cases {
        assert_eq!(read(bytes).unwrap(), *want);
    }
    // the first bit of a stream's number means nothing
    assert_eq!(read(&raw(9, 0, 1 << 31 | 1, b"")).unwrap(), {
        Frame::Continuation { stream: 1, block: b"", end_headers: false }
    });
}

#[test]
fn b_h2_frames_that_cannot_be_are_refused() {
    use Code::{FlowControl, FrameSize, Protocol};
    let setting = |kind: u8, value: u32| {
        let [a, b, c, d] = value.to_be_bytes();
        raw(4, 0, 0, &[0, kind, a, b, c, d])
    };
    let cases = [
        // on stream 0, or on one though of the connection
        (raw(0, 0, 0, b"x"), Protocol, false),
        (raw(1, 4, 0, b"x"), Protocol, false),
        (raw(2, 0, 0, &[0; 5]), Protocol, false),
        (raw(3, 0, 0, &[0; 4]), Protocol, false),
        (raw(9, 0, 0, b"x"), Protocol, false),
        (raw(4, 0, 1, &[]), Protocol, false),
        (raw(6, 0, 1, &[0; 8]), Protocol, false),
        (raw(7, 0, 1, &[0; 8]), Protocol, false),
        // paddings longer than their frames
        (raw(0, 8, 1, b"\x03hi"), Protocol, false),
        (raw(0, 8, 1, b""), FrameSize, false),
        (raw(1, 8, 1, b"\x02x"), Protocol, false),
        // sizes
        (raw(1, 0x20, 1, &[0; 4]), FrameSize, false),
        (raw(2, 0, 1, &[0; 4]), FrameSize, true),
        (raw(2, 0, 1, &[0; 6]), FrameSize, true),
        (raw(3, 0, 1, &[0; 3]), FrameSize, false),
        (raw(3, 0, 1, &[0; 5]), FrameSize, false),
        (raw(4, 0, 0, &[0; 5]), FrameSize, false),
        (raw(4, 1, 0, &[0; 6]), FrameSize, false),
        (raw(6, 0, 0, &[0; 7]), FrameSize, false),
        (raw(6, 0, 0, &[0; 9]), FrameSize, false),
        (raw(7, 0, 0, &[0; 7]), FrameSize, false),
        (raw(8, 0, 1, &[0; 3]), FrameSize, false),
        (raw(8, 0, 1, &[0; 5]), FrameSize, false),
        (raw(5, 4, 1, &[0; 4]), Protocol, false),
        // settings
        (setting(2, 2), Protocol, false),
        (setting(4, 1 << 31), FlowControl, false),
        (setting(5, (1 << 14) - 1), Protocol, false),
        (setting(5, 1 << 24), Protocol, false),
        (setting(8, 2), Protocol, false),
    ];
    for (bytes, code, of_stream) in cases {
        assert_eq!(verdict(&bytes), Err((code, of_stream)), "{bytes:?}");
    }
    let large = Header::read(&[0, 0x40, 1, 0, 0, 0, 0, 0, 1]).unwrap();
    assert_eq!(large.check(), Err(Fault::connection(FrameSize, "frame is larger than 16 KiB")));
    assert!(Header::read(&[0, 0x40, 0, 0, 0, 0, 0, 0, 1]).unwrap().check().is_ok());
    for fits in [setting(4, u32::MAX >> 1), setting(5, 1 << 14), setting(5, (1 << 24) - 1)] {
        assert!(read(&fits).is_ok(), "{fits:?}");
    }
}

#[test]
fn blocks_are_cut_into_frames() {
    for (len, frames) in [(0, 1), (FRAME_MAX, 1), (FRAME_MAX + 1, 2), (3 * FRAME_MAX, 3)] {
        let block = vec![7; len];
        let mut out = BytesMut::from(&b"before"[..]);
        let at = begin_headers(&mut out);
        out.extend_from_slice(&block);
        end_headers(&mut out, at, 5, true);
        let mut bytes = Bytes::from(out).split_off(6);
        let (mut seen, mut joined) = (0, Vec::new());
        while !bytes.is_empty() {
            let header = Header::read(&bytes).unwrap();
            header.check().unwrap();
            let frame = bytes.split_to(HEADER_LEN + header.len);
            let last = bytes.is_empty();
            match header.parse(&frame[HEADER_LEN..]).unwrap() {
                Frame::Headers { stream: 5, block, end_stream: true, end_headers, .. } => {
                    assert_eq!((seen, end_headers), (0, last));
                    joined.extend_from_slice(block);
                }
                Frame::Continuation { stream: 5, block, end_headers } => {
                    assert!(seen > 0 && end_headers == last);
                    joined.extend_from_slice(block);
                }
                other => panic!("{other:?}"),
            }
            seen += 1;
        }
        assert_eq!((seen, joined), (frames, block), "{len}");
    }
}

proptest! {
    #[test]
    fn b_h2_any_bytes_are_a_frame_or_a_fault(
        kind in 0_u8..12, flags: u8, stream in prop_oneof![Just(0), any::<u32>()], payload: Vec<u8>,
    ) {
        let bytes = raw(kind, flags, stream, &payload);
        let _ = read(&bytes);
    }
}
