//! The head of a request, from bytes that hold the whole of it.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version};

use crate::edge::Reject;
use crate::edge::framing::{self, Framing};
use crate::edge::limits::HEADERS_MAX;

/// A request's head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    /// Where the body ends.
    pub(super) framing: Framing,
    /// Whether the client keeps the connection for another request.
    pub(super) keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
}

/// Where the head that `bytes` begin with ends, looking from `from` on: the length with its blank
/// line, or nothing yet.
///
/// # Errors
/// A line that ends in LF alone: some take it for the end of a line, some do not.
pub(super) fn end(bytes: &[u8], from: usize) -> Result<Option<usize>, Reject> {
    let mut at = from;
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|b| *b == b'\n')) {
        let lf = at + found;
        if lf == 0 || bytes.get(lf - 1) != Some(&b'\r') {
            return Err(Reject::bad("a line ends in LF without CR"));
        }
        if lf >= 3 && bytes.get(lf - 3..lf - 1) == Some(b"\r\n") {
            return Ok(Some(lf + 1));
        }
        at = lf + 1;
    }
    Ok(None)
}

/// Reads `bytes`, the whole of a head.
///
/// # Errors
/// What is no request, or has two readings.
pub(super) fn parse(bytes: &[u8]) -> Result<Head, Reject> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Reject::bad("head is no whole request")),
        Err(why) => return Err(malformed(why)),
    }
    let version = match request.version {
        Some(1) => Version::HTTP_11,
        _ => Version::HTTP_10,
    };
    let method = request.method.and_then(|text| Method::from_bytes(text.as_bytes()).ok());
    let method = method.ok_or(Reject::bad("method is no token"))?;
    let uri = target(request.path.unwrap_or_default())?;
    let headers = fields_of(request.headers)?;
    let framing = framing::of_request(version, &headers)?;
    let keep_alive = keeps(version, &headers);
    let expects_continue = expects(version, &headers)?;
    Ok(Head { method, uri, version, headers, framing, keep_alive, expects_continue })
}

fn malformed(why: httparse::Error) -> Reject {
    match why {
        httparse::Error::TooManyHeaders => Reject {
            status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            why: "more than 100 header fields",
        },
        httparse::Error::Version => Reject {
            status: StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            why: "version is not HTTP/1.0 or HTTP/1.1",
        },
        httparse::Error::HeaderName => Reject::bad("a header's name is no token"),
        httparse::Error::HeaderValue => Reject::bad("a header's value has a control character"),
        httparse::Error::NewLine => Reject::bad("a line does not end in CRLF"),
        httparse::Error::Status | httparse::Error::Token => {
            Reject::bad("request line is not METHOD TARGET VERSION")
        }
    }
}

/// The request's target. A fragment is cut off by some and kept by others (CVE-2021-39156).
fn target(text: &str) -> Result<Uri, Reject> {
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Reject::bad("target has a character that must be escaped"));
    }
    if text.contains('#') {
        return Err(Reject::bad("target has a fragment"));
    }
    text.parse().map_err(|_| Reject::bad("target is no path, URI or authority"))
}

pub(super) fn fields_of(fields: &[httparse::Header<'_>]) -> Result<HeaderMap, Reject> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| Reject::bad("a header's name is no token"))?;
        let value = HeaderValue::from_bytes(field.value)
            .map_err(|_| Reject::bad("a header's value has a control character"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Whether the connection goes on after this message (RFC 9112 §9.3).
pub(super) fn keeps(version: Version, headers: &HeaderMap) -> bool {
    let says = |option: &str| {
        let values = headers.get_all(header::CONNECTION).iter();
        let mut options = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
        options.any(|text| text.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
    };
    match version {
        Version::HTTP_11 => !says("close"),
        _ => says("keep-alive") && !says("close"),
    }
}

fn expects(version: Version, headers: &HeaderMap) -> Result<bool, Reject> {
    let mut values = headers.get_all(header::EXPECT).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        // of no meaning in HTTP/1.0 (RFC 9110 §10.1.1)
        (Some(_), _) if version == Version::HTTP_10 => Ok(false),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(true),
        (Some(_), _) => Err(Reject {
            status: StatusCode::EXPECTATION_FAILED,
            why: "Expect is not \"100-continue\"",
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    fn read(text: &str) -> Result<Head, u16> {
        let bytes = text.as_bytes();
        let whole = end(bytes, 0).map_err(|why| why.status.as_u16())?;
        assert_eq!(whole, Some(bytes.len()), "{text:?}");
        parse(bytes).map_err(|why| why.status.as_u16())
    }

    #[test]
    fn a_plain_head_is_read_whole() {
        let head =
            read("POST /a?b=1 HTTP/1.1\r\nHost: orders\r\nContent-Length: 3\r\n\r\n").unwrap();
        assert_eq!((head.method, head.uri.to_string()), (Method::POST, "/a?b=1".to_owned()));
        assert_eq!((head.framing, head.keep_alive), (Framing::Length(3), true));
        assert_eq!(head.headers["host"], "orders");
    }

    #[test]
    fn the_end_is_found_however_it_arrives() {
        let bytes = b"GET / HTTP/1.1\r\nA: b\r\n\r\nGET";
        let mut from = 0;
        for len in 0..bytes.len() {
            let found = end(&bytes[..len], from).unwrap();
            assert_eq!(found, (len >= 24).then_some(24), "{len}");
            from = if found.is_none() { len.saturating_sub(3) } else { from };
        }
    }

    #[test]
    fn b_smug_heads_with_two_readings_are_refused() {
        let cases = [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHo\u{0}st: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\u{0}b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHöst: a\r\n\r\n", 400),
            ("GET  / HTTP/1.1\r\n\r\n", 400),
            ("GET /  HTTP/1.1\r\n\r\n", 505),
            ("GET /\tHTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1 \r\n\r\n", 400),
            ("GET /a b HTTP/1.1\r\n\r\n", 505),
            ("GET /a\u{7f} HTTP/1.1\r\n\r\n", 400),
            ("GET /ä HTTP/1.1\r\n\r\n", 400),
            ("GET /a#b HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.2\r\n\r\n", 505),
            ("GET / HTTP/2.0\r\n\r\n", 505),
            ("GET / http/1.1\r\n\r\n", 505),
            ("GET /\r\n\r\n", 400),
            ("G@T / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nExpect: 200-ok\r\n\r\n", 417),
            ("GET / HTTP/1.1\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\n", 417),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n", 501),
        ];
        for (text, want) in cases {
            assert_eq!(read(text).map(|head| format!("{head:?}")), Err(want), "{text:?}");
        }
        let many = "a: b\r\n".repeat(HEADERS_MAX + 1);
        assert_eq!(read(&format!("GET / HTTP/1.1\r\n{many}\r\n")).unwrap_err(), 431);
    }

    #[test]
    fn connections_are_kept_as_the_version_says() {
        let cases = [
            ("1.1", "", true),
            ("1.1", "Connection: Close\r\n", false),
            ("1.1", "Connection: x, close\r\n", false),
            ("1.1", "Connection: x\r\nConnection: close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ];
        for (version, fields, want) in cases {
            let head = read(&format!("GET / HTTP/{version}\r\n{fields}\r\n")).unwrap();
            assert_eq!(head.keep_alive, want, "{version} {fields:?}");
        }
    }
}
