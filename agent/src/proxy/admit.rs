//! Admission: the one place before routing. It lets through only what has one reading.
//!
//! What a request's bytes may look like and where its body ends is decided by [`crate::edge`]; here
//! it is decided which host, path and method it is for.

use http::header::{self, HeaderMap};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Uri, Version};
use mesh_core::path;

use super::refusal::Refusal;

/// The parts of a request that were admitted, in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    /// Upper case.
    pub(super) method: Method,
    /// The path as it came, without the query.
    pub(super) path_before: String,
    /// The canonical path: what is matched, decided on, logged and forwarded.
    pub(super) path: String,
    /// The canonical path and the query as it came.
    pub(super) path_and_query: PathAndQuery,
    /// The canonical host, without its port.
    pub(super) host: String,
    /// What is forwarded as Host: the canonical host, and the port if one was given.
    pub(super) authority: Authority,
}

/// Admits the head of a request, or refuses it with 400.
pub(super) fn admit(
    method: &Method, uri: &Uri, version: Version, headers: &HeaderMap,
) -> Result<Admitted, Refusal> {
    let bad = |why: &str| Refusal::BadRequest(why.to_owned());
    if !matches!(version, Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2) {
        return Err(bad("version is not HTTP/1.0, HTTP/1.1 or HTTP/2"));
    }
    if *method == Method::CONNECT {
        return Err(bad("CONNECT is not served here"));
    }
    if !is_plain(method) {
        return Err(bad("method is not 1 to 32 upper case letters"));
    }
    // a link carries the length of a name in one byte
    if headers.keys().any(|name| u8::try_from(name.as_str().len()).is_err()) {
        return Err(bad("a header's name has more than 255 bytes"));
    }
    let authority = authority(uri, version, headers)?;
    let (host, port) = path::host_and_port(authority.as_str())
        .map_err(|why| Refusal::BadRequest(format!("Host: {why}")))?;
    let authority = match port {
        Some(port) => format!("{host}:{port}"),
        None => host.clone(),
    };
    let authority = authority.parse().map_err(|_| bad("Host cannot be forwarded"))?;
    let before = uri.path();
    let canonical =
        path::canonical(before).map_err(|why| Refusal::BadRequest(format!("path: {why}")))?;
    let whole = match uri.query() {
        Some(query) => format!("{canonical}?{query}"),
        None => canonical.clone(),
    };
    let path_and_query = whole.parse().map_err(|_| bad("path or query cannot be forwarded"))?;
    Ok(Admitted {
        method: method.clone(),
        path_before: before.to_owned(),
        path: canonical,
        path_and_query,
        host,
        authority,
    })
}

/// Whether a rule can name the method: other spellings would pass by rules that do.
pub(super) fn is_plain(method: &Method) -> bool {
    let name = method.as_str().as_bytes();
    name.len() <= 32 && name.iter().all(|b| b.is_ascii_uppercase() || *b == b'-')
}

/// The one host a request is for (RFC 9112 §3.2): exactly one Host, equal to the target's.
fn authority(uri: &Uri, version: Version, headers: &HeaderMap) -> Result<Authority, Refusal> {
    let bad = |why: &str| Refusal::BadRequest(why.to_owned());
    let mut hosts = headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(bad("Host is given more than once"));
    }
    let host = match first {
        Some(value) => Some(value.to_str().map_err(|_| bad("Host is not ASCII"))?),
        None if version == Version::HTTP_10 => None,
        // its place is `:authority` (RFC 9113 §8.3.1)
        None if version == Version::HTTP_2 => None,
        None => return Err(bad("Host is missing")),
    };
    if let (Some(target), Some(host)) = (uri.authority(), host)
        && !target.as_str().eq_ignore_ascii_case(host)
    {
        return Err(bad("Host differs from the request target's"));
    }
    let text = uri.authority().map(Authority::as_str).or(host).unwrap_or("");
    if text.contains('@') {
        return Err(bad("Host has user information"));
    }
    text.parse().map_err(|_| bad("Host is missing or no host"))
}

