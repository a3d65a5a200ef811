//! Settings as given: texts with the place each was given at.

use std::collections::BTreeMap;
use std::ops::Range;

use mesh_core::hostfile::Diagnostic;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ConfigError, KEYS, Key, Kind, Wrong};

/// Settings as given, not yet understood: the file's, overruled by flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    name: String,
    text: String,
    given: BTreeMap<&'static str, Given>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    text: String,
    /// Where in the file; `None` is a flag or an environment variable.
    span: Option<Range<usize>>,
}

type Value<'t> = Spanned<DeValue<'t>>;

impl Settings {
    /// Reads `text`, the file `name`.
    ///
    /// # Errors
    /// Every key that is unknown or has a value of another type, or the first error of syntax.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let mut settings =
            Self { name: name.to_owned(), text: text.to_owned(), given: BTreeMap::new() };
        let root = DeTable::parse(text).map_err(|error| {
            let span = error.span().unwrap_or(text.len()..text.len());
            ConfigError(vec![settings.at(span, error.message().to_owned())])
        })?;
        let mut wrong = Vec::new();
        settings.take("", root.get_ref(), &mut wrong);
        if wrong.is_empty() { Ok(settings) } else { Err(ConfigError(wrong)) }
    }

    /// Sets `key` as by a flag, over what the file says. Unknown keys are ignored: the caller
    /// goes by [`KEYS`].
    pub fn set(&mut self, key: &str, text: String) {
        if let Some(key) = KEYS.iter().find(|known| known.name == key) {
            self.given.insert(key.name, Given { text, span: None });
        }
    }

    /// The text of a setting; lists are joined by commas.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.given.get(key).map(|given| given.text.as_str())
    }

    /// That a setting is wrong, with the place where it was given.
    pub(super) fn wrong(&self, key: &'static str, message: String) -> Wrong {
        match self.given.get(key).and_then(|given| given.span.clone()) {
            Some(span) => self.at(span, message),
            None => Wrong::InFlag { key, message },
        }
    }

    fn take(&mut self, prefix: &str, table: &DeTable<'_>, wrong: &mut Vec<Wrong>) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            if let (DeValue::Table(inner), true) = (value.get_ref(), is_section(&name)) {
                self.take(&format!("{name}."), inner, wrong);
                continue;
            }
            match KEYS.iter().find(|known| known.name == name) {
                None => wrong.push(self.at(key.span(), unknown(&name))),
                Some(known) => match as_text(known.kind, value) {
                    Some(text) => {
                        let span = Some(value.span());
                        self.given.insert(known.name, Given { text, span });
                    }
                    None => wrong.push(self.at(value.span(), mismatch(known))),
                },
            }
        }
    }

    fn at(&self, span: Range<usize>, message: String) -> Wrong {
        Wrong::InFile(diagnostic(&self.name, &self.text, span, message))
    }
}

fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

fn as_text(kind: Kind, value: &Value<'_>) -> Option<String> {
    match (kind, value.get_ref()) {
        (Kind::Text, DeValue::String(text)) => Some(text.to_string()),
        (Kind::Number, DeValue::Integer(number)) => Some(number.to_string()),
        (Kind::List, DeValue::Array(items)) => {
            let texts: Option<Vec<&str>> = items.iter().map(|v| v.get_ref().as_str()).collect();
            texts.filter(|texts| !texts.is_empty()).map(|texts| texts.join(","))
        }
        _ => None,
    }
}

fn mismatch(key: &Key) -> String {
    let expected = match key.kind {
        Kind::Text => "a string",
        Kind::List => "a list of strings",
        Kind::Number => "a number",
    };
    format!("{} has another type, expected {expected} such as {}", key.name, key.example)
}

fn unknown(name: &str) -> String {
    let near = KEYS
        .iter()
        .map(|key| (strsim::damerau_levenshtein(name, key.name), key.name))
        .min()
        .filter(|(distance, near)| *distance <= (near.len() / 3).max(1));
    match near {
        Some((_, near)) => format!("unknown key {name:?}, expected {near:?}"),
        None => {
            let known: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
            format!("unknown key {name:?}, expected one of {}", known.join(", "))
        }
    }
}

/// A diagnostic about `span` of `text`, cut to its first line.
fn diagnostic(file: &str, text: &str, span: Range<usize>, message: String) -> Diagnostic {
    let start = span.start.min(text.len());
    let before = text.get(..start).unwrap_or("");
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = text.get(line_start..).unwrap_or("").lines().next().unwrap_or("");
    let indent = before.get(line_start..).unwrap_or("").chars().count();
    let marked = text.get(start..span.end.min(text.len())).unwrap_or("");
    let width = marked.lines().next().unwrap_or("").chars().count().max(1);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Diagnostic {
        file: file.to_owned(),
        line: count(before.matches('\n').count() + 1),
        column: count(indent + 1),
        excerpt: line.chars().take(EXCERPT_CHARS_MAX).collect(),
        indent: count(indent.min(EXCERPT_CHARS_MAX)),
        width: count(width.min(EXCERPT_CHARS_MAX)),
        message,
        hint: None,
    }
}

const EXCERPT_CHARS_MAX: usize = 200;
