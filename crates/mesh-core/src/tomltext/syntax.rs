//! Errors of TOML itself, in the words of this project where the parser's are too few.

use std::ops::Range;

use super::diagnostic::Lines;

/// The span and message of `error`.
pub(super) fn explain(
    lines: &Lines<'_>, error: &toml::de::Error, text_len: usize,
) -> (Range<usize>, String) {
    let end = text_len..text_len;
    match error.message() {
        "duplicate key" => {
            let span = error.span().unwrap_or(end);
            let message = duplicate(lines, &span);
            (span, message)
        }
        "recursion limit" | "cannot recurse further; max recursion depth met" => {
            let span = error.span().or_else(|| deep_key(lines)).unwrap_or(end);
            (span, "nested too deep, expected fewer than 80 levels".to_owned())
        }
        other => {
            let span = error.span().unwrap_or(end);
            let message = format!("{other}, found {}", found(lines, &span));
            (span, message)
        }
    }
}

/// What stands at `span`: its first character, as nobody can mistake it.
fn found(lines: &Lines<'_>, span: &Range<usize>) -> String {
    let rest = lines.rest(span.start);
    if rest.starts_with('\n') || rest.starts_with("\r\n") {
        return "the end of the line".to_owned();
    }
    match rest.chars().next() {
        None => "the end of the file".to_owned(),
        Some(c) if c.is_ascii() => format!("{c:?}"),
        Some(c) => format!("{c:?} (U+{:04X})", u32::from(c)),
    }
}

/// The first line with more dots than a key may have, which the parser gives no place of.
fn deep_key(lines: &Lines<'_>) -> Option<Range<usize>> {
    let deep = |line: &usize| lines.line(*line).bytes().filter(|b| *b == b'.').count() >= 80;
    let line = (1..=lines.count()).find(deep)?;
    Some(lines.span_of(line))
}

fn duplicate(lines: &Lines<'_>, span: &Range<usize>) -> String {
    let line = lines.line_at(span.start);
    match header(lines.line(line)) {
        Some(name) => {
            let first = (1..line).find(|at| header(lines.line(*at)) == Some(name));
            format!("{name} is declared twice{}", place(first))
        }
        None => {
            let key = lines.span(span);
            let above = (1..line).rev().take_while(|at| header(lines.line(*at)).is_none());
            let first = above.into_iter().find(|at| gives(lines.line(*at), key));
            format!("key {key:?} is given twice{}", place(first))
        }
    }
}

fn place(first: Option<usize>) -> String {
    first.map_or_else(String::new, |line| format!(", first at line {line}"))
}

/// The name in a header line, such as `service.orders` of `[service.orders]`.
fn header(line: &str) -> Option<&str> {
    let inner = line.trim_start().strip_prefix('[')?;
    Some(inner.split(']').next().unwrap_or(inner).trim_start_matches('[').trim())
}

/// Whether `line` gives a value to `key`.
fn gives(line: &str, key: &str) -> bool {
    line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
}
