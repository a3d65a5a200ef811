//! The one canonical form of a request path and of a host name.
//!
//! Routing, access, logs and forwarding all see the result of [`canonical`] and
//! [`canonical_host`], and nothing else: a request whose target could mean two things to two
//! readers is refused, never guessed at. Both functions are idempotent.
//!
//! What [`canonical`] does, in this order:
//! 1. Refuses what has no single reading: raw bytes outside visible ASCII, `\`, `#`, `?`, `;`; the
//!    escapes of `/`, `\`, `;` and of control characters; broken escapes; escapes that are not
//!    UTF-8 (overlong forms and surrogates too).
//! 2. Gives every character one spelling, since most applications decode a path before they look
//!    at it, and a rule on `/a@b` must not be passed as `/a%40b`. What may stand in a segment
//!    (`pchar` of RFC 3986 §3.3: letters, digits and `-._~!$&'()*,=:@`) stands bare, all else is an
//!    escape in upper case. So is `+`: bare it is a space to applications that decode a path as
//!    they would a form, and `%2B` is a plus to everyone. Unicode forms (NFC, NFD) stay as they
//!    came.
//! 3. Refuses double encoding: `%25` before two hex digits that would be an escape of `.`, `/`,
//!    `\`, `;`, `%` or of a control character. Any other `%25`, as in `/100%25` or `/a%2520b`,
//!    is data.
//! 4. Merges slashes, then resolves dot segments (RFC 3986 §5.2.4): `/a//../b` is `/b`. A path
//!    that climbs above the root is refused, not clamped. A last slash stays.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

/// The longest path, before and after, in bytes.
pub const PATH_LEN_MAX: usize = 8 << 10;
/// The longest host, with its port, in bytes.
pub const HOST_LEN_MAX: usize = 255;

/// Why a path has no canonical form. Offsets are bytes of the path as it came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Longer than [`PATH_LEN_MAX`], as it came or once canonical.
    #[error("path has {len} bytes, expected 1 to {PATH_LEN_MAX}")]
    Length {
        /// Bytes found.
        len: usize,
    },
    /// Does not start with a slash.
    #[error("path does not start with '/'")]
    Relative,
    /// A byte that no path may hold.
    #[error("path has {:?} at byte {at}, which is refused in paths", char::from(*found))]
    Byte {
        /// The byte found.
        found: u8,
        /// Where.
        at: usize,
    },
    /// A `%` without two hex digits.
    #[error("path has '%' without two hex digits at byte {at}")]
    Escape {
        /// Where.
        at: usize,
    },
    /// An escape of a byte that is refused.
    #[error("path has '%{found:02X}' at byte {at}, which is refused in paths")]
    Escaped {
        /// The byte escaped.
        found: u8,
        /// Where.
        at: usize,
    },
    /// The escapes do not decode to UTF-8, or to a control character.
    #[error("path has escapes that are not UTF-8 text")]
    NotText,
    /// An escape within an escape.
    #[error("path is encoded twice: {0:?}")]
    Twice(String),
    /// A `..` at the root.
    #[error("path climbs above its root by '..'")]
    AboveRoot,
}

/// The canonical form of `path`: the path of a request target, without its query.
///
/// The `*` of OPTIONS is not a path; callers handle it. See the module for the rules.
///
/// # Errors
/// [`PathError`]: the request must be refused.
pub fn canonical(path: &str) -> Result<String, PathError> {
    if path.is_empty() || path.len() > PATH_LEN_MAX {
        return Err(PathError::Length { len: path.len() });
    }
    if !path.starts_with('/') {
        return Err(PathError::Relative);
    }
    let decoded = decode(path.as_bytes())?;
    refuse_double_encoding(&decoded)?;
    let resolved = resolve(&decoded)?;
    if resolved.len() > PATH_LEN_MAX {
        return Err(PathError::Length { len: resolved.len() });
    }
    Ok(resolved)
}

/// Normalises each byte and escape; the result is ASCII.
fn decode(path: &[u8]) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len());
    let mut meaning = Vec::new(); // every byte decoded; empty while no escape is above ASCII
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        if byte != b'%' {
            if !byte.is_ascii_graphic() || b"\\#?;".contains(&byte) {
                return Err(PathError::Byte { found: byte, at });
            }
            push(&mut out, byte);
            if !meaning.is_empty() {
                meaning.push(byte);
            }
            at += 1;
            continue;
        }
        let found = escape_at(path, at).ok_or(PathError::Escape { at })?;
        if found.is_ascii_control() || matches!(found, b'/' | b'\\' | b';') {
            return Err(PathError::Escaped { found, at });
        }
        if !found.is_ascii() || !meaning.is_empty() {
            meaning.push(found);
        }
        push(&mut out, found);
        at += 3;
    }
    match std::str::from_utf8(&meaning) {
        Ok(text) if !text.contains(char::is_control) => Ok(out),
        Ok(_) | Err(_) => Err(PathError::NotText),
    }
}

