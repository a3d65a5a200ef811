//! Which headers cross the proxy. RFC 9110 §7.6.1: hop-by-hop fields end here.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use mesh_core::identity::SpiffeId;

use super::refusal::{ERROR_HEADER, RULE_HEADER};
use crate::edge::http1::Upgrade;

/// Tells the application who calls. Only the proxy writes it.
pub(super) const CALLER: &str = "x-mesh-caller";

/// Fields of one connection, never forwarded (RFC 9110 §7.6.1, RFC 9113 §8.2.2).
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Prepares a request's fields for the link: no hop-by-hop fields, no framing, no Host (it
/// travels as the authority), and nothing that only proxies may say.
pub(super) fn from_caller(headers: &mut HeaderMap) {
    drop_hop_by_hop(headers);
    headers.remove(header::HOST);
    headers.remove(header::EXPECT);
    drop_claims(headers);
}

/// Prepares a request's fields for the application: it learns who calls.
pub(super) fn to_app(headers: &mut HeaderMap, caller: &SpiffeId) {
    drop_hop_by_hop(headers);
    headers.remove(header::EXPECT);
    drop_claims(headers);
    if let Ok(value) = HeaderValue::from_str(&caller.to_string()) {
        headers.insert(CALLER, value);
    }
}

/// Makes a request ask for another protocol: what the caller said of that ended at its agent.
pub(super) fn ask(headers: &mut HeaderMap, upgrade: Option<Upgrade>) {
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade.value());
    }
}

/// Prepares the fields of an application's answer: what proxies say of a call is not for it.
pub(super) fn from_app(headers: &mut HeaderMap) {
    of_answer(headers);
    headers.remove(ERROR_HEADER);
    headers.remove(RULE_HEADER);
}

/// Prepares an answer's fields for the next hop.
pub(super) fn of_answer(headers: &mut HeaderMap) {
    drop_hop_by_hop(headers);
    headers.remove(header::HOST);
    drop_named(headers, |name| name.starts_with("x-mesh-"));
}

/// Drops what a caller may not claim: who it is, and where it came from.
fn drop_claims(headers: &mut HeaderMap) {
    headers.remove(header::FORWARDED);
    // an underscore reads as a hyphen to many backends (CGI), so those spellings go as well
    drop_named(headers, |name| {
        name.contains('_') || name.starts_with("x-mesh-") || name.starts_with("x-forwarded-")
    });
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .filter(|name: &HeaderName| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn drop_named(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn hop_by_hop_fields_and_those_named_by_connection_end_here() {
        let mut headers = map(&[
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        from_caller(&mut headers);
        assert_eq!(headers, map(&[("accept", "*/*")]));
    }

    #[test]
    fn an_application_cannot_speak_for_the_proxy() {
        let mut headers = map(&[("mesh-error", "denied"), ("mesh-rule", "x"), ("x-mesh-a", "1")]);
        from_app(&mut headers);
        assert_eq!(headers, map(&[]));
    }

    #[test]
    fn a_caller_cannot_claim_to_be_another() {
        let mut headers = map(&[
            ("x-mesh-caller", "spiffe://td/dc/dc1/node/root"),
            ("x_mesh_caller", "x"),
            ("x-forwarded-for", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
        ]);
        let caller: SpiffeId = "spiffe://td/ns/default/dc/dc1/svc/web".parse().unwrap();
        to_app(&mut headers, &caller);
        assert_eq!(headers, map(&[("x-mesh-caller", "spiffe://td/ns/default/dc/dc1/svc/web")]));
    }
}
