//! gRPC over HTTP/2: what a proxy must know of it. A refusal is a status that gRPC clients read, and
//! the caller's own deadline counts. (gRPC's PROTOCOL-HTTP2.md and its mapping of HTTP statuses.)

use std::fmt::Write as _;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};

use super::body::ProxyBody;
use super::refusal::Refusal;

/// Whether the request is a gRPC call: `application/grpc`, or that with a suffix or parameters.
pub(super) fn is_call(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let Some((name, rest)) = value.split_at_checked(CALL.len()) else { return false };
    name.eq_ignore_ascii_case(CALL) && matches!(rest.first(), None | Some(b'+' | b';'))
}

/// How long the caller waits: at most eight digits and a unit. What is no time is no deadline.
pub(super) fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The refusal as a gRPC client reads it: a status in headers that are trailers at once.
pub(super) fn answer(refusal: &Refusal) -> Response<ProxyBody> {
    let mut response = refusal.response().map(|_| ProxyBody::empty());
    *response.status_mut() = http::StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(status(refusal)));
    if let Ok(text) = HeaderValue::from_str(&percent(&format!("mesh: {refusal}"))) {
        headers.insert("grpc-message", text);
    }
    response
}

/// A gRPC status code.
fn status(refusal: &Refusal) -> u16 {
    match refusal {
        Refusal::Timeout { .. } => DEADLINE_EXCEEDED,
        Refusal::CallerUnknown(_)
        | Refusal::CallerNoService(_)
        | Refusal::PortOfOther(_)
        | Refusal::Denied { .. }
        | Refusal::Withdrawn(_) => PERMISSION_DENIED,
        Refusal::NoService(..) | Refusal::Protocol { .. } => UNIMPLEMENTED,
        Refusal::BadRequest(_) | Refusal::Rejected(_) => INTERNAL,
        Refusal::NoRoutes(_)
        | Refusal::NoEndpoint(_)
        | Refusal::NoIdentity(_)
        | Refusal::NotHosted(_)
        | Refusal::Connect(_)
        | Refusal::Broken(_) => UNAVAILABLE,
    }
}

/// `text` with all but visible ASCII, and `%`, escaped.
fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => out.push_str("%25"),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                // writing to a String never fails
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

const CALL: &[u8] = b"application/grpc";
const DEADLINE_EXCEEDED: u16 = 4;
const PERMISSION_DENIED: u16 = 7;
const UNIMPLEMENTED: u16 = 12;
const INTERNAL: u16 = 13;
const UNAVAILABLE: u16 = 14;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use http_body::Body as _;

    use super::*;

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )])
    }

    #[test]
    fn calls_are_told_by_their_type() {
        let cases = [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/GRPC;x=1", true),
            ("application/grpc-web", false),
            ("application/grp", false),
            ("text/plain", false),
        ];
        for (value, expected) in cases {
            assert_eq!(is_call(&with("content-type", value)), expected, "{value}");
        }
        assert!(!is_call(&HeaderMap::new()));
    }

    #[test]
    fn deadlines_have_eight_digits_and_a_unit() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let cases = [
            ("100m", ms(100)),
            ("5S", ms(5_000)),
            ("2M", ms(120_000)),
            ("1H", ms(3_600_000)),
            ("5000u", ms(5)),
            ("2000000n", ms(2)),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("100000000S", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("1.5S", None),
            ("10", None),
            ("10 S", None),
            ("10s", None),
        ];
        for (value, expected) in cases {
            assert_eq!(deadline(&with("grpc-timeout", value)), expected, "{value:?}");
        }
        assert_eq!(deadline(&HeaderMap::new()), None);
    }

    #[test]
    fn a_refusal_is_a_status_without_a_body() {
        let denied = Refusal::Denied {
            rule: "deny.orders/x".to_owned(),
            caller: "spiffe://a/b".to_owned(),
            service: "ör%".to_owned(),
        };
        let answer = answer(&denied);
        assert_eq!(answer.status(), 200);
        let header = |name| answer.headers().get(name).unwrap().to_str().unwrap();
        assert_eq!(header("grpc-status"), "7");
        assert_eq!(header("mesh-error"), "denied");
        assert_eq!(
            header("grpc-message"),
            "mesh: denied by deny.orders/x: spiffe://a/b may not call %C3%B6r%25"
        );
        assert!(answer.body().is_end_stream());
    }
}
