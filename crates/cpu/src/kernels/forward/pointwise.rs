//! Functions of one variable, element by element, with their derivatives.
//!
//! A function is a chain of [`ChainPart`]s, so that whatever a graph composes (a hard swish of a
//! sum, a clamp and a product, say) is one pass over the elements and leaves one derivative. The
//! formulas have no branches, so that compilers turn them into vectors; the rarer functions are the
//! standard library's.

#![allow(clippy::excessive_precision, reason = "coefficients have the digits of their source")]

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, LOG2_E, PI};
use std::ops::{Add, Div, Mul, Neg, Sub};

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::forward::product::RowLayout;
use crate::kernels::layout::rows::{DenseRows, LiveRows, tasks};
use crate::kernels::simd::{InstructionSet, SimdFloat};

/// One link of a chain: what becomes of the value y so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ChainPart {
    /// scale y + shift.
    Affine {
        scale: f64,
        shift: f64,
    },
    /// y times what the chain began with.
    Argument,
    Sigmoid,
    LogSigmoid,
    Tanh,
    /// y Phi(y).
    Gelu,
    Erf,
    Exp,
    Log,
    Log1p,
    Sqrt,
    Recip,
    /// y to a constant power.
    Power(f64),
    Sin,
    Cos,
    Abs,
    /// y above 0, else y times the slope.
    Leaky(f64),
    /// y within bounds; the derivative on a bound is 0.
    Clamp {
        min: f64,
        max: f64,
    },
}

/// Elements that go through a chain together: few enough for their buffers to stay in the L1 cache,
/// enough to fill vectors.
const BLOCK: usize = 64;

/// Rows that a task should have at least ([`tasks`]): fewer than for pools, since functions take
/// several operations for each element.
const LEAST_ROWS: usize = 32;

/// What functions need of a float type.
pub(crate) trait Real:
    Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The nearest number.
    fn of(number: f64) -> Self;

    /// e^x = 2^n e^r with |r| <= ln 2 / 2, e^r by its power series, of which the first term that is
    /// left out is below rounding. Results below the smallest normal number are 0.
    fn power_of_e(self) -> Self;

    fn size(self) -> Self;
    fn root(self) -> Self;
    fn log(self) -> Self;
    fn log_of_more(self) -> Self;
    fn to_power(self, exponent: Self) -> Self;
    fn sine(self) -> Self;
    fn cosine(self) -> Self;
}

macro_rules! real {
    ($type:ident, lowest $lowest:literal, highest $highest:literal, round $round:literal,
     ln2 $high:literal + $low:literal, mantissa $mantissa:literal, series [$($term:literal)*]) => {
        impl Real for $type {
            #[inline(always)]
            fn of(number: f64) -> Self {
                number as Self
            }

            #[inline(always)]
            fn power_of_e(self) -> Self {
                let within = if self < $lowest { $lowest } else { self };
                let within = if within > $highest { $highest } else { within };
                // Adding 1.5 * 2^(mantissa bits) leaves the nearest whole number in the low bits of
                // the sum.
                let rounded = within * (LOG2_E as Self) + $round;
                let whole = rounded - $round;
                let rest = within - whole * $high - whole * $low;
                let series = polynomial(rest, [$(1.0 / $term),*, 1.0]);
                let bits = series.to_bits().wrapping_add(rounded.to_bits() << $mantissa);
                let scaled = if self > $highest { Self::INFINITY } else { Self::from_bits(bits) };
                let scaled = if self < $lowest { 0.0 } else { scaled };
                if self.is_nan() { self } else { scaled }
            }

            #[inline(always)]
            fn size(self) -> Self {
                self.abs()
            }

            #[inline(always)]
            fn root(self) -> Self {
                self.sqrt()
            }

            #[inline(always)]
            fn log(self) -> Self {
                self.ln()
            }

            #[inline(always)]
            fn log_of_more(self) -> Self {
                self.ln_1p()
            }

            #[inline(always)]
            fn to_power(self, exponent: Self) -> Self {
                self.powf(exponent)
            }

            #[inline(always)]
            fn sine(self) -> Self {
                self.sin()
            }

            #[inline(always)]
            fn cosine(self) -> Self {
                self.cos()
            }
        }
    };
}

