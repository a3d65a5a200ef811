//! [`Diagnostic`]: an error in a text, with its place and an excerpt.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// An error in a file, with its place.
///
/// Prints as `orders.toml:3:1: unknown key ...`, then the line with a caret below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diagnostic {
    /// The file's name, as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
    /// The source line; of a line over 200 characters, the part around the column.
    pub excerpt: String,
    /// Characters of `excerpt` before the place.
    pub indent: u32,
    /// Characters that are wrong, at least 1.
    pub width: u32,
    /// What was found and what is expected.
    pub message: String,
    /// What could help.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A diagnostic about the bytes `span` of `text`, the file `file`, cut to the line where it
    /// starts.
    pub fn at(file: &str, text: &str, span: Range<usize>, message: String) -> Self {
        Lines::new(file, text).diagnostic(span, message, None)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, .. } = self;
        writeln!(f, "{file}:{line}:{column}: {message}")?;
        // A control character could move the terminal's cursor, a tab the caret.
        let plain = |c: char| match c {
            '\t' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        };
        let excerpt: String = self.excerpt.chars().map(plain).collect();
        let (indent, width) = (self.indent as usize, self.width as usize);
        writeln!(f, "    {excerpt}")?;
        write!(f, "    {:indent$}{:^<width$}", "", "")?;
        match &self.hint {
            Some(hint) => write!(f, "\n    hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// A text, with where its lines start.
pub(super) struct Lines<'t> {
    file: &'t str,
    text: &'t str,
    starts: Vec<usize>,
}

const EXCERPT_CHARS_MAX: usize = 200;
const EXCERPT_CHARS_BEFORE: usize = 60;
const MESSAGE_CHARS_MAX: usize = 600;

impl<'t> Lines<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        let breaks = text.bytes().enumerate().filter(|&(_, b)| b == b'\n').map(|(at, _)| at + 1);
        Self { file, text, starts: std::iter::once(0).chain(breaks).collect() }
    }

    /// The line of the byte offset `at`, from 1.
    pub(super) fn line_at(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    /// The text of `line`, from 1, without its end; empty if there is none.
    pub(super) fn line(&self, line: usize) -> &'t str {
        let Some(start) = line.checked_sub(1).and_then(|at| self.starts.get(at)) else { return "" };
        let end = self.starts.get(line).copied().unwrap_or(self.text.len());
        let text = self.text.get(*start..end).unwrap_or("");
        text.trim_end_matches('\n').trim_end_matches('\r')
    }

    /// How many lines there are, at least 1.
    pub(super) fn count(&self) -> usize {
        self.starts.len()
    }

    /// The text from the byte offset `at`; empty beyond its end, or within a character.
    pub(super) fn rest(&self, at: usize) -> &'t str {
        self.text.get(at..).unwrap_or("")
    }

    /// The span of `line`, from 1, without what is blank behind it.
    pub(super) fn span_of(&self, line: usize) -> Range<usize> {
        let at = line.checked_sub(1).and_then(|at| self.starts.get(at)).copied().unwrap_or(0);
        at..at + self.line(line).trim_end().len()
    }

    /// The text of a span; empty if the span is not of this text.
    pub(super) fn span(&self, span: &Range<usize>) -> &'t str {
        self.text.get(span.clone()).unwrap_or("")
    }

    /// A diagnostic about `span`, cut to the line where it starts.
    pub(super) fn diagnostic(
        &self, span: Range<usize>, message: String, hint: Option<String>,
    ) -> Diagnostic {
        let line = self.line_at(span.start);
        let start = line.checked_sub(1).and_then(|at| self.starts.get(at)).copied().unwrap_or(0);
        let text = self.line(line);
        let within = |at: usize| {
            let bytes = at.saturating_sub(start).min(text.len());
            text.char_indices().take_while(|(at, _)| *at < bytes).count()
        };
        let (from, to) = (within(span.start), within(span.end));
        let chars = text.chars().count();
        let skip =
            if chars > EXCERPT_CHARS_MAX { from.saturating_sub(EXCERPT_CHARS_BEFORE) } else { 0 };
        let excerpt: String = text.chars().skip(skip).take(EXCERPT_CHARS_MAX).collect();
        let indent = from - skip;
        let room = EXCERPT_CHARS_MAX.saturating_sub(indent);
        Diagnostic {
            file: self.file.to_owned(),
            line: to_u32(line),
            column: to_u32(from + 1),
            excerpt,
            indent: to_u32(indent),
            width: to_u32(to.saturating_sub(from).clamp(1, room.max(1))),
            message: clip(message, MESSAGE_CHARS_MAX),
            hint: hint.map(|hint| clip(hint, MESSAGE_CHARS_MAX)),
        }
    }

    /// A diagnostic about the whole of `line`, from 1.
    pub(super) fn about_line(&self, line: u32, message: String) -> Diagnostic {
        self.diagnostic(self.span_of(line as usize), message, None)
    }
}

impl Diagnostic {
    /// A diagnostic about the whole of `line`, from 1, of `text`.
    pub(crate) fn about_line(file: &str, text: &str, line: u32, message: String) -> Self {
        Lines::new(file, text).about_line(line, message)
    }
}

fn clip(text: String, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or("")),
        None => text,
    }
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
