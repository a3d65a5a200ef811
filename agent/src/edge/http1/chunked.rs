//! The chunked coding (RFC 9112 §7.1), read by a state machine that takes one spelling only.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::edge::limits::{CHUNK_LINE_MAX, CHUNK_LINES_MAX, HEADERS_MAX, TRAILERS_BYTES_MAX};
use crate::edge::trailers;

/// Where a chunked body is read.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    /// Bytes of size lines beyond what the data warrants.
    lines: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a size line.
    Size,
    /// Within a chunk, with bytes still to come.
    Data(u64),
    /// Before the CRLF behind a chunk.
    DataEnd,
    /// After the last chunk.
    Trailers,
    /// After all of it.
    End,
}

/// What a step gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Bytes are wanted.
    More,
    /// Data.
    Data(Bytes),
    /// The trailers that may be forwarded, if there were any; nothing follows.
    End(Option<HeaderMap>),
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self { state: State::Size, lines: 0 }
    }

    /// Takes what it can from `input`.
    ///
    /// # Errors
    /// What is no chunked body; nothing more can be read then.
    pub(super) fn step(&mut self, input: &mut BytesMut) -> Result<Step, &'static str> {
        loop {
            match self.state {
                State::Size => match self.size(input)? {
                    None => return Ok(Step::More),
                    Some(0) => self.state = State::Trailers,
                    Some(len) => self.state = State::Data(len),
                },
                State::Data(_) if input.is_empty() => return Ok(Step::More),
                State::Data(left) => {
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let left = left - len as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Step::Data(input.split_to(len).freeze()));
                }
                State::DataEnd => match input.get(..2) {
                    None if input.first().is_some_and(|b| *b != b'\r') => {
                        return Err("a chunk is longer than its size");
                    }
                    None => return Ok(Step::More),
                    Some(b"\r\n") => {
                        input.advance(2);
                        self.state = State::Size;
                    }
                    Some(_) => return Err("a chunk is longer than its size"),
                },
                State::Trailers => return self.trailers(input),
                State::End => return Ok(Step::End(None)),
            }
        }
    }

    /// A size line: hexadecimal digits, and perhaps an extension, which is dropped.
    fn size(&mut self, input: &mut BytesMut) -> Result<Option<u64>, &'static str> {
        let window = input.get(..CHUNK_LINE_MAX).unwrap_or(input);
        let Some(lf) = window.iter().position(|b| *b == b'\n') else {
            return if window.len() < CHUNK_LINE_MAX { Ok(None) } else { Err(LONG_LINE) };
        };
        let line = window.get(..lf).and_then(|line| line.strip_suffix(b"\r"));
        let line = line.ok_or("a chunk's size line does not end in CRLF")?;
        let digits = line.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(line.len());
        let (digits, extension) = line.split_at(digits);
        let plain = |b: &u8| *b == b'\t' || (b' '..=b'~').contains(b);
        let extension_ok = extension.is_empty()
            || (extension.first() == Some(&b';') && extension.iter().all(plain));
        if digits.is_empty() || digits.len() > 15 || !extension_ok {
            return Err("a chunk's size is no hexadecimal number");
        }
        let text = std::str::from_utf8(digits).map_err(|_| "a chunk's size is no number")?;
        let size = u64::from_str_radix(text, 16).map_err(|_| "a chunk's size is no number")?;
        // what a sender of chunks of 64 bytes would need is free
        let free = usize::try_from(size / 64).unwrap_or(usize::MAX).saturating_mul(4);
        self.lines = (self.lines + lf + 1).saturating_sub(free.saturating_add(4));
        if self.lines > CHUNK_LINES_MAX {
            return Err("chunks are too small, or their extensions too large");
        }
        input.advance(lf + 1);
        Ok(Some(size))
    }

    fn trailers(&mut self, input: &mut BytesMut) -> Result<Step, &'static str> {
        if input.starts_with(b"\r\n") {
            input.advance(2);
            self.state = State::End;
            return Ok(Step::End(None));
        }
        let window = input.get(..TRAILERS_BYTES_MAX).unwrap_or(input);
        let end = window.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        let whole = end.and_then(|end| window.get(..end)).unwrap_or(window);
        let bare = |two: &[u8]| two.last() == Some(&b'\n') && two.first() != Some(&b'\r');
        if whole.first() == Some(&b'\n') || whole.windows(2).any(bare) {
            return Err("a line of the trailers ends in LF without CR");
        }
        let Some(end) = end else {
            let room = window.len() < TRAILERS_BYTES_MAX;
            return if room { Ok(Step::More) } else { Err("trailers are too large") };
        };
        let trailers = forwarded(whole)?;
        input.advance(end);
        self.state = State::End;
        Ok(Step::End(trailers))
    }
}

const LONG_LINE: &str = "a chunk's size line is too long";

