//! Memory of a run: slots that values and cotangents use one after the other, their sizes known before anything runs.
//!
//! A slot is as large as the largest of its users can be. The cotangents behind a ReLU take what its mask leaves, about half; the rest of
//! their slot is never touched, and costs no memory on systems that hand out pages when they are first written.

use std::sync::{Mutex, PoisonError};

use crate::kernels::SimdFloat;

/// Who uses a slot, from which moment to which, and how many numbers of one sample that takes at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) first: usize,
    pub(crate) last: usize,
    pub(crate) size: usize,
}

/// Gives each lease a slot of its own for its time; the sizes of the slots with them.
pub(crate) fn assign(leases: &[Lease]) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..leases.len()).collect();
    // The large ones first, so that small ones fit into what they leave.
    order.sort_by_key(|&lease| std::cmp::Reverse(leases[lease].size));
    let mut slots: Vec<Vec<usize>> = Vec::new();
    let mut own = vec![0; leases.len()];
    for lease in order {
        let Lease { first, last, .. } = leases[lease];
        let free = |users: &Vec<usize>| {
            users.iter().all(|&user| leases[user].last < first || last < leases[user].first)
        };
        let slot = slots.iter().position(free).unwrap_or_else(|| {
            slots.push(Vec::new());
            slots.len() - 1
        });
        slots[slot].push(lease);
        own[lease] = slot;
    }
    let largest = |users: &Vec<usize>| users.iter().map(|&user| leases[user].size).max().unwrap_or(0);
    let sizes = slots.iter().map(largest).collect();
    (own, sizes)
}

/// Arenas that wait to be used again: fresh memory costs page faults.
#[derive(Debug, Default)]
pub(crate) struct Arenas<T>(Mutex<Vec<Arena<T>>>);

/// One set of slots.
#[derive(Debug, Default)]
pub(crate) struct Arena<T> {
    slots: Vec<Vec<T>>,
}

impl<T: SimdFloat> Arenas<T> {
    /// An arena for `samples` samples with slots of these sizes a sample, and `slack` numbers behind each, which kernels may read.
    pub(crate) fn take(&self, sizes: &[usize], slack: usize, samples: usize) -> Arena<T> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut arena = free.unwrap_or_else(|| Arena { slots: Vec::new() });
        arena.slots.resize_with(sizes.len(), Vec::new);
        for (slot, size) in arena.slots.iter_mut().zip(sizes) {
            let needed = size * samples + slack;
            if slot.len() < needed {
                // Not grown, but made anew: zeros that nobody has written take no memory.
                *slot = Vec::new();
                *slot = vec![T::default(); needed];
            }
        }
        arena
    }

    /// Takes an arena back.
    pub(crate) fn give(&self, arena: Arena<T>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
    }
}

impl<T: SimdFloat> Arena<T> {
    /// Takes a slot's buffer out, to write it while others are read.
    pub(crate) fn take(&mut self, slot: usize) -> Vec<T> {
        std::mem::take(&mut self.slots[slot])
    }

    /// Puts it back.
    pub(crate) fn put(&mut self, slot: usize, buffer: Vec<T>) {
        self.slots[slot] = buffer;
    }

    /// A slot's buffer.
    pub(crate) fn slot(&self, slot: usize) -> &[T] {
        &self.slots[slot]
    }
}

#[cfg(test)]
mod tests {
    //! No two leases that overlap in time share a slot, and slots are shared.

    use super::*;

    #[test]
    fn slots_are_shared_by_turns() {
        let lease = |first, last, size| Lease { first, last, size };
        let leases = [lease(0, 2, 10), lease(1, 3, 30), lease(3, 5, 20), lease(4, 6, 5), lease(6, 7, 40)];
        let (own, sizes) = assign(&leases);
        for (a, b) in (0..leases.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let overlap = leases[a].first <= leases[b].last && leases[b].first <= leases[a].last;
            assert!(!(overlap && own[a] == own[b]), "{a} and {b}: {own:?}");
        }
        assert!(sizes.len() < leases.len(), "{own:?}");
        assert!((0..leases.len()).all(|lease| sizes[own[lease]] >= leases[lease].size));
    }
}
