//! Durable runs on disk: one folder for each, with its record as frames.

pub mod folder;
pub mod over;
pub mod scan;
mod tail;
pub mod view;
pub mod writer;

pub use folder::{Folder, Meta, Outcome, Size};
pub use over::Over;
pub use tail::Progress;
pub(super) use tail::{DEPTH, is_full};
pub use view::{View, verdict_at};
pub use writer::Writer;
