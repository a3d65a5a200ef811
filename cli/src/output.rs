//! Where answers go: tables for people, JSON for programs.

use std::io::Write;

use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::args::Format;
use crate::error::CliError;

/// Prints answers in the form asked for.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: Format,
}

impl Output {
    /// An output in `format`.
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Prints `value` as JSON, or what `text` makes of it.
    ///
    /// # Errors
    /// [`CliError::Output`] if standard output cannot be written.
    pub fn show<T: Serialize + ?Sized>(
        &self, value: &T, text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        match self.format {
            Format::Table => line(&text()),
            Format::Json => line(&json(value)?),
        }
    }
}

/// Prints `text` and a line end to standard output; colours only where they are seen.
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    let mut out = anstream::stdout().lock();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    write!(out, "{text}{end}").and_then(|()| out.flush()).map_err(CliError::Output)
}

/// Prints `text` to standard error: progress and advice, never the answer.
pub fn note(text: &str) {
    // Nobody may be listening; the answer does not depend on it.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, CliError> {
    serde_json::to_string_pretty(value).map_err(|why| CliError::Output(why.into()))
}

/// Rows under headers, in columns two spaces apart, without lines.
pub(crate) fn table(headers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers.iter().map(Cell::new));
    for row in rows {
        table.add_row(row.iter().map(|cell| Cell::new(plain(cell))));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// `text` without control characters: what others wrote must not move the cursor.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// `text` in green.
pub(crate) fn good(text: &str) -> String {
    format!("\u{1b}[32m{text}\u{1b}[0m")
}

/// `text` in red.
pub(crate) fn bad(text: &str) -> String {
    format!("\u{1b}[31m{text}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_without_trailing_space_or_control_characters() {
        let rows = [vec!["a\u{1b}[2J".to_owned(), "1".to_owned()], vec!["bb".into(), "é".into()]];
        let want = "NAME   N\na\u{fffd}[2J  1\nbb     é";
        assert_eq!(table(&["NAME", "N"], rows), want);
    }
}
