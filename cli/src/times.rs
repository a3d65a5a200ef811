//! Times and durations in words. Pure: now is an argument.

use std::time::Duration;

use mesh_core::time::UnixMillis;

/// `at` as seen from `now`: `in 11h`, `3m ago`, `now`.
pub(crate) fn relative(at: UnixMillis, now: UnixMillis) -> String {
    let (ahead, behind) = (at.since(now), now.since(at));
    match (ahead / 1000, behind / 1000) {
        (0, 0) => "now".to_owned(),
        (0, _) => format!("{} ago", coarse(behind)),
        (_, _) => format!("in {}", coarse(ahead)),
    }
}

/// A duration in its largest unit, rounded down: `3m`, `11h`, `2d`.
fn coarse(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `90s`, `15m`, `1h30m`, `30d`, `250ms`: numbers with units, added up. At least 1 ms.
///
/// # Errors
/// What was found and what is expected.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("duration is {text:?}, expected such as 90s, 15m, 1h30m or 30d");
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
        let (unit, tail) = tail.split_at(letters);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis));
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = tail;
    }
    if total == 0 { Err(wrong()) } else { Ok(Duration::from_millis(total)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_told_from_now() {
        let now = UnixMillis(1_000_000_000_000);
        let cases: &[(i64, &str)] = &[
            (0, "now"),
            (999, "now"),
            (-999, "now"),
            (1_000, "in 1s"),
            (-59_999, "59s ago"),
            (-60_000, "1m ago"),
            (3_599_000, "in 59m"),
            (39_600_000, "in 11h"),
            (172_799_000, "in 47h"),
            (172_800_000, "in 2d"),
            (-864_000_000, "10d ago"),
        ];
        for (offset, want) in cases {
            let at = UnixMillis(now.0.saturating_add_signed(*offset));
            assert_eq!(relative(at, now), *want, "{offset}");
        }
    }

    #[test]
    fn durations_parse_with_units_only() {
        let cases = [
            ("250ms", Some(250)),
            ("90s", Some(90_000)),
            ("1h30m", Some(5_400_000)),
            ("30d", Some(2_592_000_000)),
            ("", None),
            ("0s", None),
            ("10", None),
            ("h", None),
            ("-1s", None),
            ("1 h", None),
            ("1w", None),
            ("99999999999999999999s", None),
            ("1.5h", None),
            ("1µs", None),
        ];
        for (text, want) in cases {
            let got = parse_duration(text).ok();
            assert_eq!(got, want.map(Duration::from_millis), "{text:?}");
        }
    }
}