// `highest` is the largest x whose e^x the type holds: there the series is below 1, so that 2^n
// times it is still finite. ln 2 is given as a part with few digits, whose products with whole
// numbers are exact, and the rest. The series are 1 / n!, highest power first.
real!(f64, lowest -708.0, highest 709.782_712_893_383_9, round 6_755_399_441_055_744.0,
    ln2 6.931_471_803_691_238_164_90e-1 + 1.908_214_929_270_587_700_02e-10, mantissa 52,
    series [6_227_020_800.0 479_001_600.0 39_916_800.0 3_628_800.0 362_880.0 40_320.0 5_040.0 720.0 120.0 24.0
        6.0 2.0 1.0]);
real!(f32, lowest -87.3, highest 88.722_83, round 12_582_912.0,
    ln2 0.693_359_375 + -2.121_944_4e-4, mantissa 23,
    series [5_040.0 720.0 120.0 24.0 6.0 2.0 1.0]);

/// The values and derivatives of a block.
struct ChainBlock<T> {
    argument: [T; BLOCK],
    value: [T; BLOCK],
    slope: [T; BLOCK],
    /// 0 where a part has cut off what comes before it: then the slope is 0 even if another factor
    /// is infinite, as that of a square root at 0.
    open: [T; BLOCK],
}

/// y = f(x) and, where they are wanted, the derivatives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pointwise<'a, T> {
    pub(crate) chain: &'a [ChainPart],
    pub(crate) source: DenseRows<'a, T>,
    /// Rows of a sample.
    pub(crate) positions: usize,
    /// The positions that are computed, ascending.
    pub(crate) live: &'a [usize],
    pub(crate) samples: usize,
}

impl<T: SimdFloat> Pointwise<'_, T> {
    /// Writes the live rows of the values as `layout` says, and of the derivatives, if there is a
    /// buffer for them, row after row without gaps.
    pub(crate) fn run(
        &self,
        set: InstructionSet,
        out: &mut [T],
        layout: RowLayout,
        slopes: Option<&mut [T]>,
    ) {
        let Self { positions, live, samples, .. } = *self;
        let rows = LiveRows { positions, live, samples };
        let parts = tasks(rows.count(), LEAST_ROWS);
        let values = rows.chunks(out, parts, layout.pitch);
        let channels = self.source.channels;
        // Derivatives are cut into the same rows as the values, so that a task has both.
        let slopes = match slopes {
            Some(slopes) => rows.chunks(slopes, parts, channels).into_iter().map(Some).collect(),
            None => values.iter().map(|_| None).collect::<Vec<_>>(),
        };
        values.into_par_iter().zip(slopes).for_each(|(out, mut slopes)| {
            for row in out.rows.clone().map(|number| rows.row(number)) {
                let first = row * layout.pitch + layout.offset - out.start;
                let own = slopes.as_mut().map(|slopes| {
                    let first = row * channels - slopes.start;
                    &mut slopes.values[first..first + channels]
                });
                let y = &mut out.values[first..first + channels];
                set.run(PointwiseRow { chain: self.chain, x: self.source.row(row), y, slopes: own });
            }
        });
    }
}

/// One row, with its derivatives where they are wanted.
struct PointwiseRow<'a, 'b, T> {
    chain: &'a [ChainPart],
    x: &'a [T],
    y: &'b mut [T],
    slopes: Option<&'b mut [T]>,
}

