//! Text of others without what terminals and CI systems obey.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Control characters, and those that reorder, break or hide text.
pub(super) fn is_obeyed(c: char) -> bool {
    let alone = ['\u{ad}', '\u{61c}', '\u{180e}', '\u{feff}'];
    let ranges = [
        '\u{200b}'..='\u{200f}',
        '\u{2028}'..='\u{202e}',
        '\u{2060}'..='\u{206f}',
        '\u{fff9}'..='\u{fffb}',
        // Letters that nobody sees.
        '\u{e0000}'..='\u{e0fff}',
    ];
    c.is_control() || alone.contains(&c) || ranges.iter().any(|range| range.contains(&c))
}

/// A line that a terminal shows and a CI system prints, and that neither obeys: control characters as
/// `^[` (`cat -v`), characters that hide or reorder text as `\u{202e}`, and commands such as
/// `::add-mask::`, `##[group]` and `##vso[...]` broken by a blank.
pub(super) fn neutral(line: &[u8]) -> Vec<u8> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = String::from_utf8_lossy(line);
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => plain.push(c),
            '\0'..='\x1f' => plain.extend(['^', char::from(c as u8 + 0x40)]),
            '\x7f' => plain.push_str("^?"),
            c if is_obeyed(c) => plain.extend(c.escape_unicode()),
            c => plain.push(c),
        }
    }
    without_commands(&plain).into_owned().into_bytes()
}

/// GitHub's runner obeys `::` at the start of a line and `##[` anywhere, Azure's `##vso[`, and TeamCity
/// `##teamcity[`.
pub(super) fn without_commands(line: &str) -> Cow<'_, str> {
    let mut line = Cow::Borrowed(line);
    if line.contains("##") {
        line = Cow::Owned(line.replace("##", "# #").replace("##", "# #"));
    }
    if line.trim_start().starts_with("::") {
        line = Cow::Owned(line.replacen("::", ": :", 1));
    }
    line
}

/// Text in which HTML and XML take nothing for markup, in elements and in quoted attributes, nor in any other
/// of the characters that `also` names: each is written as its number.
pub(super) fn escaped(text: &str, also: &[char]) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '&' | '<' | '>' | '"' | '\'') || also.contains(&c) {
            // Writing to a String cannot fail.
            let _ = write!(plain, "&#{};", u32::from(c));
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Whether a CI system reads what is printed.
pub(super) fn in_ci() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|v: std::ffi::OsString| !v.is_empty());
    ["CI", "GITHUB_ACTIONS", "GITLAB_CI", "TF_BUILD", "TEAMCITY_VERSION"].into_iter().any(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_to_obey() {
        for (line, expected) in [
            ("plain\ttext", "plain\ttext"),
            ("\x1b[2J\x07", "^[[2J^G"),
            ("done\r", "done"),
            ("10%\r20%", "10%^M20%"),
            ("::set-output name=a::b", ": :set-output name=a::b"),
            ("  ::add-mask::x", "  : :add-mask::x"),
            ("a ##[group]b", "a # #[group]b"),
            ("###vso[task]", "# # #vso[task]"),
            ("a\u{202e}b\u{9b}1m", "a\\u{202e}b\\u{9b}1m"),
            ("h\u{f6}", "h\u{f6}"),
        ] {
            let plain = String::from_utf8(neutral(line.as_bytes())).unwrap();
            assert_eq!(plain, expected);
            assert!(!plain.contains("##"), "{plain}");
        }
        assert_eq!(neutral(b"\xff"), "\u{fffd}".as_bytes());
    }

    #[test]
    fn nothing_is_left_of_markup() {
        assert_eq!(escaped("<a b='\"'>&|", &[]), "&#60;a b=&#39;&#34;&#39;&#62;&#38;|");
        assert_eq!(escaped("a|b", &['|']), "a&#124;b");
    }
}
