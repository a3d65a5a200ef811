#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use proptest::prelude::*;

use super::*;

const PATHS: &str = include_str!("tests/paths.txt");
const HOSTS: &str = include_str!("tests/hosts.txt");

/// The rows of such a table: what comes, and its canonical form if it has one.
fn rows(table: &str) -> impl Iterator<Item = (String, Option<&str>)> {
    let lines = table.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    lines.map(|line| {
        let (input, want) = line.split_once(" => ").expect("INPUT => WANT");
        (input.chars().map(pictured).collect(), Some(want).filter(|want| *want != "refused"))
    })
}

/// The character that a control picture stands for.
fn pictured(c: char) -> char {
    match u32::from(c) {
        0x2421 => '\x7f',
        code @ 0x2400..=0x2420 => char::from_u32(code - 0x2400).unwrap(),
        _ => c,
    }
}

#[test]
fn b_path_every_path_has_one_form_or_none() {
    let (mut good, mut bad) = (0, 0);
    for (path, want) in rows(PATHS) {
        let got = canonical(&path);
        assert_eq!(got.as_deref().ok(), want, "{path:?}: {got:?}");
        let Some(want) = want else {
            bad += 1;
            continue;
        };
        good += 1;
        assert_eq!(canonical(want).as_deref(), Ok(want), "again: {path:?}");
    }
    assert!(good >= 100 && bad >= 150, "{good} and {bad} rows");
}

#[test]
fn b_path_a_form_is_shared_by_every_spelling_and_by_nothing_else() {
    let decoded = |path: &str| {
        let mut bytes = Vec::new();
        let mut at = 0;
        while let Some(&byte) = path.as_bytes().get(at) {
            let escape = escape_at(path.as_bytes(), at).filter(|_| byte == b'%');
            bytes.push(escape.unwrap_or(byte));
            at += if escape.is_some() { 3 } else { 1 };
        }
        bytes
    };
    let forms: std::collections::BTreeSet<_> = rows(PATHS).filter_map(|(_, want)| want).collect();
    for form in &forms {
        let twin = forms.iter().find(|other| *other != form && decoded(other) == decoded(form));
        assert_eq!(twin, None, "two forms of what applications read alike: {form}");
        let escape = |b: u8| match b {
            b'/' => "/".to_owned(),
            _ => format!("%{b:02x}"),
        };
        let escaped: String = decoded(form).into_iter().map(escape).collect();
        if escaped.len() <= PATH_LEN_MAX {
            assert_eq!(canonical(&escaped).as_deref(), Ok(*form), "{escaped}");
        }
    }
}

#[test]
fn b_host_every_host_has_one_form_or_none() {
    let (mut good, mut bad) = (0, 0);
    for (host, want) in rows(HOSTS) {
        let got = canonical_host(&host);
        assert_eq!(got.as_deref().ok(), want, "{host:?}: {got:?}");
        let Some(want) = want else {
            bad += 1;
            continue;
        };
        good += 1;
        assert_eq!(canonical_host(want).as_deref(), Ok(want), "again: {host:?}");
    }
    assert!(good >= 35 && bad >= 100, "{good} and {bad} rows");
    let longest = format!("{}a", "a.".repeat((HOST_LEN_MAX - 1) / 2));
    assert_eq!(canonical_host(&longest).as_deref(), Ok(&*longest));
    assert_eq!(canonical_host(&format!("{longest}.")), Err(HostError::Length { len: 256 }));
}

#[test]
fn b_host_ports_stand_beside() {
    let port = |host| host_and_port(host).map(|(_, port)| port.map(NonZeroU16::get));
    assert_eq!(port("orders"), Ok(None));
    assert_eq!(port("orders.:0080"), Ok(Some(80)));
    assert_eq!(port("[::1]:65535"), Ok(Some(65535)));
    assert_eq!(port("orders:0"), Err(HostError::Port("orders:0".to_owned())));
}

