//! Locks between the threads of this process.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks what is only ever held for a moment. A panic of who held it has ended that task, and must not end all
/// others that share it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
