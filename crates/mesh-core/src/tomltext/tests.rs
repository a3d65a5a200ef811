#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use super::diagnostic::Lines;
use super::value::parse_duration;
use super::walk::nearest;
use super::*;
use crate::limits::POLICY_FILE_BYTES_MAX;

#[test]
fn durations_are_digits_and_one_unit() {
    let good = [("250ms", 250), ("2s", 2_000), ("1m", 60_000), ("1h", 3_600_000), ("0s", 0)];
    for (text, ms) in good {
        assert_eq!(parse_duration(text), Some(ms), "{text}");
    }
    for bad in
        ["", "2", "s", "2 s", " 2s", "2s ", "+2s", "-2s", "1.5s", "2S", "1m30s", "2d", "１s", "2µs"]
    {
        assert_eq!(parse_duration(bad), None, "{bad:?}");
    }
    assert_eq!(parse_duration("99999999999999999999s"), None);
    assert_eq!(parse_duration("18446744073709551615h"), None);
    for ms in [0, 1, 999, 1_000, 1_001, 59_000, 60_000, 61_000, 90_000, 3_600_000, 7_200_000] {
        assert_eq!(parse_duration(&format_duration(ms)), Some(ms));
    }
    assert_eq!(format_duration(90_000), "90s");
}

#[test]
fn diagnostics_show_the_line_with_a_caret() {
    let lines = Lines::new("a.toml", "x = 1\r\n\ty = \"é\" # z\n");
    let shown = lines.diagnostic(12..16, "wrong".to_owned(), Some("help".to_owned()));
    assert_eq!((shown.line, shown.column, shown.width), (2, 6, 3));
    let want = "a.toml:2:6: wrong\n     y = \"é\" # z\n         ^^^\n    hint: help";
    assert_eq!(shown.to_string(), want);
    // Offsets at the end, beyond it, and within a character.
    for span in [22..22, 22..99, 90..99, 14..15, 0..22] {
        let shown = lines.diagnostic(span.clone(), String::new(), None);
        assert!(shown.width >= 1, "{span:?}");
    }
    assert_eq!(Lines::new("", "").diagnostic(0..0, String::new(), None).line, 1);
}

#[test]
fn long_and_hostile_lines_are_shown_in_part_and_harmless() {
    let text = format!("{}= \u{1b}[2J", "a".repeat(5_000));
    let at = text.find('=').unwrap();
    let shown = Lines::new("a", &text).diagnostic(at..text.len(), "m".repeat(9_999), None);
    assert_eq!(shown.column, 5_001);
    assert!(shown.excerpt.chars().count() <= 200);
    assert_eq!(shown.excerpt.chars().nth(shown.indent as usize), Some('='));
    assert!(shown.message.len() < 700);
    assert!(!shown.to_string().contains('\u{1b}'));
}

#[test]
fn bytes_must_be_utf8_of_bounded_length() {
    let read = |file: &str, text: &str| Ok::<_, Vec<Diagnostic>>(format!("{file} {text}"));
    assert_eq!(from_bytes("a", b"b", read).unwrap(), "a b");
    let errors = from_bytes("a", b"x = 1\ny = \"\xc3\xa9\xff\"\n", read).unwrap_err();
    let want = "a:2:7: byte 0xff is not UTF-8, expected a text file in UTF-8";
    assert_eq!(errors[0].to_string().lines().next(), Some(want));
    for bytes in [b"\xff".as_slice(), b"\xc3", b"\xed\xa0\x80", b"a\n\xf0\x9f"] {
        assert_eq!(from_bytes("a", bytes, read).unwrap_err().len(), 1);
    }
    for byte in [b'a', 0xff] {
        let errors = from_bytes("a", &vec![byte; POLICY_FILE_BYTES_MAX + 2], read).unwrap_err();
        assert_eq!(errors[0].message, "file has 1048578 bytes, expected at most 1048576");
        let errors = from_bytes("a", &vec![byte; POLICY_FILE_BYTES_MAX + 1], read).unwrap_err();
        let want = "file has more than 1048576 bytes, expected at most that";
        assert_eq!(errors[0].message, want, "read no further");
    }
}

#[test]
fn nearest_names_only_what_is_close() {
    let names = ["protocol", "timeout", "access", "to"];
    for (text, want) in [
        ("protocal", Some("protocol")),
        ("Protocol", Some("protocol")),
        ("рrotocol", Some("protocol")),
        ("timout", Some("timeout")),
        ("xyz", None),
        ("", None),
    ] {
        assert_eq!(nearest(text, &names), want, "{text}");
    }
    assert_eq!(nearest(&"a".repeat(1_000), &names), None);
}

#[test]
fn written_strings_read_back() {
    for text in
        ["", "plain", "a\"b\\c", "tab\tnl\ncr\rnul\0del\u{7f}", "é\u{85}\u{1f600}", "'''\"\"\""]
    {
        let line = inline([(text, string(text))]);
        let table: toml::Table = format!("x = {line}").parse().unwrap();
        assert_eq!(table["x"][text].as_str(), Some(text), "{line}");
    }
    assert_eq!(inline([("a-b_1", "1".to_owned())]), "{ a-b_1 = 1 }");
    assert_eq!(list([]), "[]");
}
