//! The heads of exchanges: what OPEN, HEAD and TRAILERS carry, encoded and strictly decoded.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode};

use super::error::LinkError;
use super::settings::Settings;

/// Where at the destination service a stream goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The instance the caller chose; empty leaves the choice to the destination.
    /// At most 255 bytes of visible ASCII.
    pub instance: String,
    /// The declared port of the service; 0 is its only or first one.
    pub port: u16,
}

/// The head of an HTTP request, canonical: framing and hop-by-hop fields have no place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Where it goes.
    pub target: Target,
    /// At most 255 bytes.
    pub method: Method,
    /// Begins with `/`, or is `*`; none only for CONNECT.
    pub path: Option<PathAndQuery>,
    /// What was `Host` or `:authority`; never with user information.
    pub authority: Option<Authority>,
    /// The protocol the client asks to switch to, such as `websocket`; empty for none.
    /// Response status 101 then says that the stream's bytes are of that protocol.
    pub upgrade: String,
    /// Without `host`, `connection`, `upgrade` and the like; `te` is `trailers` or absent.
    pub headers: HeaderMap,
}

/// The opening of a raw TCP stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpOpen {
    /// Where it goes.
    pub target: Target,
    /// What the destination may want to know, such as trace context.
    pub headers: HeaderMap,
}

/// What a stream is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Open {
    /// One HTTP exchange.
    Http(RequestHead),
    /// One TCP connection.
    Tcp(TcpOpen),
}

/// The head of an answer. On a TCP stream it is [`ResponseHead::connected`]: the instance took
/// the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// 100 to 999; 1xx other than 101 are informational, another head follows.
    pub status: StatusCode,
    /// As in [`RequestHead::headers`].
    pub headers: HeaderMap,
}

impl Open {
    /// The headers or metadata it carries.
    pub fn headers(&self) -> &HeaderMap {
        match self {
            Self::Http(head) => &head.headers,
            Self::Tcp(open) => &open.headers,
        }
    }

    /// Where it goes.
    pub fn target(&self) -> &Target {
        match self {
            Self::Http(head) => &head.target,
            Self::Tcp(open) => &open.target,
        }
    }

    /// The payload of its OPEN frame.
    ///
    /// # Errors
    /// [`LinkError::BadHead`], [`LinkError::HeadTooLarge`] or [`LinkError::TooManyHeaders`] if
    /// a peer with settings `to` would refuse it.
    pub(super) fn encode(&self, to: &Settings) -> Result<Bytes, LinkError> {
        let mut out = BytesMut::with_capacity(256);
        match self {
            Self::Http(head) => {
                out.put_u8(HTTP);
                head.target.encode(&mut out)?;
                put_short(&mut out, head.method.as_str().as_bytes())?;
                let path = head.path.as_ref().map_or("", PathAndQuery::as_str);
                put_long(&mut out, path.as_bytes())?;
                let authority = head.authority.as_ref().map_or("", Authority::as_str);
                put_long(&mut out, authority.as_bytes())?;
                put_short(&mut out, head.upgrade.as_bytes())?;
                head.check().map_err(LinkError::BadHead)?;
            }
            Self::Tcp(open) => {
                out.put_u8(TCP);
                open.target.encode(&mut out)?;
            }
        }
        put_headers(&mut out, self.headers(), false, to)?;
        bounded(out, to)
    }

    /// Reads the payload of an OPEN frame of at most `ours.head_max` bytes.
    pub(super) fn decode(payload: Bytes, ours: &Settings) -> Result<Self, LinkError> {
        let mut reader = Reader(payload);
        let kind = reader.u8()?;
        let target = Target::decode(&mut reader)?;
        let open = match kind {
            HTTP => Self::Http(decode_request(&mut reader, target, ours)?),
            TCP => Self::Tcp(TcpOpen { target, headers: get_headers(&mut reader, false, ours)? }),
            _ => return Err(LinkError::Malformed("stream kind is neither http nor tcp")),
        };
        reader.end().map(|()| open)
    }
}

