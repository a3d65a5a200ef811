//! Leaving HTTP/1.1 (RFC 9110 §7.8): what a client asks for, and whether an application took it.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Version};

use crate::edge::Reject;

/// A protocol that a connection may leave HTTP/1.1 for. No other is passed on: who asks for one is
/// answered by HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// RFC 6455.
    WebSocket,
}

impl Upgrade {
    /// What the request with this head asks for; `bodiless` says that no body follows it.
    ///
    /// # Errors
    /// A WebSocket asked for twice, or by a request with a body: where does HTTP end?
    pub fn asked(
        method: &Method, version: Version, headers: &HeaderMap, bodiless: bool,
    ) -> Result<Option<Self>, Reject> {
        // of no meaning in HTTP/1.0, and nothing without the option (RFC 9110 §7.8)
        if version != Version::HTTP_11 || !is_option(headers) {
            return Ok(None);
        }
        let Some(found) = tokens(headers, &header::UPGRADE).find_map(Self::of) else {
            return Ok(None);
        };
        if headers.get_all(header::UPGRADE).iter().nth(1).is_some() {
            return Err(Reject::bad("Upgrade is given more than once"));
        }
        if !bodiless {
            return Err(Reject::bad("a request with a body asks for another protocol"));
        }
        // RFC 6455 §4.1
        Ok(Some(found).filter(|_| *method == Method::GET))
    }

    /// The protocol of this name, if it is one of these.
    pub fn named(name: &str) -> Option<Self> {
        Self::of(name.as_bytes())
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
        }
    }

    /// Its name, as the value of a field.
    pub fn value(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }

    /// Whether the head of an answer 101 says that it was taken: it, and nothing else.
    pub(super) fn is_taken(self, headers: &HeaderMap) -> bool {
        let mut taken = tokens(headers, &header::UPGRADE);
        let only = taken.next().and_then(Self::of) == Some(self) && taken.next().is_none();
        only && is_option(headers)
    }

    fn of(token: &[u8]) -> Option<Self> {
        token.eq_ignore_ascii_case(Self::WebSocket.as_str().as_bytes()).then_some(Self::WebSocket)
    }
}

/// Whether `Connection` has the option `upgrade`.
fn is_option(headers: &HeaderMap) -> bool {
    tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
}

/// The elements of a list, over all its lines.
fn tokens<'a>(
    headers: &'a HeaderMap, name: &header::HeaderName,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let lines = headers.get_all(name).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    type Fields<'a> = &'a [(&'static str, &'static str)];

    const CONNECTION: (&str, &str) = ("connection", "Upgrade");
    const WEBSOCKET: (&str, &str) = ("upgrade", "websocket");

    #[test]
    fn b_smug_only_a_websocket_is_asked_for() {
        let asked = Ok(Some(Upgrade::WebSocket));
        let cases: &[(Fields<'_>, Result<Option<Upgrade>, ()>)] = &[
            (&[CONNECTION, WEBSOCKET], asked),
            (&[("connection", "keep-alive, UPGRADE"), ("upgrade", "WebSocket")], asked),
            (&[("connection", "x"), ("connection", "upgrade"), WEBSOCKET], asked),
            (&[CONNECTION, ("upgrade", "h2c ,\twebsocket , x/1")], asked),
            (&[CONNECTION, ("upgrade", ",websocket,")], asked),
            (&[], Ok(None)),
            (&[WEBSOCKET], Ok(None)),
            (&[CONNECTION], Ok(None)),
            (&[("connection", "upgraded"), WEBSOCKET], Ok(None)),
            (&[("connection", "up, grade"), WEBSOCKET], Ok(None)),
            (&[("connection", "websocket"), WEBSOCKET], Ok(None)),
            (&[CONNECTION, ("upgrade", "h2c")], Ok(None)),
            (&[CONNECTION, ("upgrade", "TLS/1.0")], Ok(None)),
            (&[CONNECTION, ("upgrade", "websocket/13")], Ok(None)),
            (&[CONNECTION, ("upgrade", "websocket h2c")], Ok(None)),
            (&[CONNECTION, ("upgrade", "\"websocket\"")], Ok(None)),
            (&[CONNECTION, ("upgrade", "h2c"), ("upgrade", "x")], Ok(None)),
            (&[CONNECTION, WEBSOCKET, WEBSOCKET], Err(())),
            (&[CONNECTION, WEBSOCKET, ("upgrade", "h2c")], Err(())),
        ];
        for (fields, want) in cases {
            let got = Upgrade::asked(&Method::GET, Version::HTTP_11, &map(fields), true);
            assert_eq!(got.map_err(|_| ()), *want, "{fields:?}");
        }
    }

    #[test]
    fn a_websocket_is_asked_for_by_a_get_of_http_1_1_without_a_body() {
        let whole = map(&[CONNECTION, WEBSOCKET]);
        let h2c = map(&[CONNECTION, ("upgrade", "h2c")]);
        let ask = |method: Method, version, headers: &HeaderMap, bodiless| {
            Upgrade::asked(&method, version, headers, bodiless).map_err(|_| ())
        };
        let asked = Ok(Some(Upgrade::WebSocket));
        assert_eq!(ask(Method::GET, Version::HTTP_11, &whole, true), asked);
        for version in [Version::HTTP_10, Version::HTTP_2] {
            assert_eq!(ask(Method::GET, version, &whole, true), Ok(None));
        }
        for method in [Method::HEAD, Method::POST, Method::OPTIONS] {
            assert_eq!(ask(method, Version::HTTP_11, &whole, true), Ok(None));
        }
        assert_eq!(ask(Method::GET, Version::HTTP_11, &whole, false), Err(()));
        assert_eq!(ask(Method::POST, Version::HTTP_11, &whole, false), Err(()));
        // some clients ask for h2c with whatever they send
        assert_eq!(ask(Method::POST, Version::HTTP_11, &h2c, false), Ok(None));
    }

    #[test]
    fn only_what_was_asked_for_is_taken() {
        let cases: &[(Fields<'_>, bool)] = &[
            (&[CONNECTION, WEBSOCKET], true),
            (&[("connection", "keep-alive,upgrade"), ("upgrade", "WEBSOCKET")], true),
            (&[WEBSOCKET], false),
            (&[CONNECTION], false),
            (&[("connection", "close"), WEBSOCKET], false),
            (&[CONNECTION, ("upgrade", "h2c")], false),
            (&[CONNECTION, ("upgrade", "websocket, h2c")], false),
            (&[CONNECTION, ("upgrade", "h2c, websocket")], false),
            (&[CONNECTION, WEBSOCKET, ("upgrade", "h2c")], false),
            (&[CONNECTION, ("upgrade", "websocket/13")], false),
            (&[CONNECTION, ("upgrade", "")], false),
        ];
        for (fields, want) in cases {
            assert_eq!(Upgrade::WebSocket.is_taken(&map(fields)), *want, "{fields:?}");
        }
        assert_eq!(Upgrade::named("WebSocket"), Some(Upgrade::WebSocket));
        assert_eq!((Upgrade::named("h2c"), Upgrade::named("")), (None, None));
    }
}
