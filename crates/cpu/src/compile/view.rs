//! How a value of the graph is read from where it is stored.
//!
//! Values are stored as rows of channels, whatever shape the graph gives them: a [`Store`]. A
//! [`StoreView`] says where each element of a value lies. The index along one axis is written in a
//! mixed radix, most significant [`Digit`] first, and each digit moves so many rows and channels:
//!
//! | value | axes as digits |
//! |---|---|
//! | image `[n, c, h, w]`, rows of c channels | c: (c, 1 channel), h: (h, w rows), w: (w, 1 row) |
//! | the same flattened, `[n, c h w]` | (c, 1 channel) (h w, 1 row) |
//! | the same permuted, `[n, h, w, c]` | h: (h, w rows), w: (w, 1 row), c: (c, 1 channel) |
//!
//! Reshapes regroup the digits, permutations reorder axes, slices move the first element, and
//! repeats have digits that do not move: none of them touches an element. (These are the layouts of
//! CuTe, with two strides where CuTe has one.) Whoever reads a value asks its view for the form it
//! needs, and takes a copy in that form where the view has another ([`StoreView::sources`]): no
//! other code knows how values are stored.

use std::ops::Range;

use influence_autodiff::graph::{Graph, Size, ValueId};

use super::ids::StoreId;

/// Where a computed value lies: rows of channels, for one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Store {
    pub(crate) rows: usize,
    pub(crate) channels: usize,
}

impl Store {
    /// Elements of one sample.
    pub(crate) fn size(self) -> usize {
        self.rows * self.channels
    }
}

/// One digit of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digit {
    pub(crate) size: usize,
    /// Rows from one value of the digit to the next.
    pub(crate) rows: usize,
    /// Channels from one value of the digit to the next.
    pub(crate) channels: usize,
}

/// The shape of a value for one sample: the axis of which the batch is the outermost part, and all
/// sizes, that axis counted without the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SampleShape {
    pub(crate) batch: usize,
    pub(crate) sizes: Vec<usize>,
}

impl SampleShape {
    /// The shape of a value with one batch axis. `None` where the batch is on several axes, or
    /// beside other elements on one (`n + 1`).
    pub(crate) fn of(graph: &Graph, id: ValueId) -> Option<Self> {
        Self::of_sizes(&graph.values()[id].shape)
    }

    fn of_sizes(shape: &[Size]) -> Option<Self> {
        let follows: Vec<_> = (0..shape.len()).filter(|&axis| shape[axis].per_sample > 0).collect();
        let [batch] = follows[..] else { return None };
        let sizes = shape.iter().enumerate();
        let sizes: Vec<_> =
            sizes.map(|(axis, size)| if axis == batch { size.per_sample } else { size.fixed }).collect();
        (shape[batch].fixed == 0 && sizes.iter().all(|&size| size > 0)).then_some(Self { batch, sizes })
    }

    /// Elements of one sample.
    pub(crate) fn elements(&self) -> usize {
        self.sizes.iter().product()
    }

    /// How many runs the elements of a sample are cut into by those of the other samples: the
    /// product of the sizes before the batch axis.
    pub(crate) fn before_batch(&self) -> usize {
        self.sizes[..self.batch].iter().product()
    }

    /// The rows and channels of a value whose channels lie along one axis.
    pub(crate) fn store(&self, channels: usize) -> Store {
        self.store_of(&[channels])
    }

    /// The rows and channels of a value whose channels lie along several axes.
    pub(crate) fn store_of(&self, axes: &[usize]) -> Store {
        let channels = axes.iter().map(|&axis| self.sizes[axis]).product();
        Store { rows: self.elements() / channels, channels }
    }
}

/// Where the elements of a value lie in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreView {
    pub(crate) store: StoreId,
    pub(crate) shape: SampleShape,
    /// Row and channel of the first element.
    first: [usize; 2],
    axes: Vec<Vec<Digit>>,
}

/// A value read as rows of neighbouring channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) channels: Range<usize>,
    /// The row of each position, the axes beside the channels in row-major order.
    pub(crate) rows: Vec<usize>,
}