impl<T: SimdFloat> WithSimd for PointwiseRow<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { chain, x, y, mut slopes } = self;
        let (zero, one) = (T::default(), T::of(1.0));
        let mut block = ChainBlock {
            argument: [zero; BLOCK],
            value: [zero; BLOCK],
            slope: [zero; BLOCK],
            open: [zero; BLOCK],
        };
        for (at, (x, y)) in x.chunks(BLOCK).zip(y.chunks_mut(BLOCK)).enumerate() {
            block.argument[..x.len()].copy_from_slice(x);
            block.value = block.argument;
            (block.slope, block.open) = ([one; BLOCK], [one; BLOCK]);
            for part in chain {
                block.apply(*part, T::of(T::LARGEST));
            }
            block.close();
            y.copy_from_slice(&block.value[..y.len()]);
            if let Some(slopes) = &mut slopes {
                slopes[at * BLOCK..][..x.len()].copy_from_slice(&block.slope[..x.len()]);
            }
        }
    }
}

impl<T: Real> ChainBlock<T> {
    /// One part of the chain. A derivative that overflows is `largest` instead of infinite, since 0
    /// times it must stay 0.
    #[inline(always)]
    fn apply(&mut self, part: ChainPart, largest: T) {
        let of = T::of;
        let (zero, one) = (of(0.0), of(1.0));
        match part {
            ChainPart::Affine { scale, shift } => {
                let (scale, shift) = (of(scale), of(shift));
                self.each(|y| (scale * y + shift, scale));
            }
            ChainPart::Argument => {
                let Self { argument, value, slope, open } = self;
                for (((y, slope), open), x) in value.iter_mut().zip(slope).zip(open).zip(argument) {
                    // d(x f(x)) = f'(x) x + f(x): where f has been cut off only its own term is 0,
                    // and what follows is cut off no longer.
                    let own = if *open == zero { zero } else { *slope };
                    *slope = own * *x + *y;
                    *open = one;
                    *y = *y * *x;
                }
            }
            ChainPart::Sigmoid => self.each(|y| {
                let s = one / (one + (-y).power_of_e());
                (s, s * (one - s))
            }),
            ChainPart::LogSigmoid => self.each(|y| {
                let low = if y < zero { y } else { zero };
                (low - (-y.size()).power_of_e().log_of_more(), one / (one + y.power_of_e()))
            }),
            ChainPart::Tanh => self.each(|y| {
                let t = tanh(y);
                (t, one - t * t)
            }),
            ChainPart::Gelu => self.each(|y| {
                let e = (of(-0.5) * y * y).power_of_e();
                let phi = of(0.5) * (one + erf(y * of(FRAC_1_SQRT_2), e));
                (y * phi, phi + y * e * of(1.0 / (2.0 * PI).sqrt()))
            }),
            ChainPart::Erf => self.each(|y| {
                let e = (-y * y).power_of_e();
                (erf(y, e), of(FRAC_2_SQRT_PI) * e)
            }),
            ChainPart::Exp => self.each(|y| {
                let e = y.power_of_e();
                (e, if e > largest { largest } else { e })
            }),
            ChainPart::Log => self.each(|y| (y.log(), one / y)),
            ChainPart::Log1p => self.each(|y| (y.log_of_more(), one / (one + y))),
            ChainPart::Sqrt => self.each(|y| {
                let root = y.root();
                (root, of(0.5) / root)
            }),
            ChainPart::Recip => self.each(|y| (one / y, -one / (y * y))),
            ChainPart::Power(2.0) => self.each(|y| (y * y, of(2.0) * y)),
            ChainPart::Power(3.0) => self.each(|y| (y * y * y, of(3.0) * y * y)),
            ChainPart::Power(0.0) => self.each(|y| (y.to_power(zero), zero)),
            ChainPart::Power(p) => self.each(|y| (y.to_power(of(p)), of(p) * y.to_power(of(p - 1.0)))),
            ChainPart::Sin => self.each(|y| (y.sine(), y.cosine())),
            ChainPart::Cos => self.each(|y| (y.cosine(), -y.sine())),
            ChainPart::Abs => self.cut(|y| {
                let sign = if y > zero { one } else { -one };
                (y.size(), if y == zero { zero } else { sign })
            }),
            ChainPart::Leaky(slope) => {
                let slope = of(slope);
                self.cut(|y| {
                    let factor = if y > zero { one } else { slope };
                    (if y > zero { y } else { y * slope }, factor)
                });
            }
            ChainPart::Clamp { min, max } => {
                let (min, max) = (of(min), of(max));
                self.cut(|y| {
                    let low = if y < min { min } else { y };
                    let inside = y > min && y < max;
                    (if low > max { max } else { low }, if inside { one } else { zero })
                });
            }
        }
    }

