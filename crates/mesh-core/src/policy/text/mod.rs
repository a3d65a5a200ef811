//! The text of policy: TOML in, [`PolicyObject`]s out, and back.
//!
//! [`parse`] looks at one file, [`check()`] at all files together; an apply needs both. [`print()`]
//! writes objects so that [`parse`] gives the same ones, but for where they stand.

mod check;
mod matches;
mod print;
mod rule;
mod service;

use super::{PolicyFile, PolicyObject};
use crate::tomltext::{Keys, Table, Walk, from_bytes};

pub use crate::tomltext::Diagnostic;
pub use check::check;
pub use print::print;
pub use rule::content_name;

const TOP: Keys = Keys { known: &["service", "allow", "deny"], later: &["limit", "defaults"] };

/// Reads the policy file `name`.
///
/// What needs more than one object (ids that stand twice, routes to subsets that do not exist) is
/// left to [`check()`].
///
/// # Errors
/// All that is wrong, at most [`DIAGNOSTICS_MAX`](crate::limits::DIAGNOSTICS_MAX) diagnostics in
/// the order of the text.
pub fn parse(name: &str, text: &str) -> Result<PolicyFile, Vec<Diagnostic>> {
    let objects = Walk::read(name, text, objects)?;
    Ok(PolicyFile { name: name.to_owned(), text: text.to_owned(), objects })
}

/// [`parse`], of bytes that may not be UTF-8.
///
/// # Errors
/// As [`parse`], and if `bytes` are not UTF-8.
pub fn parse_bytes(name: &str, bytes: &[u8]) -> Result<PolicyFile, Vec<Diagnostic>> {
    from_bytes(name, bytes, parse)
}

/// The objects of a file, in the order of the text.
fn objects(walk: &mut Walk<'_>, root: &Table<'_, '_>) -> Vec<PolicyObject> {
    let mut found = Vec::new();
    for (key, span, value) in root.iter() {
        match key {
            "service" => service::services(walk, value, &mut found),
            "allow" | "deny" => rule::rules(walk, key, value, &mut found),
            "instance" => {
                let message = "instance tables belong in a host's services.d file, not in policy";
                let hint = "move them to a file in /etc/mesh/services.d on the host";
                walk.error_with_hint(span, message.to_owned(), Some(hint.to_owned()));
            }
            _ => walk.unknown(key, span, &TOP),
        }
    }
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, object)| object).collect()
}

/// An object and the byte at which it starts.
type Placed = (usize, PolicyObject);

#[cfg(test)]
mod tests;
