//! Heads and trailers: fields with one reading, or none (RFC 9113 §8).

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version, request};

use super::hpack::{Decoder, put_field, put_indexed, put_named};
use crate::edge::Reject;
use crate::edge::framing::length_of;
use crate::edge::limits::{FIELDS_BYTES_MAX, HEADERS_MAX};

/// Why a block of fields is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    /// It is no message: its stream ends.
    Malformed(&'static str),
    /// It is one that is not served; it is told so.
    Refused(Reject),
}

/// The fields of one block, as they came.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// The values, one after another: they share one buffer.
    values: BytesMut,
    pseudo: [Option<(usize, usize)>; PSEUDO.len()],
    fields: Vec<(HeaderName, (usize, usize))>,
    /// Whether there was one that is no pseudo-field.
    regular: bool,
    /// How many there were, and how large they are by RFC 9113 §6.5.2.
    count: usize,
    size: usize,
    malformed: Option<&'static str>,
}

const PSEUDO: [&[u8]; 6] =
    [b":method", b":scheme", b":authority", b":path", b":status", b":protocol"];
const METHOD: usize = 0;
const SCHEME: usize = 1;
const AUTHORITY: usize = 2;
const PATH: usize = 3;
const STATUS: usize = 4;
const PROTOCOL: usize = 5;

/// Reads `block`. All of it is read whatever is in it, for the next one depends on it.
///
/// # Errors
/// What is no block of fields: the connection cannot go on.
pub(super) fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, &'static str> {
    let mut fields = Fields::default();
    fields.values.reserve(block.len() * 2);
    fields.fields.reserve(8);
    decoder.decode(block, |name, value| fields.take(name, value))?;
    Ok(fields)
}

impl Fields {
    fn take(&mut self, name: &[u8], value: &[u8]) {
        self.count += 1;
        self.size = self.size.saturating_add(name.len() + value.len() + 32);
        if self.count > HEADERS_MAX || self.size > FIELDS_BYTES_MAX || self.malformed.is_some() {
            return;
        }
        if let Err(why) = self.keep(name, value) {
            self.malformed = Some(why);
        }
    }

    fn keep(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let begin = self.values.len();
        let place = (begin, begin + value.len());
        if name.first() == Some(&b':') {
            let known = PSEUDO.iter().position(|known| *known == name);
            let slot = known.and_then(|at| self.pseudo.get_mut(at));
            let slot = slot.ok_or("a pseudo-field is unknown")?;
            if self.regular {
                return Err("a pseudo-field follows a field");
            }
            if slot.replace(place).is_some() {
                return Err("a pseudo-field is given more than once");
            }
        } else {
            self.regular = true;
            let name = HeaderName::from_lowercase(name)
                .map_err(|_| "a field's name is no token in lower case")?;
            if is_of_connection(&name) {
                return Err("a field is about the connection");
            }
            if name == header::TE && !value.eq_ignore_ascii_case(b"trailers") {
                return Err("te is not \"trailers\"");
            }
            self.fields.push((name, place));
        }
        if value.first().is_some_and(is_blank) || value.last().is_some_and(is_blank) {
            return Err("a field's value begins or ends with a blank");
        }
        self.values.extend_from_slice(value);
        Ok(())
    }

    /// Whether they are of an answer's head.
    #[cfg(test)]
    pub(super) fn is_head(&self) -> bool {
        self.pseudo.iter().any(Option::is_some)
    }

