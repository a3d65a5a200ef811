//! [`Reader`]: typed values out of settings, and all that is wrong at once.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{Settings, SettingsError, Wrong};

/// Reads typed values out of settings and collects what is wrong.
#[derive(Debug)]
pub struct Reader<'a> {
    settings: &'a Settings,
    wrong: Vec<Wrong>,
}

impl<'a> Reader<'a> {
    /// A reader of `settings`.
    pub fn new(settings: &'a Settings) -> Self {
        Self { settings, wrong: Vec::new() }
    }

    /// `found`, unless something was wrong.
    ///
    /// # Errors
    /// All that was wrong.
    pub fn finish<T>(self, found: Option<T>) -> Result<T, SettingsError> {
        match found {
            Some(found) if self.wrong.is_empty() => Ok(found),
            Some(_) | None => Err(SettingsError(self.wrong)),
        }
    }

    /// The text of the setting `name`; lists are joined by commas.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.settings.text(name)
    }

    /// The setting `name` by `read`, which gives nothing for what is wrong; `expected` is told with
    /// the setting's example behind it.
    pub fn value<T>(
        &mut self, name: &'static str, expected: &str, read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.settings.text(name)?;
        if let Some(value) = read(text) {
            return Some(value);
        }
        let example = self.settings.table.find(name).map_or("", |key| key.example);
        self.refuse(name, format!("{name} is {text:?}, expected {expected} {example}"))
    }

    /// The setting `name` as its type reads it.
    pub fn parsed<T: FromStr>(&mut self, name: &'static str, expected: &str) -> Option<T> {
        self.value(name, expected, |text| text.parse().ok())
    }

    /// An absolute path.
    pub fn path(&mut self, name: &'static str) -> Option<PathBuf> {
        let absolute = |text: &str| text.starts_with('/').then(|| PathBuf::from(text));
        self.value(name, "an absolute path such as", absolute)
    }

    /// A name: the setting `name`, or the first label of `host`, the host's name.
    pub fn name_or_host<T: FromStr<Err: std::fmt::Display>>(
        &mut self, name: &'static str, host: &str, what: &str,
    ) -> Option<T> {
        if let Some(text) = self.settings.text(name) {
            return match text.parse() {
                Ok(value) => Some(value),
                Err(why) => self.refuse(name, format!("{why}")),
            };
        }
        let found = host_label(host).parse().ok();
        if found.is_none() {
            self.missing(format!("{name} is not set, and the host's name {host:?} is no {what}"));
        }
        found
    }

    /// Notes that the setting `name` is wrong, as `message` says.
    pub fn refuse<T>(&mut self, name: &'static str, message: String) -> Option<T> {
        let wrong = match self.settings.table.find(name) {
            Some(key) => self.settings.wrong(key, message),
            None => Wrong::Missing(message),
        };
        self.wrong.push(wrong);
        None
    }

    /// Notes that something without a default is nowhere given.
    pub fn missing(&mut self, message: String) {
        self.wrong.push(Wrong::Missing(message));
    }
}

/// The first label of a host's name, as names are written: `Web-7.corp.example` is `web-7`.
pub fn host_label(host: &str) -> String {
    host.split('.').next().unwrap_or("").to_lowercase()
}

/// A number within `bounds`.
pub fn within(text: &str, bounds: RangeInclusive<usize>) -> Option<usize> {
    text.parse().ok().filter(|number| bounds.contains(number))
}

/// A time within `bounds`, such as `100ms` or `5s`.
pub fn duration(text: &str, bounds: RangeInclusive<Duration>) -> Option<Duration> {
    let number = |digits: &str| digits.parse::<u64>().ok();
    let found = match text.strip_suffix("ms") {
        Some(digits) => Duration::from_millis(number(digits)?),
        None => Duration::from_secs(number(text.strip_suffix('s')?)?),
    };
    bounds.contains(&found).then_some(found)
}

/// Whether `text` is `host:port` with a port that can be dialled; at most 300 bytes.
pub fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-[]:".contains(&b);
    !host.is_empty()
        && text.len() <= 300
        && host.bytes().all(plain)
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}
