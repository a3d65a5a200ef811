//! [`Output`]: the frames of one turn, which leave in one write.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use super::frame::put_data;
use crate::edge::limits::{SLICED_LEAST, SLICES_MAX, WINDOW_GATHERED_MAX};

/// What is to be written, in order: large data lies where it came from, the rest is gathered.
#[derive(Debug, Default)]
pub(super) struct Output {
    parts: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

/// Bytes first made room for.
const ROOM: usize = 2 << 10;

impl Output {
    /// Has `put` add what is copied.
    pub(super) fn put<T>(&mut self, put: impl FnOnce(&mut BytesMut) -> T) -> T {
        if self.tail.capacity() == 0 {
            self.tail.reserve(ROOM);
        }
        let before = self.tail.len();
        let result = put(&mut self.tail);
        self.len += self.tail.len() - before;
        result
    }

    /// Adds a DATA frame.
    pub(super) fn data(&mut self, stream: u32, data: Bytes, end: bool) {
        self.put(|out| put_data(out, stream, data.len(), end));
        if data.len() < SLICED_LEAST {
            self.put(|out| out.extend_from_slice(&data));
        } else {
            self.parts.push_back(self.tail.split().freeze());
            self.len += data.len();
            self.parts.push_back(data);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether data waits for a write before more is added.
    pub(super) fn is_full(&self) -> bool {
        self.len >= WINDOW_GATHERED_MAX
    }

    /// The first parts.
    pub(super) fn slices(&self) -> ([IoSlice<'_>; SLICES_MAX], usize) {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let parts = self.parts.iter().map(Bytes::as_ref).chain([self.tail.as_ref()]);
        let mut count = 0;
        for (slot, part) in slices.iter_mut().zip(parts.filter(|part| !part.is_empty())) {
            *slot = IoSlice::new(part);
            count += 1;
        }
        (slices, count)
    }

    /// Forgets the first `len` bytes, which were written.
    pub(super) fn advance(&mut self, mut len: usize) {
        self.len = self.len.saturating_sub(len);
        while let Some(first) = self.parts.front_mut() {
            let part = len.min(first.len());
            first.advance(part);
            len -= part;
            if !first.is_empty() {
                return;
            }
            self.parts.pop_front();
        }
        self.tail.advance(len.min(self.tail.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What would be written, in parts of at most `step` bytes.
    fn written(mut output: Output, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !output.is_empty() {
            let (slices, count) = output.slices();
            let bytes: Vec<u8> = slices[..count].iter().flat_map(|part| part.to_vec()).collect();
            let part = &bytes[..step.min(bytes.len())];
            all.extend_from_slice(part);
            let len = part.len();
            output.advance(len);
        }
        all
    }

    #[test]
    fn frames_leave_in_order_however_they_are_cut() {
        let fill = || {
            let mut output = Output::default();
            output.put(|out| out.extend_from_slice(b"head"));
            output.data(1, Bytes::from(vec![b'a'; SLICED_LEAST]), false);
            output.data(3, Bytes::from_static(b"small"), true);
            for _ in 0..SLICES_MAX {
                output.data(5, Bytes::from(vec![b'b'; SLICED_LEAST]), false);
            }
            output
        };
        let large = SLICED_LEAST;
        let len = 4 + 9 + large + 9 + 5 + SLICES_MAX * (9 + large);
        assert_eq!(fill().len(), len);
        let whole = written(fill(), usize::MAX);
        assert_eq!(whole.len(), len);
        assert_eq!(&whole[..13], b"head\x00\x10\x00\x00\x00\x00\x00\x00\x01");
        assert_eq!(&whole[13 + large..][..14], b"\x00\x00\x05\x00\x01\x00\x00\x00\x03small");
        for step in [1_001, 4096, 100_000] {
            assert_eq!(written(fill(), step), whole, "{step}");
        }
    }

    #[test]
    fn large_data_stays_where_it_lies() {
        let data = Bytes::from(vec![0; SLICED_LEAST]);
        let at = data.as_ptr();
        let mut output = Output::default();
        output.data(1, data, false);
        let (slices, _) = output.slices();
        assert_eq!(slices[1].as_ptr(), at);
    }
}