#[cfg(feature = "fuzzing")]
impl crate::fuzzing::Fuzzing {
    /// [`admit`].
    pub fn admit<B>(request: &http::Request<B>) -> Option<crate::fuzzing::Admitted> {
        let (method, uri) = (request.method(), request.uri());
        let admitted = admit(method, uri, request.version(), request.headers()).ok()?;
        Some(crate::fuzzing::Admitted {
            path: admitted.path,
            path_and_query: admitted.path_and_query.to_string(),
            host: admitted.host,
            authority: admitted.authority.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).fold(
            HeaderMap::new(),
            |mut map, (name, value)| {
                map.append(name, value);
                map
            },
        )
    }

    fn get(target: &str, pairs: &[(&'static str, &'static str)]) -> Result<Admitted, Refusal> {
        admit(&Method::GET, &target.parse().unwrap(), Version::HTTP_11, &headers(pairs))
    }

    #[test]
    fn a_plain_request_is_admitted_in_canonical_form() {
        let admitted = get("/a/./b//c?x=1", &[("host", "Orders.mesh:80")]).unwrap();
        assert_eq!(admitted.path, "/a/b/c");
        assert_eq!(admitted.path_and_query, "/a/b/c?x=1");
        assert_eq!(admitted.host, "orders.mesh");
        assert_eq!(admitted.path_before, "/a/./b//c");
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        let host = ("host", "orders");
        type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);
        let cases: &[Case<'_>] = &[
            ("no host", "/", &[]),
            ("two hosts", "/", &[host, ("host", "orders")]),
            ("absolute target differs", "http://a/", &[host]),
            ("user information", "/", &[("host", "a@orders")]),
            ("host with a path", "/", &[("host", "a/../b")]),
            ("escaped slash", "/a%2fb", &[host]),
            ("climbs out", "/../a", &[host]),
            ("parameter", "/a;b=c", &[host]),
        ];
        for (name, target, pairs) in cases {
            let pairs: Vec<_> = pairs.iter().map(|(n, v)| (*n, *v)).collect();
            let owned: HeaderMap = pairs.iter().fold(HeaderMap::new(), |mut map, (n, v)| {
                map.append(n.parse::<HeaderName>().unwrap(), v.parse().unwrap());
                map
            });
            let got = admit(&Method::GET, &target.parse().unwrap(), Version::HTTP_11, &owned);
            assert!(matches!(got, Err(Refusal::BadRequest(_))), "case: {name}: {got:?}");
        }
    }

    #[test]
    fn methods_are_upper_case_and_never_connect() {
        let (longest, longer) = ("A".repeat(32), "A".repeat(33));
        let cases = [("get", false), ("Get", false), ("G3T", false), ("CONNECT", false)];
        let lengths = [(&*longest, true), (&*longer, false), ("VERSION-CONTROL", true)];
        for (method, want) in cases.into_iter().chain(lengths) {
            let method: Method = method.parse().unwrap();
            let got =
                admit(&method, &"/".parse().unwrap(), Version::HTTP_11, &headers(&[("host", "a")]));
            assert_eq!(got.is_ok(), want, "{method}");
        }
    }

    #[test]
    fn names_of_fields_fit_into_a_link() {
        for (len, want) in [(255, true), (256, false)] {
            let name: HeaderName = "a".repeat(len).parse().unwrap();
            let mut headers = headers(&[("host", "orders")]);
            headers.insert(name, HeaderValue::from_static("x"));
            let got = admit(&Method::GET, &"/".parse().unwrap(), Version::HTTP_11, &headers);
            assert_eq!(got.is_ok(), want, "{len}");
        }
    }

    #[test]
    fn b_host_one_spelling_is_forwarded() {
        let cases = [
            ("ORDERS", "orders", "orders"),
            ("orders.mesh.", "orders.mesh", "orders.mesh"),
            ("Orders.:0080", "orders", "orders:80"),
            ("[0::1]:80", "[::1]", "[::1]:80"),
        ];
        for (host, want, forwarded) in cases {
            let admitted = get("/", &[("host", host)]).unwrap();
            assert_eq!((&*admitted.host, admitted.authority.as_str()), (want, forwarded));
        }
    }
}
