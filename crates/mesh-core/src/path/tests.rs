#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use proptest::prelude::*;

use super::*;

/// Paths and their canonical form.
const GOOD: &[(&str, &str)] = &[
    ("/", "/"),
    ("/a", "/a"),
    ("/a/", "/a/"),
    ("/a/b", "/a/b"),
    ("/a/b/", "/a/b/"),
    ("/A/b", "/A/b"),
    // Slashes.
    ("//", "/"),
    ("///", "/"),
    ("//a", "/a"),
    ("/a//b", "/a/b"),
    ("/a///b//", "/a/b/"),
    // Dot segments, plain and escaped.
    ("/.", "/"),
    ("/./", "/"),
    ("/./a", "/a"),
    ("/a/.", "/a/"),
    ("/a/./b", "/a/b"),
    ("/a/..", "/"),
    ("/a/../", "/"),
    ("/a/../b", "/b"),
    ("/a/b/..", "/a/"),
    ("/a/b/../", "/a/"),
    ("/a/b/../../c", "/c"),
    ("/a//../b", "/b"),
    ("/a/.//../b", "/b"),
    ("/a/%2e", "/a/"),
    ("/a/%2E/b", "/a/b"),
    ("/a/%2e%2e", "/"),
    ("/a/%2E%2e/b", "/b"),
    ("/a/.%2e/b", "/b"),
    ("/a/%2e./b", "/b"),
    ("/...", "/..."),
    ("/....", "/...."),
    ("/a/.../b", "/a/.../b"),
    ("/.a", "/.a"),
    ("/a.", "/a."),
    ("/..a", "/..a"),
    ("/a..", "/a.."),
    ("/a../b", "/a../b"),
    ("/%2e%2e%2e", "/..."),
    ("/.well-known/x", "/.well-known/x"),
    // Unreserved escapes decode, others go upper case.
    ("/%61", "/a"),
    ("/%41", "/A"),
    ("/%7e", "/~"),
    ("/%7Ea", "/~a"),
    ("/%2d%5f", "/-_"),
    ("/%30", "/0"),
    ("/a%20b", "/a%20b"),
    ("/a%3ab", "/a%3Ab"),
    ("/a%40b", "/a%40b"),
    ("/a%2bb", "/a%2Bb"),
    ("/a%3fb", "/a%3Fb"),
    ("/a%23b", "/a%23b"),
    ("/a%22b", "/a%22b"),
    // Raw bytes that may stand in a path.
    ("/a:b@c", "/a:b@c"),
    ("/a+b,c=d&e", "/a+b,c=d&e"),
    ("/!$'()*", "/!$'()*"),
    ("/~u/-_.", "/~u/-_."),
    // Raw bytes that may not become escapes.
    ("/a\"b", "/a%22b"),
    ("/{id}", "/%7Bid%7D"),
    ("/a|b", "/a%7Cb"),
    ("/<x>", "/%3Cx%3E"),
    ("/a[0]", "/a%5B0%5D"),
    ("/a^`b", "/a%5E%60b"),
    // UTF-8 in escapes; NFC and NFD stay apart.
    ("/caf%c3%a9", "/caf%C3%A9"),
    ("/cafe%cc%81", "/cafe%CC%81"),
    ("/%e2%82%ac", "/%E2%82%AC"),
    ("/%f0%9f%98%80", "/%F0%9F%98%80"),
    ("/%ef%bc%8f", "/%EF%BC%8F"),
    ("/%c3%a9/../b", "/b"),
    // A percent sign as data.
    ("/100%25", "/100%25"),
    ("/100%25/x", "/100%25/x"),
    ("/a%2520b", "/a%2520b"),
    ("/a%2541", "/a%2541"),
    ("/a%25zz", "/a%25zz"),
    ("/a%252", "/a%252"),
];

#[test]
fn paths_have_one_canonical_form() {
    for (path, want) in GOOD {
        assert_eq!(canonical(path).as_deref(), Ok(*want), "{path}");
        assert_eq!(canonical(want).as_deref(), Ok(*want), "again: {path}");
    }
}

