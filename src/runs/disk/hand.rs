//! Who does one kind of work on a record's frames: whoever has a small one, or a thread of its own for large ones. That
//! is started for the first of them and stays: another one each time would find nothing in its processor's cache, and
//! a record was an eighth slower (measured on two processors).

/// Where there is work to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In this thread.
    Here,
    /// In another one, while this one goes on.
    Elsewhere,
}

/// Who does it.
#[derive(Debug, Default)]
pub(super) struct Hand {
    /// Somebody is at it, and takes what comes as well.
    busy: bool,
    thread: Thread,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Thread {
    #[default]
    None,
    /// It has done what there was.
    Waits,
    /// It is at it, or has been called.
    Works,
}

impl Hand {
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// From here on the caller is at it, or whom it calls. False if somebody else is.
    pub(super) fn claim(&mut self) -> bool {
        !std::mem::replace(&mut self.busy, true)
    }

    /// Leaves what was claimed to the thread. False if there is none.
    pub(super) fn call(&mut self) -> bool {
        let waits = self.thread == Thread::Waits;
        if waits {
            self.thread = Thread::Works;
        }
        waits
    }

    /// There is a thread now, which is at what was claimed.
    pub(super) fn started(&mut self) {
        self.thread = Thread::Works;
    }

    /// Nothing is left to be done.
    pub(super) fn rest(&mut self) {
        self.busy = false;
        if self.thread == Thread::Works {
            self.thread = Thread::Waits;
        }
    }

    /// Whether the thread has not been called.
    pub(super) fn waits(&self) -> bool {
        self.thread == Thread::Waits
    }

    /// The thread goes, if it has not been called.
    pub(super) fn leave(&mut self) -> bool {
        let leaves = self.waits();
        if leaves {
            self.thread = Thread::None;
        }
        leaves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_is_at_it() {
        let mut hand = Hand::default();
        assert!(hand.claim() && !hand.claim() && hand.is_busy());
        hand.rest();
        assert!(!hand.is_busy() && hand.claim());
    }

    #[test]
    fn a_thread_stays_and_is_called_again() {
        let mut hand = Hand::default();
        assert!(hand.claim() && !hand.call(), "there is none");
        hand.started();
        hand.rest();
        assert!(hand.waits() && hand.claim() && hand.waits(), "others may be at it meanwhile");
        hand.rest();
        assert!(hand.claim() && hand.call() && !hand.waits());
        assert!(!hand.leave(), "it has been called");
        hand.rest();
        assert!(hand.leave() && !hand.waits());
        assert!(hand.claim() && !hand.call());
    }
}
