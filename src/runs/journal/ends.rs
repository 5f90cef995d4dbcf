//! The last lines of runs that the newest segment does not know.
//!
//! A segment begins with the claims of what is under way, so a run's last line stands behind its claim in one
//! segment. A server that was killed after that line, and after the next segment was begun, may have left the
//! run's folder as if it went on.

use std::collections::HashMap;

use tracing::warn;

use super::read::{Found, Segment, path_of, segments};
use super::{Event, Journal, JournalError, Line};
use crate::proto::verdict::Anchor;
use crate::sys::mutex::lock;

/// Runs by identity and id, with their marks: an id that was free again is another run's.
pub type Sought = HashMap<(String, String), String>;

/// What an earlier segment says of the runs that are looked for.
#[derive(Default)]
struct Claims(HashMap<(String, String), Option<Anchor>>);

impl Journal {
    /// The last lines of these runs in the segments before the newest one, from the latest backwards until each
    /// run's claim was seen. What cannot be read there says nothing.
    #[must_use]
    pub fn ends_before(&self, mut sought: Sought) -> HashMap<(String, String), Anchor> {
        let mut ends = HashMap::new();
        for segment in self.earlier_segments() {
            if sought.is_empty() {
                break;
            }
            let mut claims = Claims::default();
            let path = path_of(&self.folder, segment);
            if let Err(e) = Segment::open(&path).and_then(|segment| claims.read(segment, &sought)) {
                warn!("{e}");
            }
            sought.retain(|key, _| !claims.0.contains_key(key));
            ends.extend(claims.0.into_iter().filter_map(|(key, end)| Some((key, end?))));
        }
        ends
    }

    fn earlier_segments(&self) -> Vec<u64> {
        let newest = lock(&self.tail).segment;
        let mut numbers = segments(&self.folder).unwrap_or_else(|e| {
            warn!("{e}");
            Vec::new()
        });
        numbers.retain(|number| *number < newest);
        numbers.sort_unstable_by_key(|number| std::cmp::Reverse(*number));
        numbers
    }
}

impl Claims {
    fn read(&mut self, mut segment: Segment, sought: &Sought) -> Result<(), JournalError> {
        while let Some(found) = segment.advance()? {
            if let Found::Line(line, hash) = found {
                let anchor = Anchor { seq: line.seq, hash };
                self.take(*line, anchor, sought);
            }
        }
        Ok(())
    }

    fn take(&mut self, line: Line, anchor: Anchor, sought: &Sought) {
        let key = match line.event {
            Event::Accepted(accepted) => {
                let key = (accepted.identity, accepted.run);
                if sought.get(&key) == Some(&accepted.mark) {
                    self.0.insert(key, None);
                } else {
                    self.0.remove(&key);
                }
                return;
            }
            Event::Ended { identity, verdict, .. } => (identity, verdict.run),
            Event::Lost { run, identity, .. } => (identity, run),
            _ => return,
        };
        if let Some(end) = self.0.get_mut(&key) {
            end.get_or_insert(anchor);
        }
    }
}
