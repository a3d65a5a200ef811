//! Requests of HTTP/1.1 in a row of bytes, as RFC 9112 has them and no other way.
//!
//! Stricter than the RFC wherever it leaves a choice: CRLF only, no folding, one framing, one
//! Content-Length of digits, and `chunked` as the only coding.

/// One request.
#[derive(Debug, Default)]
pub struct Request {
    /// Empty lines before it (RFC 9112 §2.2).
    pub blank: usize,
    pub method: String,
    pub target: String,
    /// Whether it is HTTP/1.1; else it is 1.0.
    pub one_one: bool,
    /// Names in lower case, in their order.
    pub fields: Vec<(String, Vec<u8>)>,
    /// What can be read of the body.
    pub body: Vec<u8>,
    /// Whether that is the whole of it.
    pub whole: bool,
}

impl Request {
    /// Every value of a field.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |(n, _)| n == name).map(|(_, value)| &value[..])
    }

    /// Whether the connection may go on after it.
    fn keeps(&self) -> bool {
        let values: Vec<&[u8]> = self.values("connection").collect();
        let says = |option: &str| {
            let mut tokens = values.iter().flat_map(|value| value.split(|b| *b == b','));
            tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
        };
        !says("close") && (self.one_one || says("keep-alive"))
    }
}

/// The requests that `bytes` begin with, up to the first that is none or not whole; and what
/// follows the last, if it could still be the beginning of one.
pub fn requests(mut bytes: &[u8]) -> (Vec<Request>, bool) {
    let mut found = Vec::new();
    loop {
        let mut blank = 0;
        while let Some(rest) = bytes.strip_prefix(b"\r\n") {
            (bytes, blank) = (rest, blank + 1);
        }
        if bytes.is_empty() {
            return (found, true);
        }
        let Some((mut request, rest)) = head(bytes) else { return (found, false) };
        let Some(framing) = framing(&request) else { return (found, false) };
        let (body, end) = match framing {
            Framing::Length(length) => {
                let here = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
                let whole = here as u64 == length;
                (rest[..here].to_vec(), whole.then(|| &rest[here..]))
            }
            Framing::Chunked => chunks(rest),
        };
        request.blank = blank;
        request.body = body;
        request.whole = end.is_some();
        let goes_on = request.keeps();
        found.push(request);
        match end {
            Some(rest) if goes_on => bytes = rest,
            _ => return (found, false),
        }
    }
}

enum Framing {
    Length(u64),
    Chunked,
}

/// A line without its CRLF, and what follows. No CR and no LF stands anywhere else.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|b| matches!(b, b'\r' | b'\n'))?;
    Some((&bytes[..end], bytes[end..].strip_prefix(b"\r\n")?))
}

fn head(bytes: &[u8]) -> Option<(Request, &[u8])> {
    let (first, rest) = line(bytes)?;
    let mut parts = first.split(|b| *b == b' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let visible = |b: &u8| (0x21..0x7f).contains(b) && *b != b'#';
    let sound = parts.next().is_none()
        && is_token(method)
        && !target.is_empty()
        && target.iter().all(visible);
    let one_one = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return None,
    };
    let (fields, rest) = fields(rest)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let (method, target) = (text(method)?, text(target)?);
    let request = Request { method, target, one_one, fields, ..Request::default() };
    sound.then_some((request, rest))
}

type Fields = Vec<(String, Vec<u8>)>;

/// Lines up to the blank one.
fn fields(mut bytes: &[u8]) -> Option<(Fields, &[u8])> {
    let mut fields = Vec::new();
    loop {
        let (text, rest) = line(bytes)?;
        bytes = rest;
        if text.is_empty() {
            return Some((fields, bytes));
        }
        let colon = text.iter().position(|b| *b == b':')?;
        let (name, value) = (&text[..colon], text[colon + 1..].trim_ascii());
        let plain = |b: &u8| *b == b'\t' || (*b >= 0x20 && *b != 0x7f);
        if !is_token(name) || !text[colon + 1..].iter().all(plain) {
            return None;
        }
        let name = String::from_utf8(name.to_ascii_lowercase()).ok()?;
        fields.push((name, value.to_vec()));
    }
}

fn is_token(text: &[u8]) -> bool {
    let tchar = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !text.is_empty() && text.iter().all(tchar)
}

fn framing(request: &Request) -> Option<Framing> {
    let lengths: Vec<&[u8]> = request.values("content-length").collect();
    let codings: Vec<&[u8]> = request.values("transfer-encoding").collect();
    match (&lengths[..], &codings[..]) {
        ([], []) => Some(Framing::Length(0)),
        ([length], []) => decimal(length).map(Framing::Length),
        ([], [coding]) if request.one_one && coding.eq_ignore_ascii_case(b"chunked") => {
            Some(Framing::Chunked)
        }
        _ => None,
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let add = |value: u64, digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    };
    (!digits.is_empty()).then(|| digits.iter().try_fold(0, add))?
}

/// What can be read of a chunked body, and what follows if it was all of it.
fn chunks(mut bytes: &[u8]) -> (Vec<u8>, Option<&[u8]>) {
    let mut body = Vec::new();
    loop {
        let Some((size, rest)) = size_line(bytes) else { return (body, None) };
        if size == 0 {
            return (body, fields(rest).map(|(_, rest)| rest));
        }
        let here = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
        body.extend_from_slice(&rest[..here]);
        match rest[here..].strip_prefix(b"\r\n") {
            Some(rest) if here as u64 == size => bytes = rest,
            _ => return (body, None),
        }
    }
}

fn size_line(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (text, rest) = line(bytes)?;
    let digits = text.iter().position(|b| *b == b';').unwrap_or(text.len());
    let (digits, extension) = text.split_at(digits);
    let plain = |b: &u8| *b == b'\t' || (0x20..0x7f).contains(b);
    let hex = digits.iter().all(u8::is_ascii_hexdigit) && (1..=15).contains(&digits.len());
    let digits = std::str::from_utf8(digits).ok()?;
    let size = u64::from_str_radix(digits, 16).ok()?;
    (hex && extension.iter().all(plain)).then_some((size, rest))
}
