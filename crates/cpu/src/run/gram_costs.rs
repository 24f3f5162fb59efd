//! Which form the Gram matrix of a weight's gradients is computed in, by counting operations, and
//! what memory that takes.
//!
//! | form | wins where |
//! |---|---|
//! | tiles | there are many positions, or masks leave few of the cotangents |
//! | patches | a 3 x 3 weight is read at many positions, nearly all of them active |
//! | pairs | there are few positions, whose number enters squared; inputs and taps enter once |

use super::executor::Number;
use crate::compile::program::{Compiled, Kernel, KernelKind};
use crate::kernels::{ChannelwiseGram, Patches, RowTable, TileGram};

/// How the Gram matrix of a weight's gradients is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GramForm {
    /// Tiles of the gradient, position by position ([`TileGram`]).
    Tiles,
    /// Tiles of the gradient in Winograd's form.
    Patches,
    /// Pairs of positions ([`PairGram`](crate::kernels::PairGram)).
    Pairs,
}

// The costs below are in operations at the rate of full vectors, as the products themselves run:
// what takes as long as so many of them counts as so many. They were set by timing, of which no
// record is kept. They decide which form is taken and nothing else. When they are off, a slower
// form is taken for some layers, and the result differs by rounding; the memory that is promised
// follows the same choice (`bytes`).

/// Cost of transforming and squaring a sum over patches back into all taps, in units of one patch.
const TRANSFORM: usize = 11;

/// Cost of squaring a tile, for each element of a line.
const SQUARES: usize = 220;

/// Cost of one pair of positions at which an output is active.
const PAIR: usize = 40;

/// Cost of one position at which an output is active, besides its pairs.
const ENTRY: usize = 350;

/// Cost of one output, besides its positions.
const OUTPUT: usize = 3000;

/// Shares of all cotangents that a plan tries, since masks are not known before a run.
const SHARES: usize = 64;

/// Operations that each form takes for one layer.
pub(super) struct GramCosts {
    outputs: usize,
    /// Operations for the squares of all tiles.
    squares: usize,
    /// Operations for each active cotangent of a line, by tiles.
    tile: usize,
    /// Operations by patches, if they can be taken. These do not depend on masks.
    patches: Option<usize>,
    /// Operations for the inner products of what positions read.
    inner: usize,
    /// Operations for each pair.
    pair: usize,
}

impl GramCosts {
    pub(super) fn new<T>(
        kernel: &Kernel<T>,
        table: &RowTable,
        patches: Option<&Patches>,
        positions: usize,
        lines: usize,
    ) -> Self {
        let (inputs, outputs) = (kernel.input.channels, kernel.output.channels);
        let read = inputs * table.taps();
        let of_patches = |patches: &Patches| {
            2 * lines * outputs * inputs * patches.frequencies() * (patches.count() + TRANSFORM)
        };
        let products = if by_sources(table, positions) {
            table.source_rows().pow(2) * inputs + positions.pow(2) * table.taps()
        } else {
            positions.pow(2) * read
        };
        // Pairs are taken in f64, of which a vector holds fewer.
        let wide = size_of::<f64>() / size_of::<T>();
        Self {
            outputs,
            squares: outputs * read * SQUARES,
            tile: 2 * lines * read,
            patches: patches.map(of_patches),
            inner: 2 * products * wide,
            pair: PAIR * wide,
        }
    }

    fn tiles(&self, count: usize) -> usize {
        self.squares + count * self.tile
    }

    fn pairs(&self, count: usize) -> usize {
        // As if each output were active at equally many positions. Half of the pairs are enough,
        // since the inner products are symmetric.
        let each = count / self.outputs.max(1);
        self.inner + self.outputs * (each.pow(2) / 2 * self.pair + each * ENTRY + OUTPUT)
    }

    /// The form that takes the fewest operations with `count` active cotangents per line.
    pub(super) fn form(&self, count: usize) -> GramForm {
        let (tiles, pairs) = (self.tiles(count), self.pairs(count));
        match self.patches {
            Some(patches) if patches < tiles.min(pairs) => GramForm::Patches,
            _ if pairs < tiles => GramForm::Pairs,
            _ => GramForm::Tiles,
        }
    }

    /// Whether pairs may be taken with some number of active cotangents up to `most`.
    fn may_take_pairs(&self, most: usize) -> bool {
        (1..=SHARES).any(|share| self.form(most * share / SHARES) == GramForm::Pairs)
    }
}

/// Whether it takes fewer operations to multiply all rows that a layer reads with one another,
/// once, than to multiply what positions read tap by tap.
pub(super) fn by_sources(table: &RowTable, positions: usize) -> bool {
    table.source_rows().pow(2) <= table.taps() * positions.pow(2)
}

/// Bytes that the matrices of one sample's tensors take while they are computed, at most: those of
/// the hungriest layer, since layers take turns.
pub(super) fn bytes<T: Number>(compiled: &Compiled<T>, lines: usize) -> usize {
    compiled.kernels.iter().map(|kernel| bytes_of(compiled, kernel, lines)).max().unwrap_or(0)
}

/// Bytes that the matrices of one sample's tensors take for one kernel.
fn bytes_of<T: Number>(compiled: &Compiled<T>, kernel: &Kernel<T>, lines: usize) -> usize {
    let (positions, width) = (compiled.map(kernel.output.map).live.len(), kernel.output.channels);
    let Some(tensors) = &kernel.tensors else { return 0 };
    if tensors.weight.is_none() {
        let each = tensors.elements.iter().map(|(_, elements)| elements.gram_bytes::<T>(width, lines));
        return each.max().unwrap_or(0);
    }
    let sources = |table: &RowTable| positions * table.taps() * size_of::<Option<usize>>();
    let table = match &kernel.kind {
        KernelKind::Product { table, .. } => table,
        KernelKind::Channelwise { table, .. } => {
            return sources(table) + ChannelwiseGram::<T>::bytes(positions, width, lines);
        }
        _ => return 0,
    };
    let (entries, inputs) = (positions * width, kernel.input.channels / tensors.groups);
    // The cotangents sorted by channel, where tiles read, and the columns of layers with few
    // channels.
    let sorted = entries * (lines * size_of::<T>() + size_of::<u32>());
    let sources = sources(table);
    let columns = TileGram::<T>::column_bytes(table, positions, inputs);
    if tensors.groups > 1 {
        let together = tensors.groups.min(rayon::current_num_threads());
        let matrices = tensors.groups * lines.pow(2) * size_of::<f64>();
        let sums = tensors.groups * TileGram::<T>::sum_bytes(width / tensors.groups);
        return sorted + matrices + sums + together * (sources + columns);
    }
    let patches = tensors.patches.as_ref();
    let costs = GramCosts::new(kernel, table, patches, positions, lines);
    let pairs = if costs.may_take_pairs(entries) {
        // The rows, their products, and what these add up to.
        let (rows, products) = match by_sources(table, positions) {
            true => (table.source_rows(), table.source_rows().pow(2)),
            false => (positions, 0),
        };
        (positions.pow(2) + products + rows * inputs) * size_of::<f64>()
    } else {
        0
    };
    let patches = patches.map_or(0, |patches| TileGram::<T>::bytes(patches, inputs, lines));
    sorted + sources + columns + TileGram::<T>::sum_bytes(width) + pairs.max(patches)
}
