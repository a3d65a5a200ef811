//! Files that are wrong, for every way in which one reaches the mesh: what is in them, where the
//! error is, and what must be said about it.

/// One wrong file.
pub(crate) struct Row {
    /// For who reads a failure.
    pub(crate) what: &'static str,
    /// The file.
    pub(crate) text: Vec<u8>,
    /// `LINE:COLUMN` of the error, or its beginning.
    pub(crate) place: &'static str,
    /// What was found, and what is expected.
    pub(crate) words: &'static [&'static str],
}

fn row(
    what: &'static str, text: impl Into<Vec<u8>>, place: &'static str,
    words: &'static [&'static str],
) -> Row {
    Row { what, text: text.into(), place, words }
}

/// Wrong as TOML, so in policy and in host files alike: `head` is the first line, a table's, and
/// `key = "value"` a line that may follow it.
pub(crate) fn toml(head: &str, key: &str, value: &str) -> Vec<Row> {
    let line = |line: &str| format!("{head}\n{line}\n").into_bytes();
    let joined = |parts: &[&[u8]]| parts.concat();
    let good = format!("{key} = \"{value}\"");
    let deep = "[".repeat(10_000);
    let dotted = vec!["a"; 10_000].join(".");
    // Its first letter is Cyrillic.
    let alike = format!("\u{440}{key} = \"{value}\"");
    let utf16: Vec<u8> = "\u{feff}[a]".encode_utf16().flat_map(u16::to_le_bytes).collect();
    vec![
        row("50 MB", vec![b'#'; 50 << 20], "1:1", &["more than 1048576 bytes", "at most"]),
        row(
            "a byte order mark",
            joined(&[b"\xef\xbb\xbf", &line(&good)]),
            "1:1",
            &["starts with a byte order mark", "expected UTF-8 without one"],
        ),
        row("UTF-16", utf16, "1:1", &["byte 0xff is not UTF-8", "expected a text file in UTF-8"]),
        row(
            "a byte that is not UTF-8",
            joined(&[&line(""), b"# \xff\n"]),
            "3:3",
            &["byte 0xff is not UTF-8", "expected a text file in UTF-8"],
        ),
        row(
            "cut within a character",
            joined(&[&line(""), b"# \xe2\x82"]),
            "3:3",
            &["byte 0xe2 is not UTF-8", "expected a text file in UTF-8"],
        ),
        row("NUL in a comment", line("# \0"), "2:3", &["'\\0'", "expected printable characters"]),
        row("NUL in a key", line("a\0b = 1"), "2:2", &["'\\0'", "expected letters, numbers"]),
        row(
            "a lone carriage return",
            format!("{head}\r{good}\n"),
            "1:",
            &["carriage return must be followed by newline"],
        ),
        row(
            "a string without end",
            line(&format!("{key} = \"{value}")),
            "2:",
            &["expected `\"`", "found the end of the line"],
        ),
        row(
            "a long string without end",
            line(&format!("{key} = \"\"\"{value}")),
            "3:1",
            &["expected `\"`", "found the end of the file"],
        ),
        row(
            "a table's name without end",
            format!("{}\n{good}\n", head.replace(']', "")),
            "1:",
            &["expected `]`", "found the end of the line"],
        ),
        row(
            "a key given twice",
            line(&format!("{good}\n{good}")),
            "3:1",
            &["given twice", "line 2"],
        ),
        row("a table twice", line(head), "2:", &["is declared twice, first at line 1"]),
        row(
            "deep arrays",
            line(&format!("{key} = {deep}")),
            "2:",
            &["nested too deep", "80 levels"],
        ),
        row("deep keys", line(&format!("{dotted} = 1")), "2:1", &["nested too deep", "80 levels"]),
        row("deep tables", format!("{head}\n\n[{dotted}]\n"), "3:1", &["nested too deep", "80"]),
        row("a look-alike", line(&alike), "2:1", &["found '\u{440}' (U+0440)", "expected letters"]),
        row("an unknown key", line("xyzzy = 1"), "2:1", &["unknown key \"xyzzy\"", "expected"]),
    ]
}

/// Wrong as policy.
pub(crate) fn policy() -> Vec<Row> {
    let service = |line: &str| format!("[service.orders]\n{line}\n");
    let duration = &["expected a duration such as \"250ms\""];
    vec![
        row(
            "a key misspelt",
            service("timeot = \"2s\""),
            "2:1",
            &["unknown key \"timeot\"", "expected \"timeout\""],
        ),
        row(
            "a look-alike in quotes",
            service("\"\u{440}rotocol\" = \"http\""),
            "2:1",
            &["unknown key", "expected \"protocol\"", "look like others"],
        ),
        row("not a number", service("timeout = nan"), "2:11", duration),
        row("a number too large", service("timeout = 99999999999999999999"), "2:11", duration),
        row("one past 64 bits", service("timeout = 9223372036854775808"), "2:11", duration),
        row("less than nothing", service("timeout = -1"), "2:11", duration),
        row("a date", service("timeout = 2026-01-01"), "2:11", &["is a date or time", "expected"]),
        row(
            "NUL in a string",
            service("protocol = \"ht\0tp\""),
            "2:15",
            &["invalid basic string", "'\\0'"],
        ),
        row(
            "a weight too large",
            "[[service.orders.route]]\nto = [{ weight = 99999999999 }]\n",
            "2:18",
            &["weight is 99999999999", "expected a number from 0 to 1000000"],
        ),
        row(
            "a table of the host",
            "[service.orders]\n[instance.web-1]\nservice = \"web\"\nport = 8080\n",
            "2:",
            &["services.d", "not in policy"],
        ),
    ]
}

/// Wrong as a host's file.
pub(crate) fn host() -> Vec<Row> {
    let web = |line: &str| format!("[instance.web-2]\nservice = \"web\"\n{line}\n");
    vec![
        row("no port", web(""), "1:1", &["web-2 has no port", "expected"]),
        row("a port too large", web("port = 65536"), "3:8", &["65536", "expected"]),
        row("a port of words", web("port = \"http\""), "3:8", &["port is \"http\"", "expected"]),
        row(
            "a table of policy",
            web("port = 8082\n[[allow.web]]\nfrom = [\"*\"]"),
            "4:",
            &["belong in policy", "mesh apply"],
        ),
    ]
}
