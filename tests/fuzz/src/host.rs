//! The canonical form of a host, as `mesh_core::path` describes it.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The canonical name and the port; none if the host is refused.
pub fn canonical(host: &str) -> Option<(String, Option<u16>)> {
    if host.len() > 255 || !host.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    // behind a bracket only a port may stand; otherwise the first colon begins one
    let end = match host.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = (&host[..end], &host[end..]);
    let port = if port.is_empty() { None } else { Some(number(port.strip_prefix(':')?)?) };
    if let Some(address) = name.strip_prefix('[') {
        let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
        return Some((format!("[{address}]"), port));
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_lowercase();
    if !name.split('.').all(is_label) {
        return None;
    }
    if looks_numeric(name.split('.').next_back()?) {
        let address: Ipv4Addr = name.parse().ok()?;
        return Some((address.to_string(), port));
    }
    Some((name, port))
}

/// 1 to 65535, with any zeros before it.
fn number(digits: &str) -> Option<u16> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_start_matches('0');
    let value =
        if significant.len() > 5 { return None } else { significant.parse::<u32>().ok()? };
    u16::try_from(value).ok().filter(|port| *port > 0)
}

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let inner = bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    inner && (1..=63).contains(&bytes.len()) && bytes[0] != b'-' && bytes[bytes.len() - 1] != b'-'
}

/// Whether a name that ends in this label is an IPv4 address to readers of URLs.
fn looks_numeric(label: &str) -> bool {
    let (digits, hex) = match label.strip_prefix("0x") {
        Some(rest) => (rest, true),
        None => (label, false),
    };
    digits.chars().all(|c| if hex { c.is_ascii_hexdigit() } else { c.is_ascii_digit() })
}