    /// Value and derivative of each element.
    #[inline(always)]
    fn each(&mut self, f: impl Fn(T) -> (T, T)) {
        for (y, slope) in self.value.iter_mut().zip(&mut self.slope) {
            let (value, own) = f(*y);
            *slope = *slope * own;
            *y = value;
        }
    }

    /// As [`ChainBlock::each`], where a derivative of 0 cuts off whatever comes before.
    #[inline(always)]
    fn cut(&mut self, f: impl Fn(T) -> (T, T)) {
        let zero = T::of(0.0);
        for ((y, slope), open) in self.value.iter_mut().zip(&mut self.slope).zip(&mut self.open) {
            let (value, own) = f(*y);
            *slope = *slope * own;
            *open = if own == zero { zero } else { *open };
            *y = value;
        }
    }

    /// Zeros where something has cut off the rest.
    #[inline(always)]
    fn close(&mut self) {
        let zero = T::of(0.0);
        for (slope, open) in self.slope.iter_mut().zip(&self.open) {
            *slope = if *open == zero { zero } else { *slope };
        }
    }
}

/// The coefficients of a polynomial, highest power first.
#[inline(always)]
fn polynomial<T: Real, const N: usize>(x: T, coefficients: [f64; N]) -> T {
    coefficients.into_iter().fold(T::of(0.0), |sum, c| sum * x + T::of(c))
}

/// tanh x: by a rational function near 0 (Cephes' `tanh`), by the exponential elsewhere.
#[inline(always)]
fn tanh<T: Real>(x: T) -> T {
    let z = x * x;
    let above = polynomial(
        z,
        [-9.643_991_794_250_522_386_28e-1, -9.928_772_310_019_185_865_64e1, -1.614_687_684_417_084_479_52e3],
    );
    let below = polynomial(
        z,
        [1.0, 1.128_116_784_916_329_314_02e2, 2.235_488_390_601_004_485_83e3, 4.844_063_053_251_254_860_48e3],
    );
    let near = x + x * z * above / below;
    let (one, two) = (T::of(1.0), T::of(2.0));
    let far = one - two / ((two * x.size()).power_of_e() + one);
    let far = if x < T::of(0.0) { -far } else { far };
    if x.size() < T::of(0.625) { near } else { far }
}

/// The error function, given e = exp(-x^2): one rational function below 1 and another from there on
/// (Cephes' `erf` and `erfc`).
#[inline(always)]
fn erf<T: Real>(x: T, e: T) -> T {
    let (z, size) = (x * x, x.size());
    let above = polynomial(
        z,
        [
            9.604_973_739_870_516_387_49,
            9.002_601_972_038_426_892_17e1,
            2.232_005_345_946_843_192_26e3,
            7.003_325_141_128_050_754_73e3,
            5.559_230_130_103_949_627_68e4,
        ],
    );
    let below = polynomial(
        z,
        [
            1.0,
            3.356_171_416_475_030_996_47e1,
            5.213_579_497_801_526_797_95e2,
            4.594_323_829_709_801_279_87e3,
            2.262_900_006_138_909_342_46e4,
            4.926_739_426_086_359_210_86e4,
        ],
    );
    let near = x * above / below;
    // From 8 on 1 - erf is below rounding, and the polynomials could overflow.
    let capped = if size > T::of(8.0) { T::of(8.0) } else { size };
    let above = polynomial(
        capped,
        [
            2.461_969_814_735_305_125_24e-10,
            5.641_895_648_310_688_219_77e-1,
            7.463_210_564_422_699_126_87,
            4.863_719_709_856_813_666_14e1,
            1.965_208_329_560_770_982_42e2,
            5.264_451_949_954_773_586_31e2,
            9.345_285_271_719_576_075_40e2,
            1.027_551_886_895_157_102_72e3,
            5.575_353_353_693_993_275_26e2,
        ],
    );
    let below = polynomial(
        capped,
        [
            1.0,
            1.322_819_511_547_449_925_08e1,
            8.670_721_408_859_897_423_29e1,
            3.549_377_788_878_198_910_62e2,
            9.757_085_017_432_054_897_53e2,
            1.823_909_166_879_097_362_89e3,
            2.246_337_608_187_109_817_92e3,
            1.656_663_091_941_613_501_82e3,
            5.575_353_408_177_276_755_46e2,
        ],
    );
    let far = T::of(1.0) - e * above / below;
    let far = if x < T::of(0.0) { -far } else { far };
    if size < T::of(1.0) { near } else { far }
}