impl ResponseHead {
    /// A head without fields.
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new() }
    }

    /// The head of every TCP stream: status 200 and no fields.
    pub fn connected() -> Self {
        Self::new(StatusCode::OK)
    }

    /// Whether another head follows.
    pub fn informational(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }

    pub(super) fn encode(&self, to: &Settings) -> Result<Bytes, LinkError> {
        let mut out = BytesMut::with_capacity(256);
        out.put_u16(self.status.as_u16());
        put_headers(&mut out, &self.headers, false, to)?;
        bounded(out, to)
    }

    pub(super) fn decode(payload: Bytes, ours: &Settings) -> Result<Self, LinkError> {
        let mut reader = Reader(payload);
        let status = StatusCode::from_u16(reader.u16()?)
            .map_err(|_| LinkError::Malformed("status is not 100 to 999"))?;
        let headers = get_headers(&mut reader, false, ours)?;
        reader.end().map(|()| Self { status, headers })
    }
}

/// The payload of a TRAILERS frame.
pub(super) fn encode_trailers(trailers: &HeaderMap, to: &Settings) -> Result<Bytes, LinkError> {
    let mut out = BytesMut::with_capacity(128);
    put_headers(&mut out, trailers, true, to)?;
    bounded(out, to)
}

/// Reads the payload of a TRAILERS frame.
pub(super) fn decode_trailers(payload: Bytes, ours: &Settings) -> Result<HeaderMap, LinkError> {
    let mut reader = Reader(payload);
    let trailers = get_headers(&mut reader, true, ours)?;
    reader.end().map(|()| trailers)
}

impl RequestHead {
    /// What types alone do not hold.
    fn check(&self) -> Result<(), &'static str> {
        let path = self.path.as_ref().map(PathAndQuery::as_str);
        match path {
            None if self.method != Method::CONNECT => return Err("path is missing"),
            Some(path) if path != "*" && !path.starts_with('/') => {
                return Err("path begins with neither / nor *");
            }
            _ => {}
        }
        if self.authority.as_ref().is_some_and(|text| text.as_str().contains('@')) {
            return Err("authority has user information");
        }
        if !self.upgrade.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/+".contains(&b)) {
            return Err("upgrade is not a protocol name");
        }
        Ok(())
    }
}

fn decode_request(
    reader: &mut Reader, target: Target, ours: &Settings,
) -> Result<RequestHead, LinkError> {
    let method = Method::from_bytes(&reader.short()?)
        .map_err(|_| LinkError::Malformed("method is not a token"))?;
    let path = match reader.long()? {
        text if text.is_empty() => None,
        text => Some(exact_path(text)?),
    };
    let authority = match reader.long()? {
        text if text.is_empty() => None,
        text => Some(
            Authority::from_maybe_shared(text)
                .map_err(|_| LinkError::Malformed("authority does not parse"))?,
        ),
    };
    let upgrade = reader.short_text()?;
    let headers = get_headers(reader, false, ours)?;
    let head = RequestHead { target, method, path, authority, upgrade, headers };
    head.check().map_err(LinkError::Malformed)?;
    Ok(head)
}

/// A path that parses to itself: the parser cuts fragments, which have no place here.
fn exact_path(text: Bytes) -> Result<PathAndQuery, LinkError> {
    let path = PathAndQuery::from_maybe_shared(text.clone())
        .map_err(|_| LinkError::Malformed("path does not parse"))?;
    if path.as_str().as_bytes() != text {
        return Err(LinkError::Malformed("path has a fragment"));
    }
    Ok(path)
}

impl Target {
    fn encode(&self, out: &mut BytesMut) -> Result<(), LinkError> {
        if !self.instance.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(LinkError::BadHead(INSTANCE));
        }
        put_short(out, self.instance.as_bytes())?;
        out.put_u16(self.port);
        Ok(())
    }

    fn decode(reader: &mut Reader) -> Result<Self, LinkError> {
        let instance = reader.short_text()?;
        if !instance.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(LinkError::Malformed(INSTANCE));
        }
        Ok(Self { instance, port: reader.u16()? })
    }
}

fn put_headers(
    out: &mut BytesMut, headers: &HeaderMap, trailers: bool, to: &Settings,
) -> Result<(), LinkError> {
    let (found, max) = (headers.len(), to.headers_max as usize);
    let count = u16::try_from(found).ok().filter(|_| found <= max);
    out.put_u16(count.ok_or(LinkError::TooManyHeaders { found, max })?);
    for (name, value) in headers {
        check_field(name, value, trailers).map_err(LinkError::BadHead)?;
        put_short(out, name.as_str().as_bytes())?;
        put_long(out, value.as_bytes())?;
    }
    check_length(headers).map_err(LinkError::BadHead)
}

