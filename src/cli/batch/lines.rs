//! Bytes as lines.

/// Longest line that is shown in one piece, bytes.
pub(super) const LINE_LIMIT: usize = 64 * 1024;

/// Puts the lines of one stream together.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
}

impl Lines {
    /// Hands on each line that `bytes` end, without its end and with true, and with false the pieces of a
    /// line that is too long.
    pub(super) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8], bool)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            match part.strip_suffix(b"\n") {
                Some(rest) if self.begun.is_empty() && rest.len() <= LINE_LIMIT => line(rest, true),
                Some(rest) => {
                    self.extend(rest, &mut line);
                    line(&std::mem::take(&mut self.begun), true);
                }
                None => self.extend(part, &mut line),
            }
        }
    }

    fn extend(&mut self, bytes: &[u8], line: &mut impl FnMut(&[u8], bool)) {
        let mut rest = bytes;
        while self.begun.len() + rest.len() > LINE_LIMIT {
            let (fits, more) = rest.split_at(LINE_LIMIT - self.begun.len());
            self.begun.extend_from_slice(fits);
            line(&std::mem::take(&mut self.begun), false);
            rest = more;
        }
        self.begun.extend_from_slice(rest);
    }

    /// The last line, if it has no end.
    pub(super) fn finish(&mut self, line: impl FnOnce(&[u8])) {
        if !self.begun.is_empty() {
            line(&std::mem::take(&mut self.begun));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line, _| all.push(line.to_vec()));
        }
        lines.finish(|line| all.push(line.to_vec()));
        all
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let text = b"one\n\ntwo and more\nlast";
        let expected: Vec<_> = text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        for size in 1..text.len() {
            assert_eq!(lines(&text.chunks(size).collect::<Vec<_>>()), expected);
        }
        assert_eq!(lines(&[b"ended\n"]), [b"ended"]);
    }

    #[test]
    fn a_line_past_the_limit_comes_in_pieces() {
        let long = vec![b'x'; LINE_LIMIT];
        let at = [long.as_slice(), b"\n"].concat();
        assert_eq!(lines(&[&at]), std::slice::from_ref(&long));
        let past = [long.as_slice(), b"y\n"].concat();
        for size in [7, LINE_LIMIT, past.len()] {
            assert_eq!(
                lines(&past.chunks(size).collect::<Vec<_>>()),
                [long.clone(), b"y".to_vec()]
            );
        }
    }
}
