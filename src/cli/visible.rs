//! Text of others, so that no terminal obeys it.

use std::io::{self, IsTerminal as _};

use super::clean::is_obeyed;

/// Text with what a terminal obeys written out.
pub(super) fn visible(text: &str) -> String {
    let mut visible = String::new();
    for c in text.chars() {
        if is_obeyed(c) {
            visible.extend(c.escape_default());
        } else {
            visible.push(c);
        }
    }
    visible
}

/// JSON as standard output is to have it: on a terminal what that would obey is escaped as JSON escapes it;
/// the value is the same.
pub(super) fn json_for_stdout(json: String) -> String {
    if io::stdout().is_terminal() { visible_json(&json) } else { json }
}

/// Lines of JSON without what a terminal obeys: but for their ends such characters stand only in strings.
pub(super) fn visible_json(json: &str) -> String {
    let mut text = String::new();
    for c in json.chars() {
        if c != '\n' && is_obeyed(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                text += &format!("\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_on_a_terminal_keeps_its_value() {
        let value = serde_json::json!({"command": "a\u{9b}31m\u{202e}\u{7f}\u{1b}é🦀"});
        let raw = value.to_string();
        let shown = visible_json(&raw);
        assert!(!shown.chars().any(is_obeyed) && raw.chars().any(is_obeyed), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