#[test]
fn ambiguous_paths_are_refused() {
    let byte = |found, at| PathError::Byte { found, at };
    let escaped = |found, at| PathError::Escaped { found, at };
    let twice = |text: &str| PathError::Twice(text.to_owned());
    let cases: &[(&str, PathError)] = &[
        ("", PathError::Length { len: 0 }),
        ("a", PathError::Relative),
        ("*", PathError::Relative),
        ("./a", PathError::Relative),
        ("%2fa", PathError::Relative),
        ("http://x/a", PathError::Relative),
        // Slashes and backslashes in disguise.
        ("/a%2fb", escaped(b'/', 2)),
        ("/a%2Fb", escaped(b'/', 2)),
        ("/..%2fa", escaped(b'/', 3)),
        ("/a\\b", byte(b'\\', 2)),
        ("/..\\a", byte(b'\\', 3)),
        ("/a%5cb", escaped(b'\\', 2)),
        ("/a%5Cb", escaped(b'\\', 2)),
        // Control characters and spaces.
        ("/a%00", escaped(0, 2)),
        ("/a\0", byte(0, 2)),
        ("/a%0d%0a", escaped(b'\r', 2)),
        ("/a%0A", escaped(b'\n', 2)),
        ("/a\r\n", byte(b'\r', 2)),
        ("/a\tb", byte(b'\t', 2)),
        ("/a b", byte(b' ', 2)),
        ("/a%09", escaped(b'\t', 2)),
        ("/a%1f", escaped(0x1f, 2)),
        ("/a%7f", escaped(0x7f, 2)),
        ("/a\x7f", byte(0x7f, 2)),
        // Parameters, queries, fragments.
        ("/a;b=c", byte(b';', 2)),
        ("/a/..;/b", byte(b';', 5)),
        ("/;/a", byte(b';', 1)),
        ("/a%3bb", escaped(b';', 2)),
        ("/a/..%3B/b", escaped(b';', 5)),
        ("/a?b", byte(b'?', 2)),
        ("/a?", byte(b'?', 2)),
        ("/a#b", byte(b'#', 2)),
        ("/#", byte(b'#', 1)),
        // Non-ASCII.
        ("/café", byte(0xc3, 4)),
        ("/\u{ff0f}", byte(0xef, 1)),
        // Broken escapes.
        ("/%", PathError::Escape { at: 1 }),
        ("/%2", PathError::Escape { at: 1 }),
        ("/%2g", PathError::Escape { at: 1 }),
        ("/%%", PathError::Escape { at: 1 }),
        ("/% 2", PathError::Escape { at: 1 }),
        ("/%+2", PathError::Escape { at: 1 }),
        ("/%u002e", PathError::Escape { at: 1 }),
        ("/a%c3%", PathError::Escape { at: 5 }),
        // Not UTF-8: lone, cut, overlong, surrogate, beyond Unicode, split by ASCII.
        ("/%ff", PathError::NotText),
        ("/%c3", PathError::NotText),
        ("/%c3a%a9", PathError::NotText),
        ("/%c3/%a9", PathError::NotText),
        ("/%a9", PathError::NotText),
        ("/%c0%ae%c0%ae/", PathError::NotText),
        ("/%c0%af", PathError::NotText),
        ("/%c1%9c", PathError::NotText),
        ("/%e0%80%af", PathError::NotText),
        ("/%f0%80%80%af", PathError::NotText),
        ("/%ed%a0%80", PathError::NotText),
        ("/%f4%90%80%80", PathError::NotText),
        ("/%c2%85", PathError::NotText),
        // Encoded twice.
        ("/%252e%252e/", twice("%252e")),
        ("/%252E", twice("%252E")),
        ("/a%252fb", twice("%252f")),
        ("/a%255cb", twice("%255c")),
        ("/a%2500", twice("%2500")),
        ("/a%250a", twice("%250a")),
        ("/a%253b", twice("%253b")),
        ("/a%25252e", twice("%2525")),
        ("/%25%32%65", twice("%252e")),
        ("/%25%32e", twice("%252e")),
        // Above the root.
        ("/..", PathError::AboveRoot),
        ("/../", PathError::AboveRoot),
        ("/../a", PathError::AboveRoot),
        ("/./../a", PathError::AboveRoot),
        ("//../a", PathError::AboveRoot),
        ("/a/../../b", PathError::AboveRoot),
        ("/%2e%2e/a", PathError::AboveRoot),
        ("/a/../..", PathError::AboveRoot),
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

#[test]
fn hosts_have_one_canonical_form() {
    let good = [
        ("orders", "orders"),
        ("Orders.Mesh", "orders.mesh"),
        ("orders.mesh.", "orders.mesh"),
        ("orders.mesh:80", "orders.mesh"),
        ("orders.mesh.:8080", "orders.mesh"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1:65535", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("[::1]:80", "[::1]"),
        ("[0:0::0:1]", "[::1]"),
        ("[FE80::A]", "[fe80::a]"),
        ("xn--caf-dma.example", "xn--caf-dma.example"),
        ("4ever", "4ever"),
        ("1.example", "1.example"),
    ];
    for (host, want) in good {
        assert_eq!(canonical_host(host).as_deref(), Ok(want), "{host}");
        assert_eq!(canonical_host(want).as_deref(), Ok(want), "again: {host}");
    }
}

#[test]
fn ambiguous_hosts_are_refused() {
    let long = "a.".repeat(128);
    let label = "a".repeat(64);
    let bad = [
        "",
        ".",
        "..",
        "a..",
        "a..b",
        ".a",
        ":80",
        "a:",
        "a:0",
        "a:+1",
        "a:65536",
        "a:b",
        "a:1:2",
        "u@a",
        "u:p@a",
        "@",
        "a b",
        "a/b",
        "a\\b",
        "a?b",
        "a#b",
        "a%41",
        "a_b",
        "café",
        "а",
        "a\0",
        "-a",
        "a-",
        "a.-b",
        "::1",
        "[::1",
        "::1]",
        "[]",
        "[::1]x",
        "[::1].",
        "[::1]:",
        "[fe80::1%lo]",
        "[127.0.0.1]",
        "127.1",
        "0127.0.0.1",
        "127.0.0.01",
        "0x7f.0.0.1",
        "0x7f.1",
        "2130706433",
        "1.2.3.4.5",
        "256.1.1.1",
        "a.1",
        "a.0x1",
        "a,b",
        "*",
        &long,
        &label,
    ];
    for host in bad {
        assert!(canonical_host(host).is_err(), "accepted {host:?}");
    }
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
            let clean = |b: u8| b.is_ascii_graphic() && !br#"\#?;"<>[]^`{|}"#.contains(&b);
            let all_clean = once.bytes().all(clean);
            prop_assert!(all_clean, "{}", once);
            for bad in ["%2F", "%5C", "%00", "%2E", "%3B", "%252e", "%252E", "%252f", "%252F"] {
                prop_assert!(!once.contains(bad), "{} in {}", bad, once);
            }
        }
    }

    #[test]
    fn escaping_everything_unreserved_changes_nothing(segments in prop::collection::vec("[a-zA-Z0-9._~-]{1,6}", 1..5)) {
        let plain = format!("/{}", segments.join("/"));
        let escape = |s: &String| s.bytes().map(|b| format!("%{b:02x}")).collect::<String>();
        let escaped = format!("/{}", segments.iter().map(escape).collect::<Vec<_>>().join("/"));
        prop_assert_eq!(canonical(&plain), canonical(&escaped));
    }

    #[test]
    fn canonical_host_is_idempotent(host in "[a-zA-Z0-9.:_@\\[\\]-]{0,20}|.*") {
        if let Ok(once) = canonical_host(&host) {
            prop_assert_eq!(canonical_host(&once), Ok(once));
        }
    }
}
