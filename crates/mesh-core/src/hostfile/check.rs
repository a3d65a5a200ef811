//! Reads `[[instance.NAME.check]]`.

use super::{CheckFile, CheckKind};
use crate::limits::{CHECKS_PER_INSTANCE_MAX, EXEC_WORDS_MAX};
use crate::tomltext::{Keys, Table, Value, Walk, format_duration};

const CHECK: Keys = Keys {
    known: &["http", "tcp", "exec", "interval", "timeout", "rise", "fall"],
    later: &["grpc", "header", "method", "port", "status", "ttl"],
};
const KIND_TEXT: &str = "one of http = \"/health\", tcp = true, exec = [\"/usr/lib/check\"]";

pub(super) const INTERVAL_MS: u64 = 5_000;
pub(super) const TIMEOUT_MS: u64 = 2_000;
pub(super) const RISE: u32 = 2;
pub(super) const FALL: u32 = 3;

const INTERVAL_MS_MIN: u64 = 100;
const INTERVAL_MS_MAX: u64 = 3_600_000;
const COUNT_MAX: u32 = 100;
const HTTP_PATH_BYTES_MAX: usize = 1024;
const EXEC_WORD_BYTES_MAX: usize = 4096;

/// Reads the checks of an instance.
pub(super) fn checks(walk: &mut Walk<'_>, what: &str, value: &Value<'_>) -> Vec<CheckFile> {
    let expected = format!("checks, each written [[{what}.check]]");
    let Some(items) = walk.array("check", value, &expected, CHECKS_PER_INSTANCE_MAX) else {
        return Vec::new();
    };
    let mut checks = Vec::with_capacity(items.len());
    for item in items {
        let Some(table) = walk.table("check", item, &expected) else { continue };
        checks.extend(check(walk, &table));
    }
    checks
}

fn check(walk: &mut Walk<'_>, table: &Table<'_, '_>) -> Option<CheckFile> {
    walk.keys(table, &CHECK);
    let kind = kind(walk, table);
    let interval = table
        .get("interval")
        .and_then(|v| walk.duration("interval", v, INTERVAL_MS_MIN..=INTERVAL_MS_MAX));
    let interval_ms = interval.unwrap_or(INTERVAL_MS);
    let timeout_ms = match table.get("timeout") {
        Some(value) => timeout(walk, value, interval_ms),
        None => default_timeout(interval_ms),
    };
    let rise = table.get("rise").and_then(|v| walk.integer("rise", v, 1..=COUNT_MAX));
    let fall = table.get("fall").and_then(|v| walk.integer("fall", v, 1..=COUNT_MAX));
    let (rise, fall) = (rise.unwrap_or(RISE), fall.unwrap_or(FALL));
    Some(CheckFile { kind: kind?, interval_ms, timeout_ms, rise, fall })
}

/// What a check without `timeout` waits: never longer than its interval.
pub(super) fn default_timeout(interval_ms: u64) -> u64 {
    TIMEOUT_MS.min(interval_ms)
}

fn timeout(walk: &mut Walk<'_>, value: &Value<'_>, interval_ms: u64) -> u64 {
    let Some(ms) = walk.duration("timeout", value, 1..=INTERVAL_MS_MAX) else {
        return default_timeout(interval_ms);
    };
    if ms > interval_ms {
        let expected = format!("at most the interval, {}", format_duration(interval_ms));
        walk.mismatch::<()>("timeout", value, &expected);
    }
    ms
}

fn kind(walk: &mut Walk<'_>, table: &Table<'_, '_>) -> Option<CheckKind> {
    let given: Vec<(&str, &Value<'_>)> = ["http", "tcp", "exec"]
        .into_iter()
        .filter_map(|key| table.get(key).map(|value| (key, value)))
        .collect();
    match given[..] {
        [] => {
            walk.missing(table.span.clone(), format!("check tries nothing, expected {KIND_TEXT}"));
            None
        }
        [("http", value)] => http(walk, value),
        [("tcp", value)] => match value.get_ref().as_bool() {
            Some(true) => Some(CheckKind::Tcp),
            Some(false) | None => walk.mismatch("tcp", value, "true"),
        },
        [(_, value)] => exec(walk, value),
        [(first, _), (second, value), ..] => {
            let message = format!("{first} and {second} are both given, expected {KIND_TEXT}");
            walk.error(value.span(), message);
            None
        }
    }
}

fn http(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<CheckKind> {
    let expected = "a path such as \"/health\"";
    let path = walk.string("http", value, expected)?;
    let visible = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if !path.starts_with('/') || path.len() > HTTP_PATH_BYTES_MAX || !visible {
        return walk.mismatch("http", value, expected);
    }
    Some(CheckKind::Http(path.to_owned()))
}

fn exec(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<CheckKind> {
    let expected = "a command and its arguments such as [\"/usr/lib/check\", \"web\"]";
    let items = walk.array("exec", value, expected, EXEC_WORDS_MAX)?;
    let mut words = Vec::with_capacity(items.len());
    for item in items {
        let word = walk.string("exec", item, expected)?;
        if word.len() > EXEC_WORD_BYTES_MAX || word.contains('\0') {
            let expected = format!("at most {EXEC_WORD_BYTES_MAX} bytes without NUL");
            return walk.mismatch("exec argument", item, &expected);
        }
        words.push(word.to_owned());
    }
    match (words.first(), items.first()) {
        (Some(command), _) if command.starts_with('/') => Some(CheckKind::Exec(words)),
        (_, Some(item)) => walk.mismatch("command", item, "an absolute path"),
        (_, None) => None,
    }
}
