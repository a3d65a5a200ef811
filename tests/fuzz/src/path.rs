//! The canonical form of a path, as docs/policy.md and `mesh_core::path` describe it.

/// The canonical form; none if the path is refused.
pub fn canonical(path: &str) -> Option<String> {
    if path.len() > 8192 || !path.starts_with('/') {
        return None;
    }
    let decoded = decode(path.as_bytes())?;
    if std::str::from_utf8(&decoded).ok()?.chars().any(char::is_control) || is_twice(&decoded) {
        return None;
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut folder = false;
    for segment in decoded.split(|b| *b == b'/').skip(1) {
        folder = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => drop(kept.pop()?),
            _ => kept.push(segment),
        }
    }
    let mut out: String = kept.iter().map(|segment| format!("/{}", encode(segment))).collect();
    if folder {
        out.push('/');
    }
    (out.len() <= 8192).then_some(out)
}

/// Every escape as its byte. A slash stands only between segments: its escape is refused.
fn decode(mut path: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        match path {
            [] => return Some(out),
            [b'%', high, low, rest @ ..] => {
                let byte = pair(*high, *low)?;
                if control(byte) || b"/\\;".contains(&byte) {
                    return None;
                }
                out.push(byte);
                path = rest;
            }
            [b'%', ..] => return None,
            [byte, rest @ ..] => {
                if !(0x21..0x7f).contains(byte) || b"\\;#?".contains(byte) {
                    return None;
                }
                out.push(*byte);
                path = rest;
            }
        }
    }
}

/// Whether what was decoded holds an escape that would mean something if it were decoded again.
fn is_twice(decoded: &[u8]) -> bool {
    decoded.windows(3).any(|three| {
        let inner = if three[0] == b'%' { pair(three[1], three[2]) } else { None };
        inner.is_some_and(|byte| control(byte) || b"./\\;%".contains(&byte))
    })
}

fn encode(segment: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(*byte).to_string(),
        _ if b"-._~!$&'()*,=:@".contains(byte) => char::from(*byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    segment.iter().map(one).collect()
}

fn pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    Some(digit(high)? * 16 + digit(low)?)
}

fn control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}
