//! Secrets are masked in everything that is shown or written.

use std::sync::Arc;

/// What stands in a secret's place.
const MASK: &[u8] = b"***";
/// Lines of a secret from this length up are secrets too: many programs print them one by one.
const LINE_LEAST: usize = 8;

/// The values that are not to be seen.
#[derive(Clone, Default)]
pub(super) struct Secrets(Arc<Vec<Vec<u8>>>);

impl Secrets {
    pub(super) fn new(values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut all: Vec<Vec<u8>> = Vec::new();
        for value in values {
            let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
            all.extend(lines.filter(|line| line.len() >= LINE_LEAST));
            all.push(value);
        }
        all.retain(|value| !value.is_empty());
        all.sort();
        all.dedup();
        Self(Arc::new(all))
    }

    /// A text without them.
    pub(super) fn mask(&self, text: &str) -> String {
        let (mut masker, mut clean) = (Masker::new(self), Vec::new());
        masker.push(text.as_bytes(), &mut clean);
        masker.finish(&mut clean);
        String::from_utf8_lossy(&clean).into_owned()
    }
}

/// Masks a stream that comes in pieces.
pub(super) struct Masker {
    secrets: Secrets,
    /// What may be the beginning of a secret.
    held: Vec<u8>,
    /// So much of its start is covered by secrets in whose place the mask stands already.
    masked: usize,
}

impl Masker {
    pub(super) fn new(secrets: &Secrets) -> Self {
        Self { secrets: secrets.clone(), held: Vec::new(), masked: 0 }
    }

    /// Appends what is certain to `clean`; holds back what may become a secret.
    pub(super) fn push(&mut self, bytes: &[u8], clean: &mut Vec<u8>) {
        if self.secrets.0.is_empty() {
            clean.extend_from_slice(bytes);
            return;
        }
        self.held.extend_from_slice(bytes);
        let from = (0..self.held.len()).find(|at| self.may_begin(*at)).unwrap_or(self.held.len());
        self.emit(from, clean);
    }

    /// Appends the rest.
    pub(super) fn finish(&mut self, clean: &mut Vec<u8>) {
        self.emit(self.held.len(), clean);
    }

    /// Whether what is held from there on is a part of a secret, from its start.
    fn may_begin(&self, at: usize) -> bool {
        let rest = &self.held[at..];
        self.secrets.0.iter().any(|secret| secret.len() > rest.len() && secret.starts_with(rest))
    }

    /// Appends what is held up to `end`. What secrets cover there may reach past it, and grow on.
    fn emit(&mut self, end: usize, clean: &mut Vec<u8>) {
        let mut at = if self.masked > 0 { self.covered(0, self.masked) } else { 0 };
        while at < end {
            let covered = self.covered(at, at);
            if covered > at {
                clean.extend_from_slice(MASK);
                at = covered;
            } else {
                clean.push(self.held[at]);
                at += 1;
            }
        }
        self.masked = at - end;
        self.held.drain(..end);
    }

    /// The end of what secrets cover without a gap from `start` on, of which up to `end` is known.
    fn covered(&self, start: usize, mut end: usize) -> usize {
        end = end.max(self.longest(start).unwrap_or(end));
        let mut at = start + 1;
        while at < end {
            end = end.max(self.longest(at).unwrap_or(end));
            at += 1;
        }
        end
    }

    fn longest(&self, at: usize) -> Option<usize> {
        let begins = |secret: &&Vec<u8>| self.held[at..].starts_with(secret);
        self.secrets.0.iter().filter(begins).map(|secret| at + secret.len()).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(secrets: &[&str], text: &str, size: usize) -> String {
        let secrets = Secrets::new(secrets.iter().map(|s| s.as_bytes().to_vec()));
        let (mut masker, mut clean) = (Masker::new(&secrets), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            masker.push(piece, &mut clean);
        }
        masker.finish(&mut clean);
        String::from_utf8(clean).unwrap()
    }

    #[test]
    fn a_secret_is_masked_however_it_is_cut() {
        let cases: [(&[&str], &str, &str); 8] = [
            (&["hunter2"], "a hunter2 b", "a *** b"),
            (&["hunter2"], "hunterhunter2hunter", "hunter***hunter"),
            (&["abc", "abcdef"], "abcde abcdef", "***de ***"),
            (&["abcd", "cdef"], "xabcdefx", "x***x"),
            (&["aab"], "aaab", "a***"),
            (&["aa"], "aaa b", "*** b"),
            (&["line one\nline two"], "line two, line one", "***, ***"),
            (&[""], "nothing", "nothing"),
        ];
        for (secrets, text, expected) in cases {
            for size in 1..=text.len() {
                assert_eq!(masked(secrets, text, size), expected, "{text} by {size}");
            }
        }
    }

    /// Of what a host may write on purpose, who knows the secret.
    #[test]
    fn secrets_that_overlap_without_an_end_are_not_held() {
        for (secret, text) in [("aa", "a"), ("abcab", "abc")] {
            let secrets = Secrets::new([secret.into()]);
            let (mut masker, mut clean) = (Masker::new(&secrets), Vec::new());
            for _ in 0..1000 {
                masker.push(text.as_bytes(), &mut clean);
                assert!(masker.held.len() <= secret.len(), "{} bytes", masker.held.len());
            }
            masker.push(b"b ", &mut clean);
            masker.finish(&mut clean);
            let end = if secret == "aa" { "b " } else { "cb " };
            assert_eq!(String::from_utf8(clean).unwrap(), format!("***{end}"));
        }
    }

    #[test]
    fn nothing_is_held_that_cannot_become_a_secret() {
        let secrets = Secrets::new([b"hunter2".to_vec()]);
        let (mut masker, mut clean) = (Masker::new(&secrets), Vec::new());
        masker.push(b"password? ", &mut clean);
        assert_eq!(clean, b"password? ");
    }
}
