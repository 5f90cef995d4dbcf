//! What was asked of a run of which no server has told yet.

use crate::client::control::Control;

/// Whether a server may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    No,
    /// Behind the request on this connection.
    Here,
    /// Behind that on an earlier one.
    Earlier,
}

/// Orders, as they were given.
#[derive(Debug, Default)]
pub(super) struct Pending(Vec<(Control, Said)>);

impl Pending {
    pub(super) fn push(&mut self, control: Control) {
        self.0.push((control, Said::No));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A connection is gone; these are what it did not take.
    pub(super) fn start_over(&mut self, untaken: Vec<Control>) {
        for (_, said) in &mut self.0 {
            if *said == Said::Here {
                *said = Said::Earlier;
            }
        }
        self.0.splice(..0, untaken.into_iter().map(|control| (control, Said::No)));
    }

    /// What is to be said behind the request now: a cancel, and a signal if the run `may_wait` there, whose end that is.
    pub(super) fn say(&mut self, may_wait: bool) -> Vec<Control> {
        let is_due = |control: &Control| match control {
            Control::Cancel => true,
            Control::Signal(_) => may_wait,
            Control::Detach | Control::Pause { .. } => false,
        };
        let unsaid =
            self.0.iter_mut().filter(|(control, said)| *said == Said::No && is_due(control));
        unsaid
            .map(|(control, said)| {
                *said = Said::Here;
                control.clone()
            })
            .collect()
    }

    /// The run has started, by an earlier request if it is `attached` to: what is to be asked of it. No signal comes
    /// twice. Who is new has none of those that were said on another connection, and all of those on this one.
    pub(super) fn take(&mut self, attached: bool) -> Vec<Control> {
        let is_due = |control: &Control, said| match said {
            Said::No => true,
            Said::Earlier => !attached || !is_signal(control),
            Said::Here => !is_signal(control),
        };
        let all = std::mem::take(&mut self.0);
        all.into_iter().filter_map(|(c, said)| is_due(&c, said).then_some(c)).collect()
    }
}

fn is_signal(control: &Control) -> bool {
    matches!(control, Control::Signal(_))
}
