//! Settings of a daemon: a TOML file, overruled by flags and environment variables.
//!
//! Every setting is one line of a [`Table`]; the file reader and the command line are both built
//! from it, so that none can be settable in one place and not in the other.

mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use mesh_core::hostfile::Diagnostic;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use read::{Reader, duration, host_label, is_host_port, within};

/// What one setting holds in the file; flags are always text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A list of strings.
    List,
    /// An integer.
    Number,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As in the file; `limits.drain` stands in the table `[limits]`.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// An example, as it stands in the file.
    pub example: &'static str,
    /// For `--help`.
    pub help: &'static str,
}

impl Key {
    /// One line of a table.
    pub const fn new(
        name: &'static str, kind: Kind, example: &'static str, help: &'static str,
    ) -> Self {
        Self { name, kind, example, help }
    }

    /// The flag of the setting: `token_file` is `--token-file`.
    pub fn flag(&self) -> String {
        self.name.replace(['_', '.'], "-")
    }
}

/// Every setting of one daemon.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// What the environment variables start with, such as `MESHD`.
    pub env: &'static str,
    /// The settings.
    pub keys: &'static [Key],
}

impl Table {
    /// The environment variable of `key`: `limits.drain` is `MESH_AGENT_LIMITS_DRAIN`.
    pub fn env(&self, key: &Key) -> String {
        format!("{}_{}", self.env, key.name.replace('.', "_").to_uppercase())
    }

    fn find(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    fn is_section(&self, name: &str) -> bool {
        let inside = |key: &Key| key.name.strip_prefix(name).is_some_and(|r| r.starts_with('.'));
        self.keys.iter().any(inside)
    }

    fn unknown(&self, name: &str) -> String {
        let distance = |key: &Key| (strsim::damerau_levenshtein(name, key.name), key.name);
        let near = self.keys.iter().map(distance).min();
        match near.filter(|(distance, near)| *distance <= (near.len() / 3).max(1)) {
            Some((_, near)) => format!("unknown key {name:?}, expected {near:?}"),
            None => {
                let known: Vec<&str> = self.keys.iter().map(|key| key.name).collect();
                format!("unknown key {name:?}, expected one of {}", known.join(", "))
            }
        }
    }
}

/// Settings as given, not yet understood: texts with the place each was given at.
#[derive(Clone, Debug)]
pub struct Settings {
    table: &'static Table,
    name: String,
    text: String,
    given: BTreeMap<&'static str, Given>,
}

#[derive(Clone, Debug)]
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
    pub fn parse(table: &'static Table, name: &str, text: &str) -> Result<Self, SettingsError> {
        let (name, text) = (name.to_owned(), text.to_owned());
        let mut settings = Self { table, name, text, given: BTreeMap::new() };
        let text = settings.text.clone();
        let root = DeTable::parse(&text).map_err(|error| {
            let span = error.span().unwrap_or(text.len()..text.len());
            SettingsError(vec![settings.at(span, error.message().to_owned())])
        })?;
        let mut wrong = Vec::new();
        settings.take("", root.get_ref(), &mut wrong);
        if wrong.is_empty() { Ok(settings) } else { Err(SettingsError(wrong)) }
    }

    /// Sets `key` as by a flag, over what the file says. Unknown keys are ignored: the caller
    /// goes by the table.
    pub fn set(&mut self, key: &str, text: String) {
        if let Some(key) = self.table.find(key) {
            self.given.insert(key.name, Given { text, span: None });
        }
    }

    /// The text of a setting; lists are joined by commas.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.given.get(key).map(|given| given.text.as_str())
    }

    /// That a setting is wrong, with the place where it was given.
    fn wrong(&self, key: &Key, message: String) -> Wrong {
        match self.given.get(key.name).and_then(|given| given.span.clone()) {
            Some(span) => self.at(span, message),
            None => Wrong::InFlag { flag: key.flag(), env: self.table.env(key), message },
        }
    }

    fn take(&mut self, prefix: &str, table: &DeTable<'_>, wrong: &mut Vec<Wrong>) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            if let (DeValue::Table(inner), true) = (value.get_ref(), self.table.is_section(&name)) {
                self.take(&format!("{name}."), inner, wrong);
                continue;
            }
            match self.table.find(&name) {
                None => wrong.push(self.at(key.span(), self.table.unknown(&name))),
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
        Wrong::InFile(Diagnostic::at(&self.name, &self.text, span, message))
    }
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

/// Why there is no config: all that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct SettingsError(pub Vec<Wrong>);

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// In the file, at a place.
    InFile(Diagnostic),
    /// In a flag or an environment variable.
    InFlag {
        /// The flag, without its dashes.
        flag: String,
        /// The environment variable.
        env: String,
        /// What was found and what is expected.
        message: String,
    },
    /// Nowhere given, and there is no default.
    Missing(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InFile(diagnostic) => write!(f, "{diagnostic}"),
            Self::InFlag { flag, env, message } => write!(f, "--{flag} or {env}: {message}"),
            Self::Missing(message) => f.write_str(message),
        }
    }
}

fn lines(wrong: &[Wrong]) -> String {
    wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
