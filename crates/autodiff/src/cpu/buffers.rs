//! Buffers that are handed on from layer to layer and from batch to batch: fresh memory costs page faults.

use std::sync::{Mutex, PoisonError};

use influence_kernels::Element;

/// Buffers that wait to be used again.
#[derive(Debug, Default)]
pub(super) struct Buffers<T>(Mutex<Vec<Vec<T>>>);

impl<T: Element> Buffers<T> {
    /// A buffer of at least `size` numbers, whatever they are.
    pub(super) fn take(&self, size: usize) -> Vec<T> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = (0..free.len()).filter(|&at| free[at].len() >= size).min_by_key(|&at| free[at].len());
        if let Some(at) = fitting {
            return free.swap_remove(at);
        }
        // Grow by giving up the largest, so that the pool does not collect sizes that nobody asks for.
        if let Some(at) = (0..free.len()).max_by_key(|&at| free[at].len()) {
            free.swap_remove(at);
        }
        drop(free);
        vec![T::default(); size + size / 16]
    }

    /// A buffer whose first `size` numbers are zero.
    pub(super) fn zeros(&self, size: usize) -> Vec<T> {
        let mut buffer = self.take(size);
        buffer[..size].fill(T::default());
        buffer
    }

    /// Takes a buffer back.
    pub(super) fn give(&self, buffer: Vec<T>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}
