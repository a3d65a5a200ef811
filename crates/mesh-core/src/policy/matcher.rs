//! Matches on HTTP requests, shared by rules and routes. Exact comparison of bytes, no patterns.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An HTTP method: 1 to 32 bytes of `[A-Z-]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Method(String);

/// Why a match is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMatch {
    /// Not a method.
    #[error("method is {0:?}, expected upper case letters such as \"GET\"")]
    Method(String),
    /// Not a canonical path.
    #[error("path is {found:?}, expected {expected}")]
    Path {
        /// The text.
        found: String,
        /// What is expected.
        expected: String,
    },
    /// Not a header name.
    #[error("header name is {0:?}, expected lower case letters, digits and '-'")]
    HeaderName(String),
    /// Not a header value.
    #[error("header value is {0:?}, expected visible ASCII, at most 1024 bytes")]
    HeaderValue(String),
}

impl Method {
    /// The method as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Method {
    type Err = InvalidMatch;

    fn from_str(text: &str) -> Result<Self, InvalidMatch> {
        let allowed = text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        if text.is_empty() || text.len() > 32 || !allowed {
            return Err(InvalidMatch::Method(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Method {
    type Error = InvalidMatch;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Method> for String {
    fn from(method: Method) -> Self {
        method.0
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which canonical paths match (see [`crate::path`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum PathMatch {
    /// Every path.
    #[default]
    Any,
    /// This path and no other.
    Exact(String),
    /// Paths below this one, by whole segments: `/v2/` or `/v2` matches `/v2` and `/v2/x` but
    /// never `/v20`.
    Prefix(String),
}

impl PathMatch {
    /// An exact match on `path`, which must be in canonical form.
    ///
    /// # Errors
    /// [`InvalidMatch::Path`], with the canonical form where there is one.
    pub fn exact(path: &str) -> Result<Self, InvalidMatch> {
        canonical(path).map(Self::Exact)
    }

    /// A match on `path` and all below it.
    ///
    /// # Errors
    /// [`InvalidMatch::Path`], with the canonical form where there is one.
    pub fn prefix(path: &str) -> Result<Self, InvalidMatch> {
        canonical(path).map(Self::Prefix)
    }

    /// Whether `path`, in canonical form, matches.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => {
                let stem = prefix.strip_suffix('/').unwrap_or(prefix);
                path.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

fn canonical(path: &str) -> Result<String, InvalidMatch> {
    match crate::path::canonical(path) {
        Ok(canonical) if canonical == path => Ok(canonical),
        Ok(canonical) => Err(InvalidMatch::Path {
            found: path.to_owned(),
            expected: format!("its canonical form {canonical:?}"),
        }),
        Err(why) => Err(InvalidMatch::Path {
            found: path.to_owned(),
            expected: format!("a canonical path ({why})"),
        }),
    }
}

/// A header that must have one value equal to `value`; for a deny, any of its values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    /// Lower-case name.
    pub name: String,
    /// The exact value.
    pub value: String,
}

impl HeaderMatch {
    /// A match on the header `name` with exactly `value`.
    ///
    /// # Errors
    /// [`InvalidMatch`] if either cannot stand in a header.
    pub fn new(name: &str, value: &str) -> Result<Self, InvalidMatch> {
        let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
            return Err(InvalidMatch::HeaderName(name.to_owned()));
        }
        let visible = |b: u8| (0x20..0x7f).contains(&b);
        if value.len() > 1024 || !value.bytes().all(visible) || value.trim() != value {
            return Err(InvalidMatch::HeaderValue(value.to_owned()));
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// `{ methods, path | path_prefix, header }`: all parts given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpMatch {
    /// Any of these methods; empty is any method.
    pub methods: Vec<Method>,
    /// The canonical path.
    pub path: PathMatch,
    /// All of these headers.
    pub headers: Vec<HeaderMatch>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_match_whole_segments() {
        for prefix in ["/v2", "/v2/"] {
            let matcher = PathMatch::prefix(prefix).unwrap();
            for (path, want) in
                [("/v2", true), ("/v2/", true), ("/v2/x", true), ("/v20", false), ("/", false)]
            {
                assert_eq!(matcher.matches(path), want, "{prefix} on {path}");
            }
        }
        assert!(PathMatch::prefix("/").unwrap().matches("/anything"));
    }

    #[test]
    fn paths_must_be_canonical() {
        let error = PathMatch::exact("/a/../b").unwrap_err().to_string();
        assert_eq!(error, "path is \"/a/../b\", expected its canonical form \"/b\"");
        assert!(PathMatch::exact("a").is_err());
        assert!(PathMatch::exact("/a%2fb").is_err());
    }

    #[test]
    fn headers_are_lower_case_and_visible() {
        assert!(HeaderMatch::new("x-canary", "1").is_ok());
        for (name, value) in
            [("X-Canary", "1"), ("", "1"), ("a b", "1"), ("a", "b\r\n"), ("a", " b")]
        {
            assert!(HeaderMatch::new(name, value).is_err(), "{name:?} {value:?}");
        }
    }
}
