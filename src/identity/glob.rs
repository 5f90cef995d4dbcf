//! Patterns of the `ssh_config`(5) kind: `*` stands for any characters, `?` for one.

/// Whether `pattern` is all of `text`, byte by byte. Takes at most as many steps as the product of both lengths: it
/// only ever goes back to the last `*`.
pub(super) fn is_match(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut here) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    while here < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                again = Some((at, here));
                at += 1;
            }
            Some(b) if *b == b'?' || *b == text[here] => {
                at += 1;
                here += 1;
            }
            _ => {
                let Some((star, from)) = again else { return false };
                (at, here) = (star + 1, from + 1);
                again = Some((star, from + 1));
            }
        }
    }
    pattern[at..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::is_match;

    #[test]
    fn a_pattern_is_all_of_a_text() {
        for (pattern, text, matches) in [
            ("", "", true),
            ("", "x", false),
            ("*", "", true),
            ("**", "", true),
            ("?", "", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("*b?", "aabbc", true),
            ("**a", "bba", true),
            ("[h]:*", "[h]:8080", true),
            ("abc", "ab", false),
            ("ab", "abc", false),
        ] {
            assert_eq!(is_match(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_are_no_trap() {
        assert!(!is_match(&"*a".repeat(4000), &"a".repeat(3999)));
    }
}
