//! Addresses and the streams between them.