/// An axis read as rows of channels, for all positions beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grid {
    /// The row of each position, the axes beside the one in row-major order.
    pub(crate) positions: Vec<usize>,
    /// Rows from a position's to each of those that the axis covers.
    pub(crate) taps: Vec<usize>,
    pub(crate) channels: Range<usize>,
    /// The index along the axis, `[tap][channel]`.
    pub(crate) index: Vec<usize>,
}

impl Reading {
    /// All rows in their order, all channels.
    pub(crate) fn whole(store: Store) -> Self {
        Self { channels: 0..store.channels, rows: (0..store.rows).collect() }
    }

    /// Whether that is all of the store, in its order.
    pub(crate) fn is_whole(&self, store: Store) -> bool {
        *self == Self::whole(store)
    }
}

impl StoreView {
    /// The view of a value that fills its store, with its channels along one axis and the other
    /// axes as rows in row-major order.
    pub(crate) fn new(store: StoreId, shape: SampleShape, channels: usize) -> Self {
        Self::of(store, shape, &[channels])
    }

    /// The view of a value that fills its store, with its channels along several axes in row-major
    /// order.
    pub(crate) fn of(store: StoreId, shape: SampleShape, along: &[usize]) -> Self {
        let (mut rows, mut channels) = (1, 1);
        let mut axes = vec![Vec::new(); shape.sizes.len()];
        for (axis, &size) in shape.sizes.iter().enumerate().rev() {
            let digit = if along.contains(&axis) {
                channels *= size;
                Digit { size, rows: 0, channels: channels / size }
            } else {
                rows *= size;
                Digit { size, rows: rows / size, channels: 0 }
            };
            axes[axis].extend((size > 1).then_some(digit));
        }
        Self { store, shape, first: [0, 0], axes }
    }

    /// The same arrangement in another store of the same size.
    pub(crate) fn at(&self, store: StoreId) -> Self {
        Self { store, ..self.clone() }
    }

    /// The elements under another shape, where the digits can be grouped so.
    pub(crate) fn reshape(&self, shape: SampleShape) -> Option<Self> {
        // The batch is the most significant part of its axis, before and after.
        let digits = |range: Range<usize>| self.axes[range].concat();
        let (rank, old, new) = (self.axes.len(), self.shape.batch, shape.batch);
        let mut axes = regroup(&digits(0..old), &shape.sizes[..new])?;
        axes.extend(regroup(&digits(old..rank), &shape.sizes[new..])?);
        Some(Self { shape, axes, ..self.clone() })
    }

    /// Axis i of the result is axis `axes[i]` of this.
    pub(crate) fn permute(&self, axes: &[usize]) -> Option<Self> {
        let batch = axes.iter().position(|&axis| axis == self.shape.batch)?;
        let sizes = axes.iter().map(|&axis| self.shape.sizes[axis]).collect();
        let axes = axes.iter().map(|&axis| self.axes[axis].clone()).collect();
        Some(Self { shape: SampleShape { batch, sizes }, axes, ..self.clone() })
    }

    /// Every `step`-th element from `start` on along an axis that has one digit.
    pub(crate) fn slice(&self, axis: usize, [start, end, step]: [usize; 3]) -> Option<Self> {
        let size = end.saturating_sub(start).div_ceil(step);
        if axis == self.shape.batch || size == 0 {
            return None;
        }
        let mut this = self.clone();
        let [digit] = self.axes[axis][..] else {
            // An axis of size 1 has no digits, and nothing to leave out.
            return (self.axes[axis].is_empty() && size == 1).then_some(this);
        };
        this.first[0] += start * digit.rows;
        this.first[1] += start * digit.channels;
        this.shape.sizes[axis] = size;
        let part = Digit { size, rows: step * digit.rows, channels: step * digit.channels };
        this.axes[axis] = if size > 1 { vec![part] } else { Vec::new() };
        Some(this)
    }

