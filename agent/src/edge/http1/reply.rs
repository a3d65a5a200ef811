//! The head of an application's answer, from bytes that hold the whole of it.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Version};

use super::answer::Ending;
use super::head::fields_of;
use crate::edge::framing::length_of;
use crate::edge::limits::HEADERS_MAX;

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Where the body ends.
    pub(super) ending: Ending,
    /// Whether the application keeps the connection.
    pub(super) keep_alive: bool,
}

/// Reads `bytes`, the whole of the head of an answer to a request by `method`.
///
/// # Errors
/// What is no answer, or has two readings.
pub(super) fn parse(bytes: &[u8], method: &Method) -> Result<Reply, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err("head is no whole answer"),
        Err(httparse::Error::TooManyHeaders) => return Err("more than 100 header fields"),
        Err(_) => return Err("head is no answer of HTTP/1.0 or HTTP/1.1"),
    }
    let version = match response.version {
        Some(1) => Version::HTTP_11,
        _ => Version::HTTP_10,
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or("status is no number from 100 to 999")?;
    if status == StatusCode::SWITCHING_PROTOCOLS && version != Version::HTTP_11 {
        return Err("there is no 101 in HTTP/1.0");
    }
    let mut headers = fields_of(response.headers).map_err(|reject| reject.why)?;
    let ending = ending(method, status, version, &mut headers)?;
    let keep_alive = super::head::keeps(version, &headers)
        && ending != Ending::Close
        && status != StatusCode::SWITCHING_PROTOCOLS
        && !(status == StatusCode::NO_CONTENT && promises_body(&headers));
    Ok(Reply { status, headers, ending, keep_alive })
}

/// A 204 that does may well be followed by one, and that would be taken for the next answer.
fn promises_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

/// RFC 9112 §6.3, but for the readings that are two.
fn ending(
    method: &Method, status: StatusCode, version: Version, headers: &mut HeaderMap,
) -> Result<Ending, &'static str> {
    let length = length(headers)?;
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let coding = match (codings.next(), codings.next()) {
        (None, _) => None,
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Some(only),
        (Some(_), _) => return Err("Transfer-Encoding is not exactly \"chunked\""),
    };
    if coding.is_some() && (length.is_some() || version != Version::HTTP_11) {
        return Err("Transfer-Encoding beside Content-Length, or in HTTP/1.0");
    }
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(match (bodiless, coding, length) {
        (true, _, _) => Ending::None,
        (false, Some(_), _) => Ending::Chunked,
        (false, None, Some(length)) => Ending::Length(length),
        (false, None, None) => Ending::Close,
    })
}

/// The one length; the same said twice becomes one (RFC 9110 §8.6).
fn length(headers: &mut HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = values.next() else { return Ok(None) };
    let length = length_of(first.as_bytes()).ok_or("Content-Length is no number")?;
    if values.any(|other| length_of(other.as_bytes()) != Some(length)) {
        return Err("Content-Length is given more than once");
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn every_answer_is_read_in_one_way() {
        type Case<'a> = (&'a str, Option<(Ending, bool)>);
        let cases: &[Case<'_>] = &[
            ("1.1 200 OK\r\nContent-Length: 3\r\n", Some((Ending::Length(3), true))),
            ("1.1 200\r\nContent-Length: 3\r\n", Some((Ending::Length(3), true))),
            (
                "1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n",
                Some((Ending::Length(3), true)),
            ),
            ("1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", Some((Ending::Chunked, true))),
            ("1.1 200 OK\r\n", Some((Ending::Close, false))),
            ("1.0 200 OK\r\nContent-Length: 3\r\n", Some((Ending::Length(3), false))),
            (
                "1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n",
                Some((Ending::Length(3), true)),
            ),
            (
                "1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n",
                Some((Ending::Length(3), false)),
            ),
            ("1.1 204 No Content\r\n", Some((Ending::None, true))),
            ("1.1 204 No Content\r\nContent-Length: 0\r\n", Some((Ending::None, true))),
            ("1.1 204 No Content\r\nContent-Length: 3\r\n", Some((Ending::None, false))),
            ("1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n", Some((Ending::None, false))),
            ("1.1 101 Switching Protocols\r\n", Some((Ending::None, false))),
            ("1.1 304 Not Modified\r\nContent-Length: 3\r\n", Some((Ending::None, true))),
            ("1.1 100 Continue\r\n", Some((Ending::None, true))),
            ("1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n", None),
            ("1.1 200 OK\r\nContent-Length: 3, 3\r\n", None),
            ("1.1 200 OK\r\nContent-Length: -1\r\n", None),
            ("1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n", None),
            ("1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n", None),
            ("1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", None),
            ("1.0 200 OK\r\nTransfer-Encoding: chunked\r\n", None),
            ("1.1 20 OK\r\n", None),
            ("1.0 101 Switching Protocols\r\n", None),
            ("2.0 200 OK\r\n", None),
            ("1.1 200 OK\r\nA : b\r\n", None),
            ("1.1 200 OK\r\nA: b\r\n c\r\n", None),
        ];
        for (text, want) in cases {
            let got = parse(format!("HTTP/{text}\r\n").as_bytes(), &Method::GET);
            let got = got.map(|reply| (reply.ending, reply.keep_alive)).ok();
            assert_eq!(got, *want, "{text:?}");
        }
        let head = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", &Method::HEAD).unwrap();
        assert_eq!(head.ending, Ending::None);
    }
}
