//! Pools and other sums over windows, and affine maps of channels: what lies between convolutions.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::forward::product::RowLayout;
use crate::kernels::layout::rows::{Chunk, DenseRows, LiveRows, add_then_relu, tasks};
use crate::kernels::layout::table::RowTable;
use crate::kernels::simd::{InstructionSet, SimdFloat};

/// Rows that a task should have at least ([`tasks`]): many, since a row takes only a few operations
/// for each element.
const LEAST_ROWS: usize = 64;

/// Rows that are computed one by one from others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rowwise<'a, T> {
    /// The rows that are read.
    pub(crate) source: DenseRows<'a, T>,
    /// Rows of a sample that are written.
    pub(crate) positions: usize,
    /// The positions that are computed, ascending.
    pub(crate) live: &'a [usize],
    /// How many samples there are.
    pub(crate) samples: usize,
}

/// What the rows of a window are multiplied by before they are added.
#[derive(Debug, Clone)]
pub(crate) enum Shares<T> {
    /// One value for each position of the result: a mean.
    Rows(Vec<T>),
    /// One for each tap of each position, `[position][tap]`: interpolation.
    Taps(Vec<T>),
}

impl<T: SimdFloat> Shares<T> {
    fn numbers(&self) -> &[T] {
        let (Self::Rows(numbers) | Self::Taps(numbers)) = self;
        numbers
    }

    /// The same shares, rounded to another type.
    pub(crate) fn rounded<U: SimdFloat>(&self) -> Shares<U> {
        let numbers = self.numbers().iter().map(|x| U::from_f64(x.to_f64())).collect();
        match self {
            Self::Rows(_) => Shares::Rows(numbers),
            Self::Taps(_) => Shares::Taps(numbers),
        }
    }

    /// Bytes that the shares take.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.numbers())
    }
}

impl<T: SimdFloat> Rowwise<'_, T> {
    /// relu(scale x + shift + other), or without what is not given.
    pub(crate) fn affine(
        &self,
        set: InstructionSet,
        affine: Option<[&[T]; 2]>,
        other: Option<DenseRows<'_, T>>,
        relu: bool,
        out: &mut [T],
        layout: RowLayout,
    ) {
        self.run(out, layout, |sample, position, out| {
            let row = sample * self.positions + position;
            let (x, other) = (self.source.row(row), other.map(|other| other.row(row)));
            set.run(AffineRow { x, affine, other, relu, out });
        });
    }

    /// relu(scale x + shift), with a scale and a shift for each position and channel of a sample.
    pub(crate) fn elementwise(
        &self,
        scale: Option<&[T]>,
        shift: &[T],
        relu: bool,
        out: &mut [T],
        layout: RowLayout,
    ) {
        let channels = self.source.channels;
        self.run(out, layout, |sample, position, out| {
            let own = position * channels..(position + 1) * channels;
            out.copy_from_slice(self.source.row(sample * self.positions + position));
            if let Some(scale) = scale {
                out.iter_mut().zip(&scale[own.clone()]).for_each(|(x, s)| *x = *x * *s);
            }
            add_then_relu(out, Some(&shift[own]), relu);
        });
    }

    /// The sum over each window of each row times its share.
    pub(crate) fn average(&self, table: &RowTable, shares: &Shares<T>, out: &mut [T], layout: RowLayout) {
        self.run(out, layout, |sample, position, out| {
            out.fill(T::default());
            let taps = (0..table.taps()).filter_map(|tap| Some((tap, table.source(position, tap)?)));
            let read = taps.map(|(tap, from)| (tap, self.source.row(sample * table.source_rows() + from)));
            match shares {
                Shares::Rows(shares) => {
                    for (_, row) in read {
                        out.iter_mut().zip(row).for_each(|(sum, x)| *sum = *sum + *x);
                    }
                    out.iter_mut().for_each(|sum| *sum = *sum * shares[position]);
                }
                Shares::Taps(shares) => {
                    for (tap, row) in read {
                        let share = shares[position * table.taps() + tap];
                        out.iter_mut().zip(row).for_each(|(sum, x)| *sum = *sum + *x * share);
                    }
                }
            }
        });
    }

    /// The maximum over each window. The choices, `[row][channel]`, are the taps of the maxima: of
    /// several equal ones the first.
    pub(crate) fn maximum(&self, table: &RowTable, out: &mut [T], layout: RowLayout, choices: &mut [u16]) {
        let channels = self.source.channels;
        let pick = |sample: usize, position: usize, out: &mut [T], choices: &mut [u16]| {
            let mut any = false;
            for tap in 0..table.taps() {
                let Some(from) = table.source(position, tap) else { continue };
                let row = self.source.row(sample * table.source_rows() + from);
                for ((best, choice), x) in out.iter_mut().zip(&mut *choices).zip(row) {
                    // NaN is the maximum, as everywhere else.
                    if !any || *x > *best || x.partial_cmp(x).is_none() {
                        (*best, *choice) = (*x, tap as u16);
                    }
                }
                any = true;
            }
        };
        let (all, parts) = self.rows();
        let chosen = all.chunks(choices, parts, channels);
        all.chunks(out, parts, layout.pitch).into_par_iter().zip(chosen).for_each(|(out, chosen)| {
            for row in out.rows.map(|number| all.row(number)) {
                let (first, start) =
                    (row * layout.pitch + layout.offset - out.start, row * channels - chosen.start);
                let (own, choices) = (first..first + channels, start..start + channels);
                let (sample, position) = (row / self.positions, row % self.positions);
                pick(sample, position, &mut out.values[own], &mut chosen.values[choices]);
            }
        });
    }

    /// Calls `one` with each live row of the result.
    fn run(&self, out: &mut [T], layout: RowLayout, one: impl Fn(usize, usize, &mut [T]) + Sync) {
        let (all, parts) = self.rows();
        all.chunks(out, parts, layout.pitch).into_par_iter().for_each(|Chunk { rows, start, values }| {
            for row in rows.map(|number| all.row(number)) {
                let first = row * layout.pitch + layout.offset - start;
                let own = &mut values[first..first + self.source.channels];
                one(row / self.positions, row % self.positions, own);
            }
        });
    }

    /// The rows that are computed, and in how many parts.
    fn rows(&self) -> (LiveRows<'_>, usize) {
        let Self { positions, live, samples, .. } = *self;
        let all = LiveRows { positions, live, samples };
        (all, tasks(all.count(), LEAST_ROWS))
    }
}

/// One row of an affine map.
struct AffineRow<'a, 'b, T> {
    x: &'a [T],
    /// Scale and shift.
    affine: Option<[&'a [T]; 2]>,
    /// What is added.
    other: Option<&'a [T]>,
    relu: bool,
    out: &'b mut [T],
}

impl<T: SimdFloat> WithSimd for AffineRow<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { x, affine, other, relu, out } = self;
        match affine {
            Some([scale, shift]) => {
                let terms = x.iter().zip(scale).zip(shift);
                out.iter_mut().zip(terms).for_each(|(y, ((x, s), t))| *y = *x * *s + *t);
            }
            None => out.copy_from_slice(x),
        }
        add_then_relu(out, other, relu);
    }
}
