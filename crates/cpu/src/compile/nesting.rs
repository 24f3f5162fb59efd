//! Which buffer each store lies in: its own, or some channels of a concatenation that it is part
//! of, so that the parts need no copies.

use std::collections::HashMap;

use super::ids::StoreId;
use super::stage::{StageOp, Stages};

/// A store as some channels of another: the outermost concatenation that holds it, and its first
/// channel there.
pub(crate) type Nested = (StoreId, usize);

/// For each store that lies in a concatenation, where it lies in it.
#[derive(Debug, Default)]
pub(crate) struct Nesting(HashMap<StoreId, Nested>);

impl Nesting {
    /// The store that holds another, and the first channel in it; the store itself where nothing
    /// else does.
    pub(crate) fn of(&self, store: StoreId) -> Nested {
        self.0.get(&store).copied().unwrap_or((store, 0))
    }

    /// Whether a store is a concatenation, or lies in one.
    pub(crate) fn is_joint(&self, store: StoreId) -> bool {
        self.0.contains_key(&store)
    }
}

/// Where all stores lie.
///
/// Concatenations are visited from the last to the first. A part that is a concatenation itself
/// then finds its own offset decided already, and its parts are counted on from there: all layers
/// of a dense block lie in the buffer of the block's result.
pub(crate) fn nesting(stages: &Stages<'_>) -> Nesting {
    let writers = stages.writers();
    let mut nested = HashMap::new();
    for stage in stages.stages.iter().rev() {
        let StageOp::Concat(parts) = &stage.op else { continue };
        let mut offset = 0;
        let mut wanted = Vec::new();
        for &part in parts {
            wanted.push((part, offset));
            offset += stages.store(part).channels;
        }
        let already = inside(&nested, &wanted);
        let (root, base) = nested.get(&stage.output).copied().or(already).unwrap_or((stage.output, 0));
        nested.entry(stage.output).or_insert((root, base));
        for (part, offset) in wanted {
            // The input and the output of the network have buffers of their own. A part of several
            // concatenations lies in the one that is visited first; the others copy it.
            if writers[part.index()].is_some() && part != stages.output {
                nested.entry(part).or_insert((root, base + offset));
            }
        }
    }
    Nesting(nested)
}

/// Where some parts lie that are side by side in another concatenation already: then this one needs
/// no buffer either.
fn inside(nested: &HashMap<StoreId, Nested>, wanted: &[Nested]) -> Option<Nested> {
    let first = *nested.get(&wanted.first()?.0)?;
    let fits = |(part, offset): &Nested| nested.get(part) == Some(&(first.0, first.1 + offset));
    wanted.iter().all(fits).then_some(first)
}
