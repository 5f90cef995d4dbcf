//! Keys, and which of them are known.
