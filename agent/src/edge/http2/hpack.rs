//! Fields as bytes (RFC 7541), on libraries: their tables and forms, our bounds.
//!
//! `loona-hpack` keeps the tables, but builds a new Huffman table for every string (tens of
//! microseconds each, so a hundred bytes would buy milliseconds), takes a change of its table's
//! size within a block, and knows no bound of what it decodes. So a block is looked through first:
//! what is not allowed ends there, and strings in Huffman's code are replaced by plain ones with
//! the tables of `octets`.
//!
//! What is sent uses the static table and literals only: on loopback bytes cost next to nothing,
//! a search through a dynamic table does, and a block stays the same on every connection.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use loona_hpack::encoder::encode_integer_into;
use octets::Octets;

use crate::edge::limits::{BLOCK_BYTES_MAX, TABLE_BYTES_MAX};

/// Reads blocks of fields, one after another.
pub(super) struct Decoder(loona_hpack::Decoder<'static>);

impl Decoder {
    pub(super) fn new() -> Self {
        let mut inner = loona_hpack::Decoder::new();
        inner.set_max_allowed_table_size(TABLE_BYTES_MAX);
        Self(inner)
    }

    /// Gives every field of `block` to `take`, in order.
    ///
    /// # Errors
    /// What is no block of fields: nothing can be read with these tables any more.
    pub(super) fn decode(
        &mut self, block: &[u8], mut take: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), &'static str> {
        let plain = plain(block)?;
        let decoded = self.0.decode_with_cb(&plain, |name, value| take(&name, &value));
        decoded.map_err(|_| "a field is in no table")
    }
}

/// A part of a block that is being looked through.
struct Reader<'a> {
    block: &'a [u8],
    at: usize,
    /// The block with plain strings, up to `copied`; empty as long as there were no others.
    plain: Vec<u8>,
    copied: usize,
}

/// `block` with every string in plain.
fn plain(block: &[u8]) -> Result<Cow<'_, [u8]>, &'static str> {
    let mut reader = Reader { block, at: 0, plain: Vec::new(), copied: 0 };
    let (mut fields, mut resized) = (0, 0);
    while let Some(&first) = block.get(reader.at) {
        if first & 0xe0 == 0x20 {
            resized += 1;
            // RFC 7541 §4.2: at the beginning, and twice if it shrank in between
            if fields > 0 || resized > 2 {
                return Err("the table's size changes within a block");
            }
            if reader.integer(5)? > TABLE_BYTES_MAX {
                return Err("the table's size is over what was agreed");
            }
            continue;
        }
        fields += 1;
        if first & 0x80 != 0 {
            reader.integer(7)?;
            continue;
        }
        let prefix = if first & 0x40 != 0 { 6 } else { 4 };
        if reader.integer(prefix)? == 0 {
            reader.string()?;
        }
        reader.string()?;
    }
    if fields == 0 && resized > 0 {
        return Err("a block ends with a change of the table's size");
    }
    if reader.copied == 0 {
        return Ok(Cow::Borrowed(block));
    }
    reader.copy(block.len());
    Ok(Cow::Owned(reader.plain))
}

impl Reader<'_> {
    /// An integer behind a prefix of so many bits (RFC 7541 §5.1).
    fn integer(&mut self, prefix: u32) -> Result<usize, &'static str> {
        const CUT: &str = "an integer ends within its block";
        let mask = (1_usize << prefix) - 1;
        let first = self.block.get(self.at).ok_or(CUT)?;
        self.at += 1;
        let mut value = usize::from(*first) & mask;
        if value < mask {
            return Ok(value);
        }
        for shift in [0, 7, 14] {
            let byte = self.block.get(self.at).ok_or(CUT)?;
            self.at += 1;
            value += (usize::from(*byte) & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("an integer is too large")
    }

    fn string(&mut self) -> Result<(), &'static str> {
        const CUT: &str = "a string ends within its block";
        let begin = self.at;
        let first = self.block.get(begin).ok_or(CUT)?;
        let len = self.integer(7)?;
        let coded = self.block.get(self.at..).and_then(|rest| rest.get(..len)).ok_or(CUT)?;
        self.at += len;
        if first & 0x80 != 0 {
            let decoded = Octets::with_slice(coded)
                .get_huffman_decoded_with_max_length(BLOCK_BYTES_MAX)
                .map_err(|_| "a string is not in Huffman's code")?;
            self.copy(begin);
            put_integer(&mut self.plain, decoded.len(), 7, 0);
            self.plain.extend_from_slice(&decoded);
            self.copied = self.at;
        }
        Ok(())
    }

    /// Copies what is plain already, up to `end`.
    fn copy(&mut self, end: usize) {
        if self.plain.is_empty() {
            self.plain.reserve(self.block.len() * 2);
        }
        self.plain.extend_from_slice(self.block.get(self.copied..end).unwrap_or_default());
    }
}

fn put_integer(out: &mut impl std::io::Write, value: usize, prefix: u8, first: u8) {
    let put = encode_integer_into(value, prefix, first, out);
    debug_assert!(put.is_ok(), "memory takes all");
}

/// Puts a field that stands in the static table as a whole.
pub(super) fn put_indexed(out: &mut BytesMut, index: u8) {
    out.put_u8(0x80 | index);
}

/// Puts a field whose name has this index in the static table, in no table itself.
pub(super) fn put_named(out: &mut BytesMut, index: u8, value: &[u8]) {
    put_integer(&mut out.writer(), index.into(), 4, 0);
    put_string(out, value);
}

/// Puts a field. One that is `secret` nobody further on may keep in a table (RFC 7541 §7.1.3).
pub(super) fn put_field(out: &mut BytesMut, name: &str, value: &[u8], secret: bool) {
    let form = if secret { 0x10 } else { 0 };
    match static_name(name) {
        Some(index) => put_integer(&mut out.writer(), index.into(), 4, form),
        None => {
            out.put_u8(form);
            put_string(out, name.as_bytes());
        }
    }
    put_string(out, value);
}

fn put_string(out: &mut BytesMut, text: &[u8]) {
    put_integer(&mut out.writer(), text.len(), 7, 0);
    out.put_slice(text);
}

/// Where a name stands in the static table (RFC 7541, appendix A).
fn static_name(name: &str) -> Option<u8> {
    Some(match name {
        "accept" => 19,
        "accept-charset" => 15,
        "accept-encoding" => 16,
        "accept-language" => 17,
        "accept-ranges" => 18,
        "access-control-allow-origin" => 20,
        "age" => 21,
        "allow" => 22,
        "authorization" => 23,
        "cache-control" => 24,
        "content-disposition" => 25,
        "content-encoding" => 26,
        "content-language" => 27,
        "content-length" => 28,
        "content-location" => 29,
        "content-range" => 30,
        "content-type" => 31,
        "cookie" => 32,
        "date" => 33,
        "etag" => 34,
        "expect" => 35,
        "expires" => 36,
        "from" => 37,
        "if-match" => 39,
        "if-modified-since" => 40,
        "if-none-match" => 41,
        "if-range" => 42,
        "if-unmodified-since" => 43,
        "last-modified" => 44,
        "link" => 45,
        "location" => 46,
        "max-forwards" => 47,
        "range" => 50,
        "referer" => 51,
        "retry-after" => 53,
        "server" => 54,
        "set-cookie" => 55,
        "strict-transport-security" => 56,
        "user-agent" => 58,
        "vary" => 59,
        "via" => 60,
        "www-authenticate" => 61,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
