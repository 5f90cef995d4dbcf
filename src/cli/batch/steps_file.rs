//! Steps from a file: one command a line.

use std::path::Path;

use crate::client::batch::plan::StepSpec;

/// The commands of a file, each with the number of its first line: lines that end in a backslash go on
/// in the next one, and `#` begins a comment where a shell would begin one.
fn commands(text: &str) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (number, line) in text.lines().enumerate() {
        let (part, more) = match line.strip_suffix('\\') {
            // An even number of them is no continuation: each pair is one backslash.
            Some(part) if trailing_backslashes(line) % 2 == 1 => (part, true),
            _ => (line, false),
        };
        match all.last_mut().filter(|_| goes_on) {
            Some((_, command)) => command.push_str(part),
            None => all.push((number + 1, part.to_owned())),
        }
        goes_on = more;
    }
    all
}

fn trailing_backslashes(line: &str) -> usize {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count()
}

/// Reads the steps of a file.
pub(super) fn read(path: &Path, text: &str) -> Result<Vec<StepSpec>, String> {
    let mut steps = Vec::new();
    for (line, command) in commands(text) {
        match shlex::split(&command) {
            None => {
                let path = path.display();
                return Err(format!(
                    "{path}:{line}: a quote or a backslash has no end: {}",
                    command.trim()
                ));
            }
            // Nothing but a comment.
            Some(words) if words.is_empty() => {}
            Some(_) => steps.push(StepSpec::shell(command.trim())),
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<String>, String> {
        let steps = read(Path::new("steps.txt"), text)?;
        Ok(steps.into_iter().map(|step| step.to_string()).collect())
    }

    #[test]
    fn one_command_a_line_with_comments_and_continuation() {
        let text = "# all\n\nmake -j4\nmake \\\n  test \\\n  all\n  echo '#' \"# no comment\"\nprintf a\\\\\nid";
        let expected =
            ["make -j4", "make   test   all", "echo '#' \"# no comment\"", "printf a\\\\", "id"];
        assert_eq!(names(text).unwrap(), expected);
    }

    #[test]
    fn a_broken_quote_is_named_with_its_line() {
        for (text, line) in [("true\necho 'x\ntrue", 2), ("a \\\n b \"", 1)] {
            let error = names(text).unwrap_err();
            let expected = format!("steps.txt:{line}: ");
            assert!(error.starts_with(&expected) && error.contains("has no end"), "{error}");
        }
    }
}
