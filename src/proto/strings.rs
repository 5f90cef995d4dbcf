//! Byte strings in a body: each is ended by NUL, so any bytes but NUL are exact.

/// Why a body is not the byte strings that its header counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StringsError {
    /// The body ends inside a string.
    #[error("the body does not end with NUL")]
    Unterminated,
    /// The header counts other than the body holds.
    #[error("the header counts {said} strings, the body holds {held}")]
    Count {
        /// The header's count.
        said: u64,
        /// The body's.
        held: u64,
    },
}

/// Appends `string` to a body.
pub fn push(body: &mut Vec<u8>, string: &[u8]) {
    body.extend_from_slice(string);
    body.push(0);
}

/// The strings of a body, which must hold exactly `count` of them.
///
/// # Errors
/// A [`StringsError`]. The count is compared before anything is allocated for the strings.
pub fn split(body: &[u8], count: u64) -> Result<Vec<&[u8]>, StringsError> {
    let held = body.iter().filter(|b| **b == 0).count() as u64;
    let Some((last, rest)) = body.split_last() else {
        return if count == 0 {
            Ok(Vec::new())
        } else {
            Err(StringsError::Count { said: count, held })
        };
    };
    match (*last, held == count) {
        (0, true) => Ok(rest.split(|b| *b == 0).collect()),
        (0, false) => Err(StringsError::Count { said: count, held }),
        _ => Err(StringsError::Unterminated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_of_every_byte_but_nul() {
        let all: Vec<u8> = (1..=255).collect();
        let mut body = Vec::new();
        for s in [&b""[..], &all, b"", b"x"] {
            push(&mut body, s);
        }
        assert_eq!(split(&body, 4).unwrap(), [&b""[..], &all, b"", b"x"]);
    }

    #[test]
    fn counts_must_match() {
        assert_eq!(split(b"", 0).unwrap(), Vec::<&[u8]>::new());
        assert_eq!(split(b"", 1), Err(StringsError::Count { said: 1, held: 0 }));
        assert_eq!(split(b"a\0", 2), Err(StringsError::Count { said: 2, held: 1 }));
        assert_eq!(
            split(b"a\0b\0", u64::MAX),
            Err(StringsError::Count { said: u64::MAX, held: 2 })
        );
        assert_eq!(split(b"a\0b", 1), Err(StringsError::Unterminated));
    }
}
