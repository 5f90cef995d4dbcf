//! Many hosts and many commands: a stream of typed events, and exactly one verdict for each step of each
//! host.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use rexec::Command;
//! use rexec::client::Target;
//! use rexec::client::batch::{Batch, Event, Host, Options, Step};
//! # let target: Target = todo!();
//! let hosts = vec![Host::new("web01:8080", target)];
//! let steps = vec![Step::new("build", Command::shell("make")), Step::new("test", Command::shell("make test"))];
//! let mut running = Batch { hosts, steps, options: Options::default() }.start()?;
//! while let Some(event) = running.next().await {
//!     if let Event::StepEnded { host, step, end } = event {
//!         println!("host {host}, step {step}: {}", end.outcome.name());
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod engine;
mod event;
mod halt;
pub mod hosts;
pub mod output;
pub mod plan;
mod spec;
mod step;
mod verdict;
mod worker;

pub use engine::Running;
pub use event::{Event, StepEnd};
pub use halt::{Halter, How, Why};
pub use spec::{AT_ONCE, Batch, BatchError, Options, RETRIES};
pub use step::{Before, OnError, RetryOn, Step};
pub use verdict::{Cause, Loss, Outcome, worst, worst_of};

use super::Target;

/// A machine to run on.
#[derive(Clone)]
pub struct Host {
    /// What people call it. Unique in a batch.
    pub name: String,
    /// Where it is and as whom to go there.
    pub target: Target,
    /// What became of its steps in an earlier batch, by the step's place; nothing of those that are missing.
    pub before: Vec<Before>,
}

impl Host {
    /// A host on which nothing was run before.
    #[must_use]
    pub fn new(name: impl Into<String>, target: Target) -> Self {
        Self { name: name.into(), target, before: Vec::new() }
    }
}
