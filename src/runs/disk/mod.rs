//! Durable runs on disk: one folder for each, with its record as frames.

pub mod folder;
mod hand;
pub mod over;
pub mod scan;
pub mod size;
mod tail;
pub mod view;
pub mod writer;

pub use folder::{Folder, Meta, Outcome};
pub use over::Over;
pub use size::Size;
pub use tail::Progress;
pub(super) use tail::is_full;
pub use view::{View, verdict_at};
pub use writer::Writer;