    /// The channels along one axis and all other axes as rows, where that is how they lie.
    pub(crate) fn reading(&self, channels: usize) -> Option<Reading> {
        let range = match self.axes[channels][..] {
            [] => self.first[1]..self.first[1] + 1,
            [Digit { size, rows: 0, channels: 1 }] => self.first[1]..self.first[1] + size,
            _ => return None,
        };
        let others = (0..self.axes.len()).filter(|&axis| axis != channels);
        let digits: Vec<_> = others.flat_map(|axis| &self.axes[axis]).copied().collect();
        let fits = digits.iter().all(|digit| digit.channels == 0);
        fits.then(|| Reading { channels: range, rows: self.walk(&digits).map(|[row, _]| row).collect() })
    }

    /// Repeated along axes of size 1 to another shape of the same rank.
    pub(crate) fn expand(&self, shape: SampleShape) -> Option<Self> {
        let repeats = self.shape.sizes.iter().zip(&shape.sizes).all(|(old, new)| old == new || *old == 1);
        if !repeats || self.shape.batch != shape.batch || self.shape.sizes.len() != shape.sizes.len() {
            return None;
        }
        let mut this = Self { shape, ..self.clone() };
        for (axis, digits) in this.axes.iter_mut().enumerate() {
            let size = this.shape.sizes[axis];
            if digits.is_empty() && size > 1 {
                digits.push(Digit { size, rows: 0, channels: 0 });
            }
        }
        Some(this)
    }

    /// One axis read as rows of neighbouring channels, as a matrix product takes it, where that is
    /// how it lies: a flattened image, or channels themselves.
    pub(crate) fn grid(&self, axis: usize) -> Option<Grid> {
        let others = (0..self.axes.len()).filter(|&other| other != axis);
        let beside: Vec<_> = others.flat_map(|axis| &self.axes[axis]).copied().collect();
        // Positions have to be rows: no other axis may lead through channels.
        if beside.iter().any(|digit| digit.channels > 0) {
            return None;
        }
        // The rows that the axis covers become taps, in the order in which it reaches them, and its
        // channels one range.
        let along: Vec<_> = self.walk(&self.axes[axis]).collect();
        let (mut taps, mut low, mut high) = (Vec::new(), usize::MAX, 0);
        for &[row, channel] in &along {
            if !taps.contains(&row) {
                taps.push(row);
            }
            (low, high) = (low.min(channel), high.max(channel + 1));
        }
        let mut index = vec![usize::MAX; taps.len() * (high - low)];
        for (k, [row, channel]) in along.iter().enumerate() {
            let tap = taps.iter().position(|tap| tap == row)?;
            index[tap * (high - low) + channel - low] = k;
        }
        // Each tap has to have each of these channels once: a product reads all of them.
        let is_full = along.len() == index.len() && !index.contains(&usize::MAX);
        let first = self.first[0];
        is_full.then(|| Grid {
            positions: self.walk(&beside).map(|[row, _]| row).collect(),
            taps: taps.iter().map(|row| row - first).collect(),
            channels: low..high,
            index,
        })
    }

    /// The axis along which the channels lie, if all of them lie along one.
    pub(crate) fn channel_axis(&self, store: Store) -> Option<usize> {
        let moves = |axis: &usize| self.axes[*axis].iter().any(|digit| digit.channels > 0);
        let along: Vec<_> = (0..self.axes.len()).filter(moves).collect();
        match along[..] {
            [axis] => Some(axis),
            [] if store.channels == 1 => (0..self.axes.len()).rev().find(|&axis| self.shape.sizes[axis] == 1),
            _ => None,
        }
    }

    /// The value as matrices along its last two axes, where each of these has one digit that moves:
    /// row and channel of the first entry of each matrix, and the step from one entry to the next
    /// along both axes.
    pub(crate) fn matrices(&self) -> Option<(Vec<[usize; 2]>, [Digit; 2])> {
        let (leading, last) = self.axes.split_at_checked(self.axes.len().checked_sub(2)?)?;
        let digit = |axis: &Vec<Digit>| match axis[..] {
            [] => Some(Digit { size: 1, rows: 0, channels: 0 }),
            [digit] => (digit.rows + digit.channels > 0).then_some(digit),
            _ => None,
        };
        let steps = [digit(&last[0])?, digit(&last[1])?];
        Some((self.walk(&leading.concat()).collect(), steps))
    }

