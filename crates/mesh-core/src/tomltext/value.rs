//! Readers of single values; each reports what is wrong and gives `None`.

use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::walk::{Walk, nearest};

/// A value with its place.
pub(crate) type Value<'t> = Spanned<DeValue<'t>>;

/// A table with its place: its header's, or that of the braces.
#[derive(Clone)]
pub(crate) struct Table<'a, 't> {
    pub(crate) entries: &'a DeTable<'t>,
    pub(crate) span: Range<usize>,
}

impl<'a, 't> Table<'a, 't> {
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value<'t>> {
        self.entries.get(key)
    }

    /// The table's keys with their places, and its values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a str, Range<usize>, &'a Value<'t>)> {
        self.entries.iter().map(|(key, value)| (key.get_ref().as_ref(), key.span(), value))
    }
}

impl Walk<'_> {
    /// `value` as a table; `what` and `expected` are for the message.
    pub(crate) fn table<'a, 't>(
        &mut self, what: &str, value: &'a Value<'t>, expected: &str,
    ) -> Option<Table<'a, 't>> {
        match value.get_ref() {
            DeValue::Table(entries) => Some(Table { entries, span: value.span() }),
            _ => self.mismatch(what, value, expected),
        }
    }

    /// `value` as an array of 1 to `max` values.
    pub(crate) fn array<'a, 't>(
        &mut self, what: &str, value: &'a Value<'t>, expected: &str, max: usize,
    ) -> Option<&'a [Value<'t>]> {
        let DeValue::Array(items) = value.get_ref() else {
            return self.mismatch(what, value, expected);
        };
        if items.is_empty() {
            return self.mismatch(what, value, expected);
        }
        if items.len() > max {
            let found = items.len();
            self.error(value.span(), format!("{what} has {found} values, expected at most {max}"));
            return None;
        }
        Some(items)
    }

    /// `value` as a string.
    pub(crate) fn string<'a>(
        &mut self, what: &str, value: &'a Value<'_>, expected: &str,
    ) -> Option<&'a str> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.as_ref()),
            _ => self.mismatch(what, value, expected),
        }
    }

    /// `value` as a string that parses as `T`, whose error speaks for itself.
    pub(crate) fn parsed<T: FromStr<Err: std::fmt::Display>>(
        &mut self, what: &str, value: &Value<'_>, expected: &str,
    ) -> Option<T> {
        let text = self.string(what, value, expected)?;
        self.accept(value.span(), text.parse())
    }

    /// The value of `result`, or its error reported at `span`.
    pub(crate) fn accept<T, E: std::fmt::Display>(
        &mut self, span: Range<usize>, result: Result<T, E>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(why) => {
                self.error(span, why.to_string());
                None
            }
        }
    }

    /// `value` as one of `choices`.
    pub(crate) fn choice<T: Copy>(
        &mut self, what: &str, value: &Value<'_>, choices: &[(&str, T)],
    ) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let expected = one_of(&names);
        let text = self.string(what, value, &expected)?;
        if let Some((_, found)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*found);
        }
        let hint = nearest(text, &names).map(|near| format!("did you mean {near:?}?"));
        let message = format!("{what} is {}, expected {expected}", describe(value));
        self.error_with_hint(value.span(), message, hint);
        None
    }

    /// `value` as a whole number within `range`.
    pub(crate) fn integer(
        &mut self, what: &str, value: &Value<'_>, range: RangeInclusive<u32>,
    ) -> Option<u32> {
        let number = match value.get_ref() {
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            _ => None,
        };
        match number.and_then(|number| u32::try_from(number).ok()) {
            Some(number) if range.contains(&number) => Some(number),
            Some(_) | None => {
                let expected = format!("a number from {} to {}", range.start(), range.end());
                self.mismatch(what, value, &expected)
            }
        }
    }

    /// `value` as a duration within `range`, in milliseconds.
    pub(crate) fn duration(
        &mut self, what: &str, value: &Value<'_>, range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let expected = "a duration such as \"250ms\", \"2s\" or \"1m\"";
        let text = self.string(what, value, expected)?;
        let Some(ms) = parse_duration(text) else {
            return self.mismatch(what, value, expected);
        };
        if range.contains(&ms) {
            return Some(ms);
        }
        let (least, most) = (format_duration(*range.start()), format_duration(*range.end()));
        self.mismatch(what, value, &format!("{least} to {most}"))
    }

    /// Reports that `what` is `value`, which is not `expected`.
    pub(crate) fn mismatch<T>(
        &mut self, what: &str, value: &Value<'_>, expected: &str,
    ) -> Option<T> {
        let message = format!("{what} is {}, expected {expected}", describe(value));
        self.error(value.span(), message);
        None
    }
}

/// `"a", "b" or "c"`.
pub(super) fn one_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// The value as a message shows it.
fn describe(value: &Value<'_>) -> String {
    match value.get_ref() {
        DeValue::String(text) => match text.char_indices().nth(80) {
            Some((at, _)) => format!("{:?}...", text.get(..at).unwrap_or("")),
            None => format!("{text:?}"),
        },
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(items) if items.is_empty() => "an empty array".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// The milliseconds of `250ms`, `2s`, `1m` or `1h`: digits and one unit, nothing else.
pub(super) fn parse_duration(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(unit_at);
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*scale)
}

/// The shortest text that [`parse_duration`] reads as `ms` milliseconds.
pub(crate) fn format_duration(ms: u64) -> String {
    let fits = |(_, scale): &&(&str, u64)| ms >= *scale && ms.is_multiple_of(*scale);
    match UNITS.iter().rev().find(fits) {
        Some((unit, scale)) => format!("{}{unit}", ms / scale),
        None => format!("{ms}ms"),
    }
}
