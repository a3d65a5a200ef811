//! Units: where systemd puts a unit's processes in the cgroup tree.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::limits::callers::{UNIT_NAME_LEN_MAX, UNIT_PATH_LEN_MAX};
use serde::{Deserialize, Serialize};

/// The full cgroup v2 path of a unit, such as `/system.slice/web.service`.
///
/// Holds an absolute path of at most 4095 bytes, without empty, `.` or `..` parts, and not the
/// root. Parsed from such a path, or from the name of a service of the system manager:
/// `web.service` is `/system.slice/web.service`, and an instance `web@1.service` is
/// `/system.slice/system-web.slice/web@1.service`. A unit with `Slice=` of its own, or of a user's
/// manager, must be given as a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitPath(String);

/// Why a text names no unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUnit {
    /// A path with a part that cannot be, or none.
    #[error("unit path {text:?} is no cgroup, expected one such as /system.slice/web.service")]
    Path {
        /// The text found.
        text: String,
    },
    /// A name that is no service's.
    #[error("unit {text:?} is no service, expected a name such as web.service, or a full path")]
    NotService {
        /// The text found.
        text: String,
    },
    /// A template, which never runs itself.
    #[error("unit {text:?} is a template, expected an instance such as web@1.service")]
    Template {
        /// The text found.
        text: String,
    },
    /// Over the bound.
    #[error("unit has {len} bytes, expected at most {max}")]
    Length {
        /// Bytes found.
        len: usize,
        /// The bound that applies to its form.
        max: usize,
    },
    /// A character that systemd allows in no unit name.
    #[error(
        "unit {text:?} has {found:?}, expected letters, digits and ':', '-', '_', '.', '\\', '@'"
    )]
    Char {
        /// The text found.
        text: String,
        /// The character.
        found: char,
    },
}

impl UnitPath {
    /// The path as text, with its leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the cgroup at `path` is this unit's or one below it.
    pub fn holds(&self, path: &str) -> bool {
        // The slash keeps `web.service-evil` out of `web.service`.
        path.strip_prefix(self.0.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for UnitPath {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        if text.starts_with('/') { parse_path(text) } else { parse_name(text) }.map(Self)
    }
}

impl TryFrom<String> for UnitPath {
    type Error = InvalidUnit;

    fn try_from(text: String) -> Result<Self, InvalidUnit> {
        text.parse()
    }
}

impl From<UnitPath> for String {
    fn from(unit: UnitPath) -> Self {
        unit.0
    }
}

impl fmt::Display for UnitPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn parse_path(text: &str) -> Result<String, InvalidUnit> {
    if text.len() > UNIT_PATH_LEN_MAX {
        return Err(InvalidUnit::Length { len: text.len(), max: UNIT_PATH_LEN_MAX });
    }
    let impossible = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
    if text[1..].split('/').any(impossible) {
        return Err(InvalidUnit::Path { text: text.to_owned() });
    }
    Ok(text.to_owned())
}

fn parse_name(text: &str) -> Result<String, InvalidUnit> {
    if text.len() > UNIT_NAME_LEN_MAX {
        return Err(InvalidUnit::Length { len: text.len(), max: UNIT_NAME_LEN_MAX });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if let Some(found) = text.chars().find(|&c| !allowed(c)) {
        return Err(InvalidUnit::Char { text: text.to_owned(), found });
    }
    let not_service = || InvalidUnit::NotService { text: text.to_owned() };
    let stem = text.strip_suffix(".service").ok_or_else(not_service)?;
    match stem.split_once('@') {
        None if stem.is_empty() => Err(not_service()),
        None => Ok(format!("/system.slice/{}", cgroup_name(text))),
        Some(("", _)) => Err(not_service()),
        Some((_, "")) => Err(InvalidUnit::Template { text: text.to_owned() }),
        Some((prefix, _)) => {
            let slice = escape(prefix);
            Ok(format!("/system.slice/system-{slice}.slice/{}", cgroup_name(text)))
        }
    }
}

/// The prefix of a template inside its slice's name, where `-` would mean a nested slice
/// (systemd-escape(1)).
fn escape(prefix: &str) -> String {
    let mut escaped = String::with_capacity(prefix.len());
    for (at, c) in prefix.char_indices() {
        match c {
            '-' | '\\' => escaped.push_str(&format!("\\x{:02x}", u32::from(c))),
            '.' if at == 0 => escaped.push_str("\\x2e"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A unit's directory: its name, behind `_` where it could be taken for one of the kernel's files.
fn cgroup_name(unit: &str) -> Cow<'_, str> {
    let kernels = unit.split_once('.').is_some_and(|(first, _)| CONTROLLERS.contains(&first));
    if kernels || unit.starts_with(['_', '.']) {
        Cow::Owned(format!("_{unit}"))
    } else {
        Cow::Borrowed(unit)
    }
}

const CONTROLLERS: [&str; 9] =
    ["cgroup", "cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_become_cgroup_paths() {
        let cases = [
            ("web.service", "/system.slice/web.service"),
            ("my-web.service", "/system.slice/my-web.service"),
            ("web@1.service", "/system.slice/system-web.slice/web@1.service"),
            ("web@a@b.service", "/system.slice/system-web.slice/web@a@b.service"),
            ("my-web@1.service", r"/system.slice/system-my\x2dweb.slice/my-web@1.service"),
            (r"a\x2db@1.service", r"/system.slice/system-a\x5cx2db.slice/a\x2db@1.service"),
            ("memory.service", "/system.slice/_memory.service"),
            ("memory-hog.service", "/system.slice/memory-hog.service"),
            ("_x.service", "/system.slice/__x.service"),
            ("/batch.slice/web.service", "/batch.slice/web.service"),
            ("/user.slice/user@1.service/x", "/user.slice/user@1.service/x"),
        ];
        for (text, want) in cases {
            let unit = text.parse::<UnitPath>();
            assert_eq!(unit.as_ref().map(UnitPath::as_str), Ok(want), "{text}");
            // What was parsed once parses to itself.
            assert_eq!(want.parse::<UnitPath>(), unit, "{text}");
        }
    }

    #[test]
    fn what_is_no_unit_says_why() {
        let path = |text: &str| InvalidUnit::Path { text: text.to_owned() };
        let not_service = |text: &str| InvalidUnit::NotService { text: text.to_owned() };
        let long = format!("{}.service", "a".repeat(248));
        let cases = [
            ("", not_service("")),
            ("web", not_service("web")),
            (".service", not_service(".service")),
            ("@1.service", not_service("@1.service")),
            ("user.slice", not_service("user.slice")),
            ("web@.service", InvalidUnit::Template { text: "web@.service".to_owned() }),
            ("a/b.service", InvalidUnit::Char { text: "a/b.service".to_owned(), found: '/' }),
            (&long, InvalidUnit::Length { len: 256, max: 255 }),
            ("/", path("/")),
            ("/a/", path("/a/")),
            ("//a", path("//a")),
            ("/a/../b", path("/a/../b")),
            ("/a/./b", path("/a/./b")),
        ];
        for (text, want) in cases {
            assert_eq!(text.parse::<UnitPath>(), Err(want), "{text}");
        }
        assert!(long[1..].parse::<UnitPath>().is_ok(), "the longest name");
    }
}