fn get_headers(
    reader: &mut Reader, trailers: bool, ours: &Settings,
) -> Result<HeaderMap, LinkError> {
    let (found, max) = (usize::from(reader.u16()?), ours.headers_max as usize);
    if found > max {
        return Err(LinkError::TooManyHeaders { found, max });
    }
    // Three bytes a field at least: what is not there is not reserved.
    let mut headers = HeaderMap::with_capacity(found.min(reader.0.len() / 3));
    for _ in 0..found {
        let name = reader.short()?;
        if name.iter().any(u8::is_ascii_uppercase) {
            return Err(LinkError::Malformed("field name has upper case"));
        }
        let name = HeaderName::from_bytes(&name)
            .map_err(|_| LinkError::Malformed("field name is not a token"))?;
        let value = HeaderValue::from_maybe_shared(reader.long()?)
            .map_err(|_| LinkError::Malformed("field value has control bytes"))?;
        check_field(&name, &value, trailers).map_err(LinkError::Malformed)?;
        headers
            .try_append(name, value)
            .map_err(|_| LinkError::Malformed("more fields than a map takes"))?;
    }
    check_length(&headers).map_err(LinkError::Malformed)?;
    Ok(headers)
}

/// Refuses fields that say how a message was framed on another hop (RFC 9110 §7.6.1), or that
/// have a place of their own here: two answers to one question are how smuggling starts.
fn check_field(name: &HeaderName, value: &HeaderValue, trailers: bool) -> Result<(), &'static str> {
    let hop_by_hop =
        matches!(
            *name,
            header::HOST | header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE
        ) || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings");
    if hop_by_hop {
        return Err("hop-by-hop field");
    }
    if *name == header::TE && value.as_bytes() != b"trailers" {
        return Err("te is not trailers");
    }
    if trailers && matches!(*name, header::CONTENT_LENGTH | header::TE | header::TRAILER) {
        return Err("framing field in trailers");
    }
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let value = value.as_bytes();
    if blank(value.first()) || blank(value.last()) {
        return Err("field value has outer blanks");
    }
    Ok(())
}

/// At most one length, of 1 to 19 digits.
fn check_length(headers: &HeaderMap) -> Result<(), &'static str> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(()) };
    let digits = length.as_bytes();
    let number = (1..=19).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    if !number || lengths.next().is_some() {
        return Err("content-length is not one number");
    }
    Ok(())
}

fn bounded(out: BytesMut, to: &Settings) -> Result<Bytes, LinkError> {
    let (found, max) = (out.len(), to.head_max as usize);
    if found > max {
        return Err(LinkError::HeadTooLarge { found, max });
    }
    Ok(out.freeze())
}

fn put_short(out: &mut BytesMut, text: &[u8]) -> Result<(), LinkError> {
    let too_long = |_| LinkError::BadHead("text of more than 255 bytes");
    out.put_u8(u8::try_from(text.len()).map_err(too_long)?);
    out.put_slice(text);
    Ok(())
}

fn put_long(out: &mut BytesMut, text: &[u8]) -> Result<(), LinkError> {
    let too_long = |_| LinkError::BadHead("text of more than 65535 bytes");
    out.put_u16(u16::try_from(text.len()).map_err(too_long)?);
    out.put_slice(text);
    Ok(())
}

/// Takes a payload apart; slices share it.
struct Reader(Bytes);

impl Reader {
    fn u8(&mut self) -> Result<u8, LinkError> {
        self.0.try_get_u8().map_err(|_| CUT)
    }

    fn u16(&mut self) -> Result<u16, LinkError> {
        self.0.try_get_u16().map_err(|_| CUT)
    }

    fn take(&mut self, len: usize) -> Result<Bytes, LinkError> {
        if len > self.0.len() {
            return Err(CUT);
        }
        Ok(self.0.split_to(len))
    }

    fn short(&mut self) -> Result<Bytes, LinkError> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    fn short_text(&mut self) -> Result<String, LinkError> {
        let text = self.short()?;
        let text = str::from_utf8(&text).map_err(|_| LinkError::Malformed("text is not UTF-8"))?;
        Ok(text.to_owned())
    }

    fn long(&mut self) -> Result<Bytes, LinkError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    fn end(self) -> Result<(), LinkError> {
        if self.0.is_empty() { Ok(()) } else { Err(LinkError::Malformed("bytes after the block")) }
    }
}

const CUT: LinkError = LinkError::Malformed("block is cut short");
const INSTANCE: &str = "instance is not visible ASCII";
const HTTP: u8 = 1;
const TCP: u8 = 2;

#[cfg(test)]
mod tests;
