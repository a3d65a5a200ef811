//! Answers as bytes: how their bodies are framed, their heads, their chunks.

use bytes::{BufMut, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Version};
use http_body::Body;

use crate::edge::framing::length_of;

/// How an answer's body ends on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// There is none, whatever the head says.
    None,
    /// After so many bytes.
    Length(u64),
    /// With a last chunk.
    Chunked,
    /// With the connection: the client knows no chunks.
    Close,
}

/// The request that is answered.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) version: Version,
    /// Whether the client takes trailers.
    pub(super) trailers: bool,
}

impl Asked {
    pub(super) fn new(method: &Method, version: Version, headers: &HeaderMap) -> Self {
        let mut accepted = headers
            .get_all(header::TE)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii));
        let trailers = accepted.any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
        Self { method: method.clone(), version, trailers }
    }

    /// Of what is no request.
    pub(super) fn nothing() -> Self {
        Self { method: Method::GET, version: Version::HTTP_11, trailers: false }
    }
}

/// Decides how the body ends and makes the head say so; nothing that an application said about its
/// own connection is left in it.
pub(super) fn frame(
    asked: &Asked, status: StatusCode, headers: &mut HeaderMap, body: &impl Body,
) -> Ending {
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    let mut declared = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = match (declared.next(), declared.next()) {
        (Some(only), None) => length_of(only.as_bytes()),
        _ => None,
    };
    if length.is_none() {
        headers.remove(header::CONTENT_LENGTH);
    }
    if status == StatusCode::NO_CONTENT || status.is_informational() {
        headers.remove(header::CONTENT_LENGTH);
        return Ending::None;
    }
    if asked.method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        return Ending::None;
    }
    let known = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
    if let Some(length) = length.or(known) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        return Ending::Length(length);
    }
    if asked.version == Version::HTTP_11 {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        return Ending::Chunked;
    }
    Ending::Close
}

/// Puts a head into `out`; `keep` says whether the connection goes on. After 101 it does, as another.
pub(super) fn head(
    out: &mut BytesMut, asked: &Asked, status: StatusCode, headers: &HeaderMap, keep: bool,
) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
    fields(out, headers);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        out.put_slice(b"connection: upgrade\r\n\r\n");
        return;
    }
    match (keep, asked.version) {
        (false, _) => out.put_slice(b"connection: close\r\n"),
        (true, Version::HTTP_10) => out.put_slice(b"connection: keep-alive\r\n"),
        (true, _) => {}
    }
    out.put_slice(b"\r\n");
}

/// Puts a chunk's size line into `out`; its data and a CRLF follow.
pub(super) fn chunk_size(out: &mut BytesMut, len: usize) {
    let mut digits = [0_u8; 16];
    let (mut at, mut left) = (digits.len(), len);
    while let Some(digit) = at.checked_sub(1).and_then(|before| {
        at = before;
        digits.get_mut(before)
    }) {
        *digit = b"0123456789abcdef".get(left & 15).copied().unwrap_or(b'0');
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    out.put_slice(digits.get(at..).unwrap_or_default());
    out.put_slice(b"\r\n");
}

/// Puts the last chunk into `out`, with the trailers behind it.
pub(super) fn last_chunk(out: &mut BytesMut, trailers: Option<&HeaderMap>) {
    out.put_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        fields(out, trailers);
    }
    out.put_slice(b"\r\n");
}

pub(super) fn fields(out: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::combinators::BoxBody;
    use http_body_util::{BodyExt, Empty, Full, StreamBody};

    use super::*;

    type TestBody = BoxBody<Bytes, Infallible>;

    fn open() -> TestBody {
        BodyExt::boxed(StreamBody::new(futures_util::stream::pending()))
    }

    #[test]
    fn every_answer_ends_in_one_way() {
        let get = Asked::nothing();
        let head = Asked { method: Method::HEAD, ..Asked::nothing() };
        let old = Asked { version: Version::HTTP_10, ..Asked::nothing() };
        let full = || Full::from("abc").boxed();
        let empty = || Empty::new().boxed();
        type Case<'a> = (&'a Asked, u16, &'a [&'a str], TestBody, Ending, Option<&'a str>);
        let cases: Vec<Case<'_>> = vec![
            (&get, 200, &["3"], full(), Ending::Length(3), Some("3")),
            (&get, 200, &[], full(), Ending::Length(3), Some("3")),
            (&get, 200, &["9"], open(), Ending::Length(9), Some("9")),
            (&get, 200, &[], open(), Ending::Chunked, None),
            (&get, 200, &["1", "2"], open(), Ending::Chunked, None),
            (&get, 200, &["x"], open(), Ending::Chunked, None),
            (&get, 200, &[], empty(), Ending::Length(0), Some("0")),
            (&old, 200, &[], open(), Ending::Close, None),
            (&old, 200, &["9"], open(), Ending::Length(9), Some("9")),
            (&head, 200, &["9"], empty(), Ending::None, Some("9")),
            (&head, 200, &[], empty(), Ending::None, None),
            (&get, 304, &["9"], empty(), Ending::None, Some("9")),
            (&get, 204, &["9"], full(), Ending::None, None),
        ];
        for (asked, status, lengths, body, want, shown) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("gzip"));
            for length in lengths {
                headers.append(header::CONTENT_LENGTH, length.parse().unwrap());
            }
            let status = StatusCode::from_u16(status).unwrap();
            let got = frame(asked, status, &mut headers, &body);
            let length = headers.get(header::CONTENT_LENGTH).map(|v| v.to_str().unwrap());
            assert_eq!((got, length), (want, shown), "{status} {lengths:?}");
            let chunked = headers.get(header::TRANSFER_ENCODING).is_some();
            assert_eq!(chunked, got == Ending::Chunked, "{status} {lengths:?}");
        }
    }

    #[test]
    fn sizes_are_hexadecimal() {
        for (len, want) in [(1, "1"), (15, "f"), (16, "10"), (4096, "1000"), (0xabcdef, "abcdef")] {
            let mut out = BytesMut::new();
            chunk_size(&mut out, len);
            assert_eq!(out, format!("{want}\r\n"));
        }
    }
}