    /// What was found wrong on the way.
    fn check(&self) -> Result<(), HeadError> {
        if let Some(why) = self.malformed {
            return Err(HeadError::Malformed(why));
        }
        let why = if self.count > HEADERS_MAX {
            "more than 100 header fields"
        } else if self.size > FIELDS_BYTES_MAX {
            "head is larger than 16 KiB"
        } else {
            return Ok(());
        };
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Err(HeadError::Refused(Reject { status, why }))
    }
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// RFC 9113 §8.2.2.
fn is_of_connection(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// The pseudo-fields and the fields of a block that has been read to its end.
struct Taken {
    values: Bytes,
    pseudo: [Option<(usize, usize)>; PSEUDO.len()],
    headers: HeaderMap,
}

impl Taken {
    fn new(fields: Fields) -> Result<Self, HeadError> {
        fields.check()?;
        let values = fields.values.freeze();
        let mut headers = HeaderMap::with_capacity(fields.fields.len());
        let mut crumbs = BytesMut::new();
        for (name, (begin, end)) in fields.fields {
            let value = HeaderValue::from_maybe_shared(values.slice(begin..end));
            let value = value
                .map_err(|_| HeadError::Malformed("a field's value has a control character"))?;
            if name == header::COOKIE {
                // RFC 9113 §8.2.3: elsewhere they are one
                if let Some(first) = headers.get(header::COOKIE).filter(|_| crumbs.is_empty()) {
                    crumbs.extend_from_slice(HeaderValue::as_bytes(first));
                }
                if headers.contains_key(header::COOKIE) {
                    crumbs.extend_from_slice(b"; ");
                    crumbs.extend_from_slice(value.as_bytes());
                    continue;
                }
            }
            headers.append(name, value);
        }
        if !crumbs.is_empty()
            && let Ok(joined) = HeaderValue::from_maybe_shared(crumbs.freeze())
        {
            headers.insert(header::COOKIE, joined);
        }
        Ok(Self { values, pseudo: fields.pseudo, headers })
    }

    fn pseudo(&self, which: usize) -> Option<Bytes> {
        let (begin, end) = self.pseudo.get(which).copied().flatten()?;
        Some(self.values.slice(begin..end))
    }

    fn has(&self, which: usize) -> bool {
        self.pseudo.get(which).is_some_and(Option::is_some)
    }
}

const fn malformed(why: &'static str) -> HeadError {
    HeadError::Malformed(why)
}

/// A request's head, and the length of its body if it is declared.
///
/// # Errors
/// What is no request, has two readings, or is not served.
pub(super) fn request(fields: Fields) -> Result<(Request<()>, Option<u64>), HeadError> {
    let taken = Taken::new(fields)?;
    let method = taken.pseudo(METHOD).ok_or(malformed(":method is missing"))?;
    let method = Method::from_bytes(&method).map_err(|_| malformed(":method is no token"))?;
    if taken.has(STATUS) {
        return Err(malformed(":status is in a request"));
    }
    if method == Method::CONNECT {
        let why = "CONNECT is not served here";
        return Err(HeadError::Refused(Reject { status: StatusCode::NOT_IMPLEMENTED, why }));
    }
    if taken.has(PROTOCOL) {
        return Err(malformed(":protocol without CONNECT"));
    }
    let scheme = match taken.pseudo(SCHEME).ok_or(malformed(":scheme is missing"))?.as_ref() {
        b"http" => Scheme::HTTP,
        b"https" => Scheme::HTTPS,
        _ => return Err(malformed(":scheme is neither http nor https")),
    };
    let path = target(taken.pseudo(PATH).ok_or(malformed(":path is missing"))?, &method)?;
    let authority = taken.pseudo(AUTHORITY).map(authority).transpose()?;
    one_host(&taken.headers, authority.as_ref())?;
    let length = length(&taken.headers)?;
    let mut request = Request::new(());
    *request.uri_mut() = match authority {
        None => Uri::from(path),
        Some(authority) => {
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(scheme);
            parts.authority = Some(authority);
            parts.path_and_query = Some(path);
            Uri::from_parts(parts).map_err(|_| malformed("target is no URI"))?
        }
    };
    *request.method_mut() = method;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = taken.headers;
    Ok((request, length))
}

/// A path from its root, and the query (RFC 9113 §8.3.1). A fragment is cut off by some and kept
/// by others.
fn target(text: Bytes, method: &Method) -> Result<PathAndQuery, HeadError> {
    if !text.iter().all(|b| b.is_ascii_graphic() && *b != b'#') {
        return Err(malformed(":path has a fragment, or a character that must be escaped"));
    }
    let star = text.as_ref() == b"*" && *method == Method::OPTIONS;
    if text.first() != Some(&b'/') && !star {
        return Err(malformed(":path does not begin with a slash"));
    }
    PathAndQuery::from_maybe_shared(text).map_err(|_| malformed(":path is no path"))
}

fn authority(text: Bytes) -> Result<Authority, HeadError> {
    if text.contains(&b'@') {
        return Err(malformed(":authority has user information"));
    }
    Authority::from_maybe_shared(text).map_err(|_| malformed(":authority is no host"))
}

/// One host, however often it is said (RFC 9113 §8.3.1).
fn one_host(headers: &HeaderMap, authority: Option<&Authority>) -> Result<(), HeadError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let Some(host) = hosts.next() else { return Ok(()) };
    if hosts.next().is_some() {
        return Err(malformed("host is given more than once"));
    }
    let differs = |authority: &Authority| {
        !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes())
    };
    if authority.is_some_and(differs) {
        return Err(malformed("host differs from :authority"));
    }
    Ok(())
}

