//! Memory of a run: slots that values and cotangents use one after the other, their sizes known
//! before anything runs.
//!
//! A slot is as large as the largest of its users can be. Cotangents of what a ReLU reads take what
//! its mask leaves, about half of that; the rest of their slot is never touched, and costs no
//! memory on systems that hand out pages when they are first written.

use std::sync::{Mutex, PoisonError};

use crate::compile::ids::ids;
use crate::kernels::SimdFloat;

ids! {
    /// Index of a slot of an [`Arena`].
    SlotId
}

/// The time during which something needs a slot, from its first use to its last, and how many
/// elements of one sample it takes at most. Times are counted in kernels and steps, in the order in
/// which they run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) first: usize,
    pub(crate) last: usize,
    pub(crate) size: usize,
}

impl Lease {
    /// Whether both need their slot at the same time.
    fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Gives each lease a slot that no other has during its time. Returns the slots of the leases and
/// the sizes of the slots.
///
/// Greedy, the largest lease first, each into the first slot that is free for it: a slot then has
/// the size of the first lease in it, and the small ones fit into what the large ones leave free.
pub(crate) fn assign(leases: &[Lease]) -> (Vec<SlotId>, Vec<usize>) {
    let mut order: Vec<usize> = (0..leases.len()).collect();
    order.sort_by_key(|&lease| std::cmp::Reverse(leases[lease].size));
    let mut slots: Vec<Vec<&Lease>> = Vec::new();
    let mut own = vec![SlotId(0); leases.len()];
    for lease in order {
        let free = |users: &Vec<&Lease>| users.iter().all(|user| !user.overlaps(&leases[lease]));
        let slot = slots.iter().position(free).unwrap_or_else(|| {
            slots.push(Vec::new());
            slots.len() - 1
        });
        slots[slot].push(&leases[lease]);
        own[lease] = SlotId(slot);
    }
    let largest = |users: &Vec<&Lease>| users.iter().map(|user| user.size).max().unwrap_or(0);
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
    /// An arena for `samples` samples: slots of these sizes per sample, each with `slack` elements
    /// after it that kernels may read.
    pub(crate) fn take(&self, sizes: &[usize], slack: usize, samples: usize) -> Arena<T> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut arena = free.unwrap_or_else(|| Arena { slots: Vec::new() });
        arena.slots.resize_with(sizes.len(), Vec::new);
        for (slot, size) in arena.slots.iter_mut().zip(sizes) {
            let needed = size * samples + slack;
            if slot.len() < needed {
                // Allocated anew instead of grown: growing would copy what nobody needs, and zeros
                // that nobody has written take no memory.
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
    pub(crate) fn take(&mut self, slot: SlotId) -> Vec<T> {
        std::mem::take(&mut self.slots[slot.index()])
    }

    /// Puts it back.
    pub(crate) fn put(&mut self, slot: SlotId, buffer: Vec<T>) {
        self.slots[slot.index()] = buffer;
    }

    /// A slot's buffer.
    pub(crate) fn slot(&self, slot: SlotId) -> &[T] {
        &self.slots[slot.index()]
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
            assert!(!(leases[a].overlaps(&leases[b]) && own[a] == own[b]), "{a} and {b}: {own:?}");
        }
        assert!(sizes.len() < leases.len(), "{own:?}");
        assert!((0..leases.len()).all(|lease| sizes[own[lease].index()] >= leases[lease].size));
    }
}
