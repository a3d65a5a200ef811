//! Which trailers pass: by this list, whoever sent them and wherever they go.

use http::header::HeaderMap;

/// The trailers that may be forwarded, if any: none that frames, routes, controls, authenticates
/// or says who calls (RFC 9110 §6.5.1), for some receivers take trailers for header fields.
pub(super) fn forwarded(trailers: HeaderMap) -> Option<HeaderMap> {
    let mut passed = HeaderMap::new();
    for name in trailers.keys().filter(|name| !is_reserved(name.as_str())) {
        for value in trailers.get_all(name) {
            passed.append(name.clone(), value.clone());
        }
    }
    Some(passed).filter(|passed| !passed.is_empty())
}

fn is_reserved(name: &str) -> bool {
    const NAMES: [&str; 27] = [
        "age",
        "authorization",
        "cache-control",
        "connection",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "location",
        "max-forwards",
        "pragma",
        "range",
        "retry-after",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "via",
        "warning",
        "www-authenticate",
        "x-real-ip",
    ];
    const STARTS: [&str; 6] = ["content-", "if-", "mesh-", "proxy-", "x-forwarded-", "x-mesh-"];
    name.contains('_')
        || NAMES.contains(&name)
        || STARTS.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn b_smug_trailers_frame_route_and_claim_nothing() {
        let dropped = [
            "content-length",
            "transfer-encoding",
            "host",
            "connection",
            "authorization",
            "cookie",
            "x-mesh-caller",
            "x-forwarded-for",
            "x_forwarded_for",
            "forwarded",
            "mesh-error",
            "mesh-rule",
            "if-match",
            "range",
            "te",
            "trailer",
            "upgrade",
        ];
        for name in dropped {
            let only = (HeaderName::from_static(name), HeaderValue::from_static("1"));
            assert_eq!(forwarded([only].into_iter().collect()), None, "{name}");
        }
        let mut kept = HeaderMap::new();
        for value in ["0", "1"] {
            kept.append("grpc-status", HeaderValue::from_static(value));
        }
        let mut mixed = kept.clone();
        mixed.insert("host", HeaderValue::from_static("evil"));
        assert_eq!(forwarded(mixed), Some(kept));
        assert_eq!(forwarded(HeaderMap::new()), None);
    }
}