#[cfg(test)]
mod tests {
    //! Values against the standard library's, derivatives against differences.

    use super::*;
    use crate::kernels::twins::cases::sets;

    /// Values and derivatives of a chain at some arguments.
    fn at(set: InstructionSet, chain: &[ChainPart], x: &[f64]) -> [Vec<f64>; 2] {
        let (mut y, mut slopes) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let source = DenseRows { values: x, pitch: x.len(), offset: 0, channels: x.len() };
        let layout = RowLayout { pitch: x.len(), offset: 0 };
        let pointwise = Pointwise { chain, source, positions: 1, live: &[0], samples: 1 };
        pointwise.run(set, &mut y, layout, Some(&mut slopes));
        [y, slopes]
    }

    fn grid() -> Vec<f64> {
        (-4000..=4000).map(|i| f64::from(i) * 0.005 + 1e-4).collect()
    }

    fn close(found: f64, expected: f64, x: f64, tolerance: f64) {
        let within = (found - expected).abs() <= tolerance * expected.abs().max(1e-3);
        assert!(within || found == expected, "{found:e} for {expected:e} at {x}");
    }

    #[test]
    fn exp_and_tanh_are_those_of_the_library() {
        for x in grid().into_iter().map(|x| 35.0 * x).filter(|x| *x > -700.0 && *x < 709.7) {
            let (found, expected) = (x.power_of_e(), x.exp());
            assert!((found - expected).abs() <= 4e-16 * x.abs().max(1.0) * expected, "{found:e} at {x}");
        }
        assert_eq!(
            [f64::INFINITY, -f64::INFINITY, 800.0, 0.0].map(Real::power_of_e),
            [f64::INFINITY, 0.0, f64::INFINITY, 1.0]
        );
        assert!(f64::NAN.power_of_e().is_nan() && f32::NAN.power_of_e().is_nan());
        grid().into_iter().for_each(|x| close(tanh(x), x.tanh(), x, 1e-15));
        for x in grid().into_iter().map(|x| 4.4 * x).filter(|x| *x > -87.0 && *x < 88.7) {
            let (found, expected) = (f64::from((x as f32).power_of_e()), f64::from(x as f32).exp());
            assert!((found - expected).abs() <= 2e-7 * x.abs().max(1.0) * expected, "{found:e} at {x}");
            let (found, expected) = (f64::from(tanh(x as f32)), f64::from(x as f32).tanh());
            close(found, expected, x, 4e-7);
        }
        assert_eq!(
            [f32::INFINITY, -f32::INFINITY, 89.0].map(Real::power_of_e),
            [f32::INFINITY, 0.0, f32::INFINITY]
        );
    }