/// The declared length, said once.
fn length(headers: &HeaderMap) -> Result<Option<u64>, HeadError> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(only) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed("content-length is given more than once"));
    }
    length_of(only.as_bytes()).map(Some).ok_or(malformed("content-length is no number"))
}

/// An answer's head, and the length of its body if it is declared.
///
/// # Errors
/// What is no answer, or has two readings.
pub(super) fn response(fields: Fields) -> Result<(Response<()>, Option<u64>), &'static str> {
    let read = |fields| -> Result<(Response<()>, Option<u64>), HeadError> {
        let taken = Taken::new(fields)?;
        let status = taken.pseudo(STATUS).ok_or(malformed(":status is missing"))?;
        if taken.pseudo.iter().flatten().count() > 1 {
            return Err(malformed("a pseudo-field of a request is in an answer"));
        }
        let digits = status.len() == 3 && status.iter().all(u8::is_ascii_digit);
        let status = StatusCode::from_bytes(&status).ok().filter(|_| digits);
        let mut response = Response::new(());
        *response.status_mut() = status.ok_or(malformed(":status is no number from 100 to 999"))?;
        *response.version_mut() = Version::HTTP_2;
        let length = length(&taken.headers)?;
        *response.headers_mut() = taken.headers;
        Ok((response, length))
    };
    read(fields).map_err(why)
}

/// Trailers, of which those that may be forwarded are kept.
///
/// # Errors
/// What are no trailers.
pub(super) fn trailers(fields: Fields) -> Result<Option<HeaderMap>, &'static str> {
    let taken = Taken::new(fields).map_err(why)?;
    if taken.pseudo.iter().any(Option::is_some) {
        return Err("a pseudo-field is in trailers");
    }
    Ok(crate::edge::trailers::forwarded(taken.headers))
}

fn why(error: HeadError) -> &'static str {
    match error {
        HeadError::Malformed(why) => why,
        HeadError::Refused(reject) => reject.why,
    }
}

/// Puts the fields of an answer's head into `out`.
pub(super) fn put_response(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap) {
    match status.as_u16() {
        200 => put_indexed(out, 8),
        204 => put_indexed(out, 9),
        206 => put_indexed(out, 10),
        304 => put_indexed(out, 11),
        400 => put_indexed(out, 12),
        404 => put_indexed(out, 13),
        500 => put_indexed(out, 14),
        _ => put_named(out, 8, status.as_str().as_bytes()),
    }
    put_fields(out, headers);
}

/// Puts the fields of a request's head into `out`: Host goes as `:authority`.
pub(super) fn put_request(out: &mut BytesMut, parts: &request::Parts) {
    match parts.method {
        Method::GET => put_indexed(out, 2),
        Method::POST => put_indexed(out, 3),
        _ => put_named(out, 2, parts.method.as_str().as_bytes()),
    }
    put_indexed(out, 6);
    let host = parts.headers.get(header::HOST).map(HeaderValue::as_bytes);
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    if let Some(authority) = host.or(authority) {
        put_named(out, 1, authority);
    }
    match parts.uri.path_and_query().map_or("/", PathAndQuery::as_str) {
        "/" => put_indexed(out, 4),
        target => put_named(out, 4, target.as_bytes()),
    }
    put_fields(out, &parts.headers);
}

/// Puts fields into `out`, but for those that RFC 9113 §8.2.2 forbids.
pub(super) fn put_fields(out: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        let skipped = is_of_connection(name)
            || *name == header::HOST
            || (*name == header::TE && !value.as_bytes().eq_ignore_ascii_case(b"trailers"));
        if !skipped {
            put_field(out, name.as_str(), value.as_bytes().trim_ascii(), value.is_sensitive());
        }
    }
}

#[cfg(test)]
mod tests;
