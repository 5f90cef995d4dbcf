//! What is kept of durable runs that are over.