#[test]
fn refusals_say_what_and_where() {
    let byte = |found, at| PathError::Byte { found, at };
    let escaped = |found, at| PathError::Escaped { found, at };
    let twice = |text: &str| PathError::Twice(text.to_owned());
    let cases: &[(&str, PathError)] = &[
        ("", PathError::Length { len: 0 }),
        ("a", PathError::Relative),
        ("/..%2fa", escaped(b'/', 3)),
        ("/a%5Cb", escaped(b'\\', 2)),
        ("/a%00", escaped(0, 2)),
        ("/a%7f", escaped(0x7f, 2)),
        ("/a/..%3B/b", escaped(b';', 5)),
        ("/..\\a", byte(b'\\', 3)),
        ("/a\r\n", byte(b'\r', 2)),
        ("/a/..;/b", byte(b';', 5)),
        ("/a?", byte(b'?', 2)),
        ("/#", byte(b'#', 1)),
        ("/café", byte(0xc3, 4)),
        ("/%2", PathError::Escape { at: 1 }),
        ("/a%c3%", PathError::Escape { at: 5 }),
        ("/%c3a%a9", PathError::NotText),
        ("/%c2%85", PathError::NotText),
        ("/%252E", twice("%252E")),
        ("/%25%32%65", twice("%252e")),
        ("/a/../../b", PathError::AboveRoot),
    ];
    for (path, want) in cases {
        assert_eq!(canonical(path).as_ref(), Err(want), "{path:?}");
    }
}

#[test]
fn paths_are_bounded_before_and_after() {
    let longest = format!("/{}", "a".repeat(PATH_LEN_MAX - 1));
    assert_eq!(canonical(&longest).as_ref(), Ok(&longest));
    assert!(canonical(&format!("{longest}a")).is_err());
    let grows = format!("/{}", "{".repeat(PATH_LEN_MAX / 3 + 1));
    assert_eq!(canonical(&grows), Err(PathError::Length { len: 1 + (PATH_LEN_MAX / 3 + 1) * 3 }));
}

#[test]
fn errors_say_what_and_where() {
    let text = |path| canonical(path).unwrap_err().to_string();
    assert_eq!(text("/a%2fb"), "path has '%2F' at byte 2, which is refused in paths");
    assert_eq!(text("/a\\b"), "path has '\\\\' at byte 2, which is refused in paths");
    assert_eq!(text("/%252e"), "path is encoded twice: \"%252e\"");
}

/// Texts dense in what matters to a path.
fn pathlike() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/"),
        Just("."),
        Just(".."),
        Just("%2e"),
        Just("%2E"),
        Just("%25"),
        Just("%32"),
        Just("%65"),
        Just("2e"),
        Just("2f"),
        Just("%c3%a9"),
        Just("%c3"),
        Just("a"),
        Just("{"),
        Just("%7e"),
        Just("%3a"),
        Just("%"),
        Just(";"),
        Just("\\"),
        Just("%2f"),
        Just("%20"),
        Just("%40"),
        Just("@"),
        Just("+"),
        Just("%2b"),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #[test]
    fn canonical_is_idempotent_and_clean(path in prop_oneof![pathlike(), "(?s)/.{0,40}", ".*"]) {
        if let Ok(once) = canonical(&path) {
            prop_assert_eq!(canonical(&once), Ok(once.clone()));
            prop_assert!(once.starts_with('/') && !once.contains("//"));
            prop_assert!(once.split('/').all(|s| s != "." && s != ".."));
            let clean = |b: u8| b.is_ascii_graphic() && !br#"\#?;"<>[]^`{|}+"#.contains(&b);
            let all_clean = once.bytes().all(clean);
            prop_assert!(all_clean, "{}", once);
            for bad in ["%2F", "%5C", "%00", "%2E", "%3B", "%40", "%3A", "%252e", "%252E", "%252f", "%252F"] {
                prop_assert!(!once.contains(bad), "{} in {}", bad, once);
            }
        }
    }

    #[test]
    fn escaping_any_of_it_changes_nothing(
        text in "(/[a-z!\"$&-.:<=>@\\[\\]^_`{|}~ é]{1,6}){1,4}",
        draws in prop::collection::vec(any::<bool>(), 64),
    ) {
        let spelled = |draws: &[bool]| {
            let one = |(at, b): (usize, u8)| {
                let must = !b.is_ascii_graphic();
                match b != b'/' && (must || draws.get(at).copied().unwrap_or(true)) {
                    true => format!("%{b:02x}"),
                    false => char::from(b).to_string(),
                }
            };
            text.bytes().enumerate().map(one).collect::<String>()
        };
        prop_assert_eq!(canonical(&spelled(&draws)).ok(), canonical(&spelled(&[])).ok());
    }

    #[test]
    fn canonical_host_is_idempotent(host in "[a-zA-Z0-9.:_@\\[\\]-]{0,20}|.*") {
        if let Ok(once) = canonical_host(&host) {
            prop_assert_eq!(canonical_host(&once), Ok(once));
        }
    }
}
