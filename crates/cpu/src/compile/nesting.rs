//! Which buffer each store lies in: its own, or some channels of a concatenation that it is part of, so that
//! the parts need no copies.

use std::collections::HashMap;

use super::stage::{StageOp, Stages};
use super::view::StoreId;

/// For each store in a concatenation the store that holds it and its first channel there.
#[derive(Debug, Default)]
pub(crate) struct Nesting(HashMap<StoreId, (StoreId, usize)>);

impl Nesting {
    /// The store that holds another, and the first channel in it.
    pub(crate) fn of(&self, store: StoreId) -> (StoreId, usize) {
        self.0.get(&store).copied().unwrap_or((store, 0))
    }

    /// Whether a store is a concatenation, or lies in one.
    pub(crate) fn is_joint(&self, store: StoreId) -> bool {
        self.0.contains_key(&store)
    }
}

/// Where all stores lie. The last concatenation has the first word: parts of parts lie in it too.
pub(crate) fn nesting(stages: &Stages<'_>) -> Nesting {
    let writers = stages.writers();
    let mut nested = HashMap::new();
    for stage in stages.stages.iter().rev() {
        let StageOp::Concat(parts) = &stage.op else { continue };
        let mut offset = 0;
        let mut wanted = Vec::new();
        for &part in parts {
            wanted.push((part, offset));
            offset += stages.stores[part].channels;
        }
        let already = inside(&nested, &wanted);
        let (root, base) = nested.get(&stage.output).copied().or(already).unwrap_or((stage.output, 0));
        nested.entry(stage.output).or_insert((root, base));
        for (part, offset) in wanted {
            // The input and the output of the network have buffers of their own.
            if writers[part].is_some() && part != stages.output {
                nested.entry(part).or_insert((root, base + offset));
            }
        }
    }
    Nesting(nested)
}

/// The place of parts that lie side by side in another concatenation already.
fn inside(
    nested: &HashMap<StoreId, (StoreId, usize)>,
    wanted: &[(StoreId, usize)],
) -> Option<(StoreId, usize)> {
    let first = *nested.get(&wanted.first()?.0)?;
    let fits = |(part, offset): &(StoreId, usize)| nested.get(part) == Some(&(first.0, first.1 + offset));
    wanted.iter().all(fits).then_some(first)
}