/// Appends the one spelling of `byte`.
fn push(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if bare(byte) {
        return out.push(char::from(byte));
    }
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

/// The byte that the escape at `at` stands for.
fn escape_at(path: &[u8], at: usize) -> Option<u8> {
    hex_pair(path.get(at + 1..at + 3)?)
}

fn hex_pair(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(*high)? << 4 | digit(*low)?)
}

/// Whether `byte` stands for itself in a canonical path; all others are escaped or refused.
fn bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*,=:@/".contains(&byte)
}

/// Looks at the normalised text, so that `%25%32%65` is found as well as `%252e`.
fn refuse_double_encoding(decoded: &str) -> Result<(), PathError> {
    for (at, found) in decoded.match_indices("%25") {
        let inner = decoded.as_bytes().get(at + 3..at + 5).and_then(hex_pair);
        let dangerous = inner.is_some_and(|byte| {
            byte.is_ascii_control() || matches!(byte, b'.' | b'/' | b'\\' | b';' | b'%')
        });
        if dangerous {
            let text = decoded.get(at..at + 5).unwrap_or(found);
            return Err(PathError::Twice(text.to_owned()));
        }
    }
    Ok(())
}

/// Merges slashes and resolves dot segments of a path that starts with a slash.
fn resolve(decoded: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(decoded.len());
    let mut folder = true; // whether the path, as read so far, ends in a slash
    for segment in decoded.split('/') {
        folder = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                let parent = out.rfind('/').ok_or(PathError::AboveRoot)?;
                out.truncate(parent);
            }
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    if folder {
        out.push('/');
    }
    Ok(out)
}

/// Why a host has no canonical form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Empty or longer than [`HOST_LEN_MAX`].
    #[error("host has {len} bytes, expected 1 to {HOST_LEN_MAX}")]
    Length {
        /// Bytes found.
        len: usize,
    },
    /// A user name or password stands before the host.
    #[error("host {0:?} has user information, expected none")]
    UserInfo(String),
    /// What follows the last colon is no port.
    #[error("host {0:?} has an invalid port, expected 1 to 65535")]
    Port(String),
    /// A label that is empty, too long, or has a byte outside `[a-zA-Z0-9-]`.
    #[error("host {0:?} is not a DNS name or an IP address")]
    Name(String),
    /// Looks like an IP address, but not in the one form all readers agree on.
    #[error("host {0:?} is not an IP address in its normal form")]
    Address(String),
}

/// The canonical form of `host`, as it stands in `Host` or `:authority`: lower case, without port
/// and without one trailing dot.
///
/// IPv4 addresses must be four plain decimals; IPv6 addresses stand in brackets, before and
/// after, and come out in their shortest form.
///
/// # Errors
/// [`HostError`]: the request must be refused.
pub fn canonical_host(host: &str) -> Result<String, HostError> {
    host_and_port(host).map(|(name, _)| name)
}

/// [`canonical_host`], and the port that stands beside it.
///
/// # Errors
/// [`HostError`]: the request must be refused.
pub fn host_and_port(host: &str) -> Result<(String, Option<NonZeroU16>), HostError> {
    if host.is_empty() || host.len() > HOST_LEN_MAX {
        return Err(HostError::Length { len: host.len() });
    }
    if host.contains('@') {
        return Err(HostError::UserInfo(host.to_owned()));
    }
    if let Some(rest) = host.strip_prefix('[') {
        let wrong = || HostError::Address(host.to_owned());
        let (address, port) = rest.split_once(']').ok_or_else(wrong)?;
        let port = port_of(host, port)?;
        let address: Ipv6Addr = address.parse().map_err(|_| wrong())?;
        return Ok((format!("[{address}]"), port));
    }
    let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
    let port = port_of(host, port)?;
    Ok((canonical_name(host, name.strip_suffix('.').unwrap_or(name))?, port))
}

/// `text` is empty, or a colon and a port number.
fn port_of(host: &str, text: &str) -> Result<Option<NonZeroU16>, HostError> {
    let number = match text.strip_prefix(':') {
        None if text.is_empty() => return Ok(None),
        None => return Err(HostError::Address(host.to_owned())),
        Some(number) => number,
    };
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    match number.parse() {
        Ok(port) if digits => Ok(Some(port)),
        Ok(_) | Err(_) => Err(HostError::Port(host.to_owned())),
    }
}

fn canonical_name(host: &str, name: &str) -> Result<String, HostError> {
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let ends = label.starts_with('-') || label.ends_with('-');
        inner && !ends && (1..=63).contains(&label.len())
    };
    if !name.split('.').all(label) {
        return Err(HostError::Name(host.to_owned()));
    }
    let name = name.to_ascii_lowercase();
    // WHATWG URL "ends in a number": many readers take 127.1, 0x7f.1 or 2130706433 for addresses.
    let last = name.rsplit('.').next().unwrap_or(&name);
    let decimal = last.bytes().all(|b| b.is_ascii_digit());
    let hex = last.strip_prefix("0x").is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
    if (decimal || hex) && name.parse::<Ipv4Addr>().is_err() {
        return Err(HostError::Address(host.to_owned()));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
