//! [`Walk`]: reads one TOML text and collects what is wrong with it.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::DeTable;

use super::diagnostic::Lines;
use super::value::{Table, one_of};
use super::{Diagnostic, syntax};
use crate::limits;
use crate::policy::Origin;

/// Which keys a table may have.
pub(crate) struct Keys {
    /// The keys of this version.
    pub(crate) known: &'static [&'static str],
    /// Keys of the format that this version does not carry out.
    pub(crate) later: &'static [&'static str],
}

/// The text being read, and what was found wrong.
pub(crate) struct Walk<'t> {
    lines: Lines<'t>,
    text: &'t str,
    file: &'t str,
    syntax: Vec<Found>,
    found: Vec<Found>,
}

struct Found {
    span: Range<usize>,
    message: String,
    hint: Option<String>,
}

/// More than are shown, so that the first of the text are among them.
const FOUND_MAX: usize = 20 * limits::DIAGNOSTICS_MAX;

impl<'t> Walk<'t> {
    /// Reads `text` with `read`; its value counts only if nothing was wrong.
    ///
    /// # Errors
    /// Up to [`limits::DIAGNOSTICS_MAX`] diagnostics, in the order of the text.
    pub(crate) fn read<T>(
        file: &'t str, text: &'t str, read: impl FnOnce(&mut Self, &Table<'_, 't>) -> T,
    ) -> Result<T, Vec<Diagnostic>> {
        refuse_at_sight(file, text, text.len())?;
        let (root, mut errors) = DeTable::parse_recoverable(text);
        let lines = Lines::new(file, text);
        errors.sort_by_key(|error| error.span().map_or(text.len(), |span| span.start));
        // Whatever comes after these is not shown, so it need not be explained.
        let syntax = errors
            .iter()
            .take(limits::DIAGNOSTICS_MAX)
            .map(|error| {
                let (span, message) = syntax::explain(&lines, error, text.len());
                Found { span, message, hint: None }
            })
            .collect();
        let mut walk = Self { lines, text, file, syntax, found: Vec::new() };
        let value = read(&mut walk, &Table { entries: root.get_ref(), span: 0..0 });
        let diagnostics = walk.finish();
        if diagnostics.is_empty() { Ok(value) } else { Err(diagnostics) }
    }

    /// Reports an error at `span`.
    pub(crate) fn error(&mut self, span: Range<usize>, message: String) {
        self.error_with_hint(span, message, None);
    }

    /// Reports an error at `span`, with what could help.
    pub(crate) fn error_with_hint(
        &mut self, span: Range<usize>, message: String, hint: Option<String>,
    ) {
        if self.found.len() < FOUND_MAX {
            self.found.push(Found { span, message, hint });
        }
    }

    /// Reports something that is not there; silent after syntax errors, which may have cost it.
    pub(crate) fn missing(&mut self, span: Range<usize>, message: String) {
        if self.syntax.is_empty() {
            self.error(span, message);
        }
    }

    /// Where `span` starts, as an origin.
    pub(crate) fn origin(&self, span: &Range<usize>) -> Origin {
        let line = u32::try_from(self.lines.line_at(span.start)).unwrap_or(u32::MAX);
        Origin { file: self.file.to_owned(), line }
    }

    /// Reports the keys of `table` that are not of `keys`.
    pub(crate) fn keys(&mut self, table: &Table<'_, '_>, keys: &Keys) {
        for (key, span, _) in table.iter() {
            if keys.known.contains(&key) {
                continue;
            }
            self.unknown(key, span, keys);
        }
    }

    /// Reports `key`, which is not known here.
    pub(crate) fn unknown(&mut self, key: &str, span: Range<usize>, keys: &Keys) {
        if keys.later.contains(&key) {
            let message = format!("{key:?} is not supported in this version");
            return self.error(span, message);
        }
        let expected = match nearest(key, keys.known) {
            Some(near) => format!("{near:?}"),
            None => one_of(keys.known),
        };
        let hint = (!key.is_ascii())
            .then(|| "the key has characters that look like others but are not ASCII".to_owned());
        self.error_with_hint(span, format!("unknown key {key:?}, expected {expected}"), hint);
    }

    fn finish(self) -> Vec<Diagnostic> {
        let line = |found: &Found| self.lines.line_at(found.span.start);
        let broken: BTreeSet<usize> = self.syntax.iter().map(line).collect();
        // Past a broken header the keys would be blamed on the wrong table.
        let headers = broken.iter().any(|at| self.lines.line(*at).trim_start().starts_with('['));
        let mut all = self.syntax;
        let lines = &self.lines;
        let sound = |found: &Found| {
            let invented = found.span.is_empty() && !broken.is_empty();
            !invented && !broken.contains(&lines.line_at(found.span.start))
        };
        if !headers {
            all.extend(self.found.into_iter().filter(sound));
        }
        all.sort_by_key(|found| found.span.start);
        all.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        all.truncate(limits::DIAGNOSTICS_MAX);
        debug_assert!(all.iter().all(|found| found.span.end <= self.text.len()));
        all.into_iter()
            .map(|found| lines.diagnostic(found.span, found.message, found.hint))
            .collect()
    }
}

/// Refuses what need not be parsed; `len` is that of the whole file.
pub(super) fn refuse_at_sight(file: &str, text: &str, len: usize) -> Result<(), Vec<Diagnostic>> {
    let max = limits::POLICY_FILE_BYTES_MAX;
    // Who reads a file stops one byte past the bound.
    let message = if len == max + 1 {
        format!("file has more than {max} bytes, expected at most that")
    } else if len > max {
        format!("file has {len} bytes, expected at most {max}")
    } else if text.starts_with('\u{feff}') {
        "file starts with a byte order mark, expected UTF-8 without one".to_owned()
    } else {
        return Ok(());
    };
    let plain = |c: &char| *c != '\n' && *c != '\r';
    let first: String =
        text.trim_start_matches('\u{feff}').chars().take(200).take_while(plain).collect();
    Err(vec![Lines::new(file, &first).diagnostic(0..1, message, None)])
}

/// The one of `names` that `text` was most likely meant to be, if any is close.
pub(super) fn nearest<'n>(text: &str, names: &[&'n str]) -> Option<&'n str> {
    if text.len() > 64 {
        return None;
    }
    let text = text.to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&text, name);
    let (distance, name) = names.iter().map(|name| (distance(name), *name)).min()?;
    let close = distance <= (name.chars().count() / 3).max(1);
    close.then_some(name)
}