    #[test]
    fn erf_is_that_of_tables() {
        let known = [
            (0.1, 0.112_462_916_018_284_892_2),
            (0.5, 0.520_499_877_813_046_537_7),
            (0.9, 0.796_908_212_422_832_128_5),
            (1.0, 0.842_700_792_949_714_869_3),
            (1.5, 0.966_105_146_475_310_727_1),
            (2.0, 0.995_322_265_018_952_734_2),
            (3.0, 0.999_977_909_503_001_414_6),
            (4.0, 0.999_999_984_582_742_099_7),
            (9.0, 1.0),
        ];
        for (x, expected) in known {
            close(erf(x, (-x * x).power_of_e()), expected, x, 1e-15);
            close(erf(-x, (-x * x).power_of_e()), -expected, x, 1e-15);
            let single = x as f32;
            close(f64::from(erf(single, (-single * single).power_of_e())), expected, x, 4e-7);
        }
    }

    #[test]
    fn slopes_are_limits_of_differences() {
        let whole: &[&[ChainPart]] = &[
            &[ChainPart::Sigmoid],
            &[ChainPart::LogSigmoid],
            &[ChainPart::Tanh],
            &[ChainPart::Gelu],
            &[ChainPart::Erf],
            &[ChainPart::Exp],
            &[ChainPart::Sin],
            &[ChainPart::Cos],
            &[ChainPart::Abs],
            &[ChainPart::Leaky(0.1)],
            &[ChainPart::Power(2.0)],
            &[ChainPart::Power(3.0)],
            &[ChainPart::Power(4.0)],
            &[ChainPart::Clamp { min: -1.0, max: 6.0 }],
            &[ChainPart::Sigmoid, ChainPart::Argument],
            &[
                ChainPart::Affine { scale: 1.0, shift: 3.0 },
                ChainPart::Clamp { min: 0.0, max: 6.0 },
                ChainPart::Argument,
                ChainPart::Affine { scale: 1.0 / 6.0, shift: 0.0 },
            ],
            &[ChainPart::Exp, ChainPart::Log1p, ChainPart::Tanh, ChainPart::Argument],
        ];
        let positive: &[&[ChainPart]] = &[
            &[ChainPart::Log],
            &[ChainPart::Sqrt],
            &[ChainPart::Recip],
            &[ChainPart::Power(-0.5)],
            &[ChainPart::Log1p, ChainPart::Sqrt],
        ];
        let chains = whole.iter().map(|chain| (chain, -6.0)).chain(positive.iter().map(|chain| (chain, 0.2)));
        for ((chain, lowest), set) in chains.flat_map(|chain| sets().map(move |set| (chain, set))) {
            let x: Vec<f64> = (0..97).map(|i| lowest + f64::from(i) * 0.127_3).collect();
            let [_, slopes] = at(set, chain, &x);
            let step = 1e-5;
            let [above, below] = [step, -step].map(|step| {
                let x: Vec<f64> = x.iter().map(|x| x + step).collect();
                at(set, chain, &x)[0].clone()
            });
            for (i, slope) in slopes.iter().enumerate() {
                let difference = (above[i] - below[i]) / (2.0 * step);
                let size = slope.abs().max(above[i].abs()).max(1.0);
                assert!((slope - difference).abs() <= 1e-6 * size, "{chain:?} at {}: {slope}", x[i]);
            }
        }
    }

    #[test]
    fn slopes_at_kinks_are_those_of_the_burn_executor() {
        let slope = |part: ChainPart, x: f64| at(InstructionSet::Scalar, &[part], &[x])[1][0];
        let cut = ChainPart::Clamp { min: 0.0, max: 6.0 };
        assert_eq!([slope(cut, 0.0), slope(cut, 6.0), slope(cut, 3.0)], [0.0, 0.0, 1.0]);
        assert_eq!([slope(ChainPart::Abs, 0.0), slope(ChainPart::Leaky(0.1), 0.0)], [0.0, 0.1]);
        let after = at(InstructionSet::Scalar, &[cut, ChainPart::Sqrt], &[-1.0]);
        assert_eq!(after, [[0.0], [0.0]], "an infinite slope behind a bound");
        let [y, slopes] = at(InstructionSet::Scalar, &[ChainPart::Sqrt, cut], &[0.0, f64::NAN]);
        assert!(slopes[0] == 0.0 && y[1].is_nan(), "{y:?} {slopes:?}");
    }
}