/// The trailers that may be forwarded.
fn forwarded(bytes: &[u8]) -> Result<Option<HeaderMap>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let fields = match httparse::parse_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => fields,
        Ok(httparse::Status::Partial) | Err(_) => return Err("trailers are no header fields"),
    };
    let mut found = HeaderMap::new();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let name = name.map_err(|_| "a trailer's name is no token")?;
        let value = HeaderValue::from_bytes(field.value);
        let value = value.map_err(|_| "a trailer's value has a control character")?;
        found.append(name, value);
    }
    Ok(trailers::forwarded(found))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use proptest::prelude::*;

    use super::*;

    /// All that `bytes` hold, given in parts that end at `cuts`.
    fn read(bytes: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Option<HeaderMap>, usize), String> {
        let mut chunked = Chunked::new();
        let (mut input, mut data) = (BytesMut::new(), Vec::new());
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let mut at = 0;
        for end in ends {
            input.extend_from_slice(&bytes[at..end]);
            at = end;
            loop {
                match chunked.step(&mut input)? {
                    Step::More => break,
                    Step::Data(part) => data.extend_from_slice(&part),
                    Step::End(trailers) => {
                        let left = input.len() + bytes.len() - at;
                        return Ok((data, trailers, left));
                    }
                }
            }
        }
        Err("incomplete".to_owned())
    }

    #[test]
    fn chunks_become_bytes() {
        let text = b"5\r\nhello\r\n0a;x=y\r\n, 12345678\r\n0\r\nX-Sum: 7\r\nHost: evil\r\n\r\nGET";
        let (data, trailers, left) = read(text, &[]).unwrap();
        assert_eq!(data, b"hello, 12345678");
        let trailers = trailers.unwrap();
        assert_eq!((trailers.len(), &trailers["x-sum"], left), (1, &"7".parse().unwrap(), 3));
        assert_eq!(read(b"0\r\n\r\n", &[]).unwrap(), (Vec::new(), None, 0));
    }

    #[test]
    fn b_smug_other_spellings_of_chunks_are_refused() {
        let cases: &[&[u8]] = &[
            b"0x1\r\na\r\n0\r\n\r\n",
            b"+1\r\na\r\n0\r\n\r\n",
            b" 1\r\na\r\n0\r\n\r\n",
            b"1 \r\na\r\n0\r\n\r\n",
            b"1\na\r\n0\r\n\r\n",
            b"1\r\na\n0\r\n\r\n",
            b"1\r\nab\r\n0\r\n\r\n",
            b"2\r\na\r\n0\r\n\r\n",
            b"\r\na\r\n0\r\n\r\n",
            b"1,2\r\na\r\n0\r\n\r\n",
            b"1;\x00\r\na\r\n0\r\n\r\n",
            b"1;a\rb\r\na\r\n0\r\n\r\n",
            b"1\r\r\na\r\n0\r\n\r\n",
            b"1000000000000000\r\na",
            b"ffffffffffffffff\r\na",
            b"g\r\n",
            b"-1\r\n",
            b"0\r\n\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\n A: b\r\n\r\n",
            b"0\r\nA\r\n\r\n",
            b"0\r\nA : b\r\n\r\n",
        ];
        for bytes in cases {
            let text = String::from_utf8_lossy(bytes);
            let got = read(bytes, &[]);
            assert!(got.as_ref().is_err_and(|why| why != "incomplete"), "{text:?}: {got:?}");
        }
    }

    #[test]
    fn cve_2023_39326_extensions_are_bounded() {
        let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(CHUNK_LINE_MAX));
        assert!(read(long.as_bytes(), &[]).is_err());
        let one = format!("1;{}\r\na\r\n", "x".repeat(200));
        let many = one.repeat(1_000) + "0\r\n\r\n";
        assert!(read(many.as_bytes(), &[]).is_err());
        let fair = format!("{:x}\r\n{}\r\n", 64, "x".repeat(64)).repeat(100_000) + "0\r\n\r\n";
        assert!(read(fair.as_bytes(), &[]).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_read_does_not_depend_on_how_it_arrives(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            trailer in any::<bool>(),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let mut bytes = Vec::new();
            for chunk in &chunks {
                bytes.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(if trailer { b"0\r\nA: b\r\n\r\nrest" } else { b"0\r\n\r\nrest" });
            let (data, trailers, left) = read(&bytes, &cuts).unwrap();
            prop_assert_eq!(data, chunks.concat());
            prop_assert_eq!((trailers.is_some(), left), (trailer, 4));
        }

        #[test]
        fn no_bytes_make_it_panic_or_depend_on_their_cuts(
            bytes in prop::collection::vec(prop::sample::select(b"0123aF\r\n;:x \0".to_vec()), 0..60),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let (whole, parts) = (read(&bytes, &[]), read(&bytes, &cuts));
            prop_assert_eq!(whole.is_ok(), parts.is_ok());
            if let (Ok(whole), Ok(parts)) = (whole, parts) {
                prop_assert_eq!(whole, parts);
            }
        }
    }
}
