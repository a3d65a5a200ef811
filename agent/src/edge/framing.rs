//! How the body of an HTTP/1.1 message ends (RFC 9112 §6): by one reading, or not at all.

use http::header::{self, HeaderMap};
use http::{StatusCode, Version};

use super::Reject;

/// Where a request's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// Where its chunks say.
    Chunked,
}

/// The framing of a request.
///
/// # Errors
/// Every way of saying it but one: two lengths, a length beside a coding, a coding other than
/// exactly `chunked`, any coding of HTTP/1.0.
pub fn of_request(version: Version, headers: &HeaderMap) -> Result<Framing, Reject> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (lengths.next(), lengths.next(), codings.next(), codings.next()) {
        (None, _, None, _) => Ok(Framing::None),
        (Some(length), None, None, _) => match length_of(length.as_bytes()) {
            Some(0) => Ok(Framing::None),
            Some(length) => Ok(Framing::Length(length)),
            None => Err(Reject::bad("Content-Length is no number")),
        },
        (Some(_), Some(_), _, _) => Err(Reject::bad("Content-Length is given more than once")),
        (Some(_), None, Some(_), _) => {
            Err(Reject::bad("both Content-Length and Transfer-Encoding are given"))
        }
        (None, _, Some(_), Some(_)) => {
            Err(Reject::bad("Transfer-Encoding is given more than once"))
        }
        (None, _, Some(_), None) if version != Version::HTTP_11 => {
            Err(Reject::bad("Transfer-Encoding does not exist in HTTP/1.0"))
        }
        (None, _, Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Ok(Framing::Chunked)
        }
        (None, _, Some(_), None) => Err(Reject {
            status: StatusCode::NOT_IMPLEMENTED,
            why: "Transfer-Encoding is not exactly \"chunked\"",
        }),
    }
}

/// Digits only: no sign, no space, no list (RFC 9110 §8.6).
pub(super) fn length_of(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use http::{HeaderName, HeaderValue};

    use super::*;

    const LENGTH: &str = "content-length";
    const CODING: &str = "transfer-encoding";

    #[test]
    fn b_smug_framing_has_one_reading() {
        type Case<'a> = (&'a [(&'a str, &'a str)], Result<Framing, u16>);
        let cases: &[Case<'_>] = &[
            (&[], Ok(Framing::None)),
            (&[(LENGTH, "0")], Ok(Framing::None)),
            (&[(LENGTH, "007")], Ok(Framing::Length(7))),
            (&[(LENGTH, "18446744073709551615")], Ok(Framing::Length(u64::MAX))),
            (&[(CODING, "chunked")], Ok(Framing::Chunked)),
            (&[(CODING, "Chunked")], Ok(Framing::Chunked)),
            (&[(LENGTH, "18446744073709551616")], Err(400)),
            (&[(LENGTH, "")], Err(400)),
            (&[(LENGTH, "+1")], Err(400)),
            (&[(LENGTH, "-1")], Err(400)),
            (&[(LENGTH, "0x1")], Err(400)),
            (&[(LENGTH, "1 1")], Err(400)),
            (&[(LENGTH, "1, 1")], Err(400)),
            (&[(LENGTH, "1,")], Err(400)),
            (&[(LENGTH, "1"), (LENGTH, "1")], Err(400)),
            (&[(LENGTH, "1"), (LENGTH, "2")], Err(400)),
            (&[(LENGTH, "1"), (CODING, "chunked")], Err(400)),
            (&[(CODING, "chunked"), (LENGTH, "1")], Err(400)),
            (&[(LENGTH, "0"), (CODING, "identity")], Err(400)),
            (&[(CODING, "chunked"), (CODING, "chunked")], Err(400)),
            (&[(CODING, "gzip, chunked")], Err(501)),
            (&[(CODING, "chunked, identity")], Err(501)),
            (&[(CODING, "identity")], Err(501)),
            (&[(CODING, "xchunked")], Err(501)),
            (&[(CODING, "\tchunked")], Err(501)),
            (&[(CODING, "chunked;q=1")], Err(501)),
            (&[(CODING, "")], Err(501)),
        ];
        for (fields, want) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in *fields {
                let name: HeaderName = name.parse().unwrap();
                headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let got = of_request(Version::HTTP_11, &headers).map_err(|why| why.status.as_u16());
            assert_eq!(got, *want, "{fields:?}");
        }
        let chunked = [(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))];
        assert!(of_request(Version::HTTP_10, &chunked.into_iter().collect()).is_err());
    }
}
