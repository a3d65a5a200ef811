//! Names: services, nodes, servers, instances, datacenters, subsets and rules.
//!
//! All follow one grammar, `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?` (an RFC 1123 label in lower
//! case), so that any name can stand in a SPIFFE ID, a DNS name, a file name and a metric label.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
pub const NAME_LEN_MAX: usize = 63;

/// Service names that would be mistaken for the mesh's own parts.
pub const RESERVED_SERVICES: [&str; 5] = ["admin", "localhost", "mesh", "mesh-agent", "meshd"];

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// The text is empty or too long.
    #[error("{what} has {len} bytes, expected 1 to {NAME_LEN_MAX}")]
    Length {
        /// Which kind of name.
        what: &'static str,
        /// Bytes found.
        len: usize,
    },
    /// A character outside the alphabet, or a hyphen at an end.
    #[error(
        "{what} {text:?} has {} at byte {at}, expected a-z and 0-9, with '-' only inside",
        shown(*found)
    )]
    Char {
        /// Which kind of name.
        what: &'static str,
        /// The text.
        text: String,
        /// The character found.
        found: char,
        /// Its byte offset.
        at: usize,
    },
    /// The name belongs to the mesh itself.
    #[error("{what} {text:?} is reserved, expected another name")]
    Reserved {
        /// Which kind of name.
        what: &'static str,
        /// The text.
        text: String,
    },
}

/// `c` so that it is not mistaken for another that looks alike.
fn shown(c: char) -> String {
    if c.is_ascii() { format!("{c:?}") } else { format!("{c:?} (U+{:04X})", u32::from(c)) }
}

fn check(what: &'static str, text: &str) -> Result<(), InvalidName> {
    if text.is_empty() || text.len() > NAME_LEN_MAX {
        return Err(InvalidName::Length { what, len: text.len() });
    }
    let last = text.len() - 1;
    let allowed = |at: usize, c: char| match c {
        'a'..='z' | '0'..='9' => true,
        '-' => at != 0 && at != last,
        _ => false,
    };
    match text.char_indices().find(|&(at, c)| !allowed(at, c)) {
        Some((at, found)) => Err(InvalidName::Char { what, text: text.to_owned(), found, at }),
        None => Ok(()),
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $what:literal, $reserved:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// Holds 1 to 63 bytes of `[a-z0-9]([a-z0-9-]*[a-z0-9])?`; no other value can exist.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check($what, text)?;
                let reserved: &[&str] = $reserved;
                if reserved.contains(&text) {
                    return Err(InvalidName::Reserved { what: $what, text: text.to_owned() });
                }
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    )*};
}

names! {
    /// The name of a service, such as `orders`.
    ServiceName = "service name", &RESERVED_SERVICES;
    /// The name of a node (a host with an agent), such as `web-7`.
    NodeName = "node name", &[];
    /// The name of a control server, such as `ctl-1`.
    ServerName = "server name", &[];
    /// The name of one registered copy of a service, unique on its node, such as `web-2`.
    InstanceId = "instance name", &[];
    /// The name of a datacenter, `dc1` by default.
    Datacenter = "datacenter name", &[];
    /// The name of a subset of a service's instances, such as `v2`.
    SubsetName = "subset name", &[];
    /// The name of a rule within its service, such as `readers`.
    RuleName = "rule name", &[];
    /// The public id of a token.
    TokenId = "token id", &[];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_only_their_alphabet() {
        let long = "a".repeat(64);
        let cases: &[(&str, &str, bool)] = &[
            ("one letter", "a", true),
            ("digit first", "0a", true),
            ("hyphen inside", "web-2", true),
            ("longest", &long[..63], true),
            ("too long", &long, false),
            ("empty", "", false),
            ("upper case", "Web", false),
            ("hyphen first", "-web", false),
            ("hyphen last", "web-", false),
            ("dot", "web.db", false),
            ("dot dot", "..", false),
            ("slash", "../etc", false),
            ("unicode", "wéb", false),
            ("homoglyph", "wеb", false),
            ("underscore", "web_db", false),
            ("space", "web db", false),
            ("nul", "web\0", false),
            ("reserved", "meshd", false),
            ("reserved", "admin", false),
            ("starts like a reserved one", "meshdash", true),
        ];
        for (name, text, ok) in cases {
            let got = text.parse::<ServiceName>();
            assert_eq!(got.is_ok(), *ok, "case: {name}: {got:?}");
            if let Ok(parsed) = got {
                assert_eq!(parsed.to_string(), *text, "round trip: {name}");
            }
        }
    }

    #[test]
    fn errors_say_found_and_expected() {
        let text = "Web".parse::<NodeName>().map_err(|e| e.to_string());
        let want =
            "node name \"Web\" has 'W' at byte 0, expected a-z and 0-9, with '-' only inside";
        assert_eq!(text, Err(want.to_owned()));
        let alike = "wеb".parse::<NodeName>().map_err(|e| e.to_string());
        assert!(alike.is_err_and(|text| text.contains("has 'е' (U+0435) at byte 1")));
    }
}
