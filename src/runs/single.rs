//! What a supervisor asks of its host, which has one run.

use super::host::Host;

impl Host {
    /// Whether there is no run, because it could not be started.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs_here().is_empty()
    }

    /// The run's record, to be read; none in a server.
    ///
    /// # Errors
    /// What the system says.
    pub fn record(&self) -> std::io::Result<Option<std::fs::File>> {
        self.books.record()
    }

    /// Waits until the run has its verdict in the record, or cannot have it there.
    pub async fn one_is_over(&self) {
        loop {
            let changed = self.idle.notified();
            if self.runs_here().first().is_some_and(|run| run.is_over()) {
                return;
            }
            changed.await;
        }
    }

    /// Of a run that is over: gives back what the record has set aside and not used.
    pub fn give_back(&self) {
        self.runs_here().iter().for_each(|run| run.give_back());
    }
}