    /// Whether an axis leads only through channels.
    pub(crate) fn is_along_channels(&self, axis: usize) -> bool {
        let digits = &self.axes[axis];
        !digits.is_empty() && digits.iter().all(|digit| digit.rows == 0 && digit.channels > 0)
    }

    /// Row and channel of each element of one sample, in row-major order.
    pub(crate) fn elements(&self) -> Vec<[usize; 2]> {
        self.walk(&self.axes.concat()).collect()
    }

    /// Whether the value is all of its store, each element once.
    pub(crate) fn covers(&self, store: Store) -> bool {
        if self.shape.elements() != store.size() {
            return false;
        }
        let mut seen = vec![false; store.size()];
        let fresh =
            |[row, channel]: [usize; 2]| !std::mem::replace(&mut seen[row * store.channels + channel], true);
        self.elements().into_iter().all(fresh)
    }

    /// Whether another value's elements lie in the same order, in a store of the same size.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.first == other.first && self.shape == other.shape && self.axes == other.axes
    }

    /// A copy of the value in the arrangement of `target`, which fills its store: for each element
    /// there the index of the element of this view's store, counted through its rows of `width`
    /// channels.
    pub(crate) fn sources(&self, target: &Self, store: Store, width: usize) -> Vec<u32> {
        let mut sources = vec![0; store.size()];
        for ([row, channel], [to_row, to_channel]) in self.elements().into_iter().zip(target.elements()) {
            let at = &mut sources[to_row * store.channels + to_channel];
            *at = u32::try_from(row * width + channel).unwrap_or(u32::MAX);
        }
        sources
    }

    /// Row and channel for every index that some digits can show, in row-major order.
    fn walk(&self, digits: &[Digit]) -> impl Iterator<Item = [usize; 2]> {
        let mut found = vec![self.first];
        for digit in digits {
            let step = |[row, channel]: [usize; 2]| {
                (0..digit.size).map(move |i| [row + i * digit.rows, channel + i * digit.channels])
            };
            found = found.into_iter().flat_map(step).collect();
        }
        found.into_iter()
    }
}

/// Digits, most significant first, grouped into axes of these sizes; `None` where no digit or part
/// of one ends where an axis does.
fn regroup(digits: &[Digit], sizes: &[usize]) -> Option<Vec<Vec<Digit>>> {
    let mut rest: Vec<_> = merged(digits);
    rest.reverse();
    let mut axes = Vec::with_capacity(sizes.len());
    for &size in sizes {
        let (mut missing, mut axis) = (size, Vec::new());
        while missing > 1 {
            let digit = rest.pop()?;
            if missing % digit.size == 0 {
                missing /= digit.size;
                axis.push(digit);
            } else if digit.size % missing == 0 {
                // The more significant part of a digit belongs to this axis, the rest to the next.
                let inner = digit.size / missing;
                axis.push(Digit {
                    size: missing,
                    rows: digit.rows * inner,
                    channels: digit.channels * inner,
                });
                rest.push(Digit { size: inner, ..digit });
                missing = 1;
            } else {
                return None;
            }
        }
        axes.push(merged(&axis));
    }
    rest.is_empty().then_some(axes)
}

/// The digits of the same index, as few as possible.
fn merged(digits: &[Digit]) -> Vec<Digit> {
    let mut all: Vec<Digit> = Vec::new();
    for &digit in digits.iter().filter(|digit| digit.size > 1) {
        match all.last_mut() {
            Some(last)
                if (last.rows, last.channels) == (digit.size * digit.rows, digit.size * digit.channels) =>
            {
                *last = Digit { size: last.size * digit.size, ..digit };
            }
            _ => all.push(digit),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    //! Views against plain indices: every chain of reshapes, permutations and slices.

    use proptest::prelude::*;

    use super::*;

    fn shape(sizes: &[usize]) -> SampleShape {
        SampleShape { batch: 0, sizes: std::iter::once(1).chain(sizes.iter().copied()).collect() }
    }

    /// The flat indices of a view's elements in its store.
    fn flat(view: &StoreView, store: Store) -> Vec<usize> {
        view.elements().iter().map(|[row, channel]| row * store.channels + channel).collect()
    }

    #[test]
    fn an_image_is_flattened_permuted_and_read() {
        let image = shape(&[3, 2, 2]);
        let (store, view) = (image.store(1), StoreView::new(StoreId(0), image, 1));
        assert_eq!(store, Store { rows: 4, channels: 3 });
        assert!(view.covers(store) && view.reading(1).expect("as it lies").is_whole(store));
        let flattened = view.reshape(shape(&[12])).expect("digits regroup");
        assert!(flattened.reading(1).is_none(), "channels are not neighbours there");
        assert_eq!(flat(&flattened, store), [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
        let last = view.permute(&[0, 2, 3, 1]).expect("the batch stays");
        assert!(last.reading(3).expect("channels last").is_whole(store));
        let rows = last.reshape(shape(&[4, 3])).expect("two axes become one");
        assert_eq!(rows.reading(2), Some(Reading::whole(store)));
        let part = view.slice(1, [1, 3, 1]).and_then(|part| part.slice(3, [1, 2, 1])).expect("one digit");
        assert_eq!(part.reading(1), Some(Reading { channels: 1..3, rows: vec![1, 3] }));
        assert!(flattened.reshape(shape(&[2, 6])).is_none(), "three channels have no half");
    }

    /// Elements of an array in row-major order, permuted.
    fn permuted(values: &[usize], sizes: &[usize], axes: &[usize]) -> Vec<usize> {
        let strides: Vec<usize> = (0..sizes.len()).map(|axis| sizes[axis + 1..].iter().product()).collect();
        let mut indices = vec![0];
        for &axis in axes {
            indices = indices
                .into_iter()
                .flat_map(|at: usize| (0..sizes[axis]).map(move |i| (at, i)))
                .map(|(at, i)| at + i * strides[axis])
                .collect();
        }
        indices.into_iter().map(|at| values[at]).collect()
    }

    proptest! {
        #[test]
        fn a_view_is_what_the_array_would_be(
            sizes in prop::collection::vec(1_usize..4, 1..4),
            channels in 0_usize..3,
            moves in prop::collection::vec((0_usize..3, 0_usize..24, 0_usize..3), 0..6),
        ) {
            let first = shape(&sizes);
            let channels = 1 + channels % sizes.len();
            let store = first.store(channels);
            let mut view = StoreView::new(StoreId(0), first, channels);
            let mut array = flat(&view, store);
            for (kind, a, b) in moves {
                let sizes = view.shape.sizes[1..].to_vec();
                let rank = sizes.len();
                match kind {
                    0 => {
                        let mut axes: Vec<usize> = (0..rank).collect();
                        axes.swap(a % rank, b % rank);
                        array = permuted(&array, &sizes, &axes);
                        let axes: Vec<_> = std::iter::once(0).chain(axes.iter().map(|x| x + 1)).collect();
                        view = view.permute(&axes).expect("the batch stays");
                    }
                    1 => {
                        let all: usize = sizes.iter().product();
                        let inner = (1..=all).filter(|d| all.is_multiple_of(*d)).nth(a % 3).unwrap_or(all);
                        if let Some(other) = view.reshape(shape(&[all / inner, inner])) {
                            view = other;
                        }
                    }
                    _ => {
                        let axis = a % rank;
                        let (start, step) = (b % sizes[axis], 1 + a % 2);
                        if let Some(other) = view.slice(axis + 1, [start, sizes[axis], step]) {
                            let outer: usize = sizes[..axis].iter().product();
                            let inner: usize = sizes[axis + 1..].iter().product();
                            array = (0..outer)
                                .flat_map(|o| (start..sizes[axis]).step_by(step).map(move |i| (o, i)))
                                .flat_map(|(o, i)| {
                                    let at = (o * sizes[axis] + i) * inner;
                                    array[at..at + inner].to_vec()
                                })
                                .collect();
                            view = other;
                        }
                    }
                }
                prop_assert_eq!(&flat(&view, store), &array);
            }
        }
    }
}
