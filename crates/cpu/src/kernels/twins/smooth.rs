//! Kernels without masks: values combined element by element, normalised rows, products of
//! matrices, and their pullbacks.

use proptest::prelude::*;

use super::cases::{
    CANARY, Draws, GivenCotangents, LayerCase, PATCHED, cases, cases_in_lanes_too, close, fill, given, image,
    naive_pullback, read, sets, sets_for, table, triples,
};
use crate::kernels::{
    Combine, CotangentTarget, Cotangents, DenseRows, GatherPullback, How, LineLayout, Matrices,
    MatricesPullback, MatrixOperand, MatrixRole, Panels, Patches, Pullback, Repetition, RowFactor, RowLayout,
    RowTable, ScaledPullback, Share, SimdFloat, Start, Stride, WinogradForm, Within, WithinPullback,
    WithinRow,
};

/// Rows of random numbers with others around them.
struct GivenRows<T> {
    values: Vec<T>,
    pitch: usize,
    channels: usize,
}

impl<T: SimdFloat> GivenRows<T> {
    fn new(rows: usize, channels: usize, draws: &mut Draws) -> Self {
        let pitch = channels + 3;
        Self { values: draws.numbers(rows * pitch + 64), pitch, channels }
    }

    fn dense(&self) -> DenseRows<'_, T> {
        DenseRows { values: &self.values, pitch: self.pitch, offset: 2, channels: self.channels }
    }

    fn at(&self, row: usize, channel: usize) -> f64 {
        self.dense().row(row)[channel].to_f64()
    }

    /// These rows as lines of cotangents.
    fn lines(&self) -> Cotangents<'_, T> {
        let layout = LineLayout::Dense { pitch: self.pitch, offset: 2, channels: self.channels };
        Cotangents { values: &self.values, layout }
    }
}

/// Calls `run` on a buffer of lines with every set that there is, adding to what is there or not,
/// and compares what the buffer then holds.
fn check_lines<T: SimdFloat>(
    [rows, lines, channels]: [usize; 3],
    draws: &mut Draws,
    unit: f64,
    expected: impl Fn(usize, usize, usize) -> f64,
    run: impl Fn(crate::kernels::InstructionSet, bool, [usize; 2], &mut [T]),
) {
    let (pitch, offset) = (channels + 5, 3);
    let target = CotangentTarget::Lines(LineLayout::Dense { pitch, offset, channels });
    for (set, add) in sets_for(lines).flat_map(|set| [(set, true), (set, false)]) {
        let mut out = vec![T::from_f64(CANARY); target.size(rows, lines)];
        fill(target, rows, lines, &mut out, draws);
        let old = read(target, rows, lines, channels, &out);
        run(set, add, [pitch, offset], &mut out[..rows * lines * pitch]);
        let found = read(target, rows, lines, channels, &out);
        let wanted = triples(rows, lines, channels)
            .zip(&old)
            .map(|((row, line, channel), old)| expected(row, line, channel) + if add { *old } else { 0.0 });
        close(&found, &wanted.collect::<Vec<_>>(), unit, &format!("{set}, add {add}"));
    }
}

/// Two values, of which the other may be repeated, and cotangents of their combination.
struct Combined<T> {
    samples: usize,
    /// Rows of a sample of the result.
    positions: usize,
    channels: usize,
    lines: usize,
    x: GivenRows<T>,
    o: GivenRows<T>,
    /// Rows of a sample of o.
    other_rows: usize,
    repeat: Repetition,
    g: GivenRows<T>,
}

impl<T: SimdFloat> Combined<T> {
    fn new(case: &LayerCase, draws: &mut Draws) -> Self {
        let LayerCase { samples, inputs: channels, rows: [few, positions], lines, .. } = *case;
        let single = draws.below(2) == 0;
        let from: Vec<usize> = (0..positions).map(|_| draws.below(few)).collect();
        let table = RowTable::new(positions, 1, few, |row, _| Some(from[row]));
        let (rows, other_rows) = if draws.below(3) == 0 { (None, positions) } else { (Some(table), few) };
        let repeat = Repetition { rows, first: 0, single };
        let x = GivenRows::<T>::new(samples * positions, channels, draws);
        let mut o = GivenRows::<T>::new(samples * other_rows, if single { 1 } else { channels }, draws);
        // Away from 0, for quotients.
        o.values.iter_mut().for_each(|o| *o = T::from_f64(o.to_f64() + 2.0));
        let g = GivenRows::<T>::new(samples * positions * lines, channels, draws);
        Self { samples, positions, channels, lines, x, o, other_rows, repeat, g }
    }

    /// Rows of the result.
    fn rows(&self) -> usize {
        self.samples * self.positions
    }

    /// The element of o that is combined with an element of x.
    fn other(&self, row: usize, channel: usize) -> f64 {
        let (sample, position) = (row / self.positions, row % self.positions);
        let channel = if self.repeat.single { 0 } else { channel };
        self.o.at(sample * self.other_rows + self.repeat.row(position), channel)
    }

    /// Compares the result with plain loops. Returns the derivatives by both operands, if there are
    /// any.
    fn check_values(&self, how: How, unit: f64) -> [Vec<T>; 2] {
        let Self { samples, positions, channels, other_rows, .. } = *self;
        let live: Vec<_> = (0..positions).collect();
        let (source, other) = (self.x.dense(), self.o.dense());
        let repeat = &self.repeat;
        let combine = Combine { how, source, other, repeat, positions, live: &live, samples, other_rows };
        let size = self.rows() * channels;
        let mut slopes = [(); 2].map(|()| vec![T::default(); size]);
        let expected: Vec<_> = (0..size)
            .map(|at| (at / channels, at % channels))
            .map(|(row, channel)| value(how, self.x.at(row, channel), self.other(row, channel)))
            .collect();
        for set in sets() {
            let mut out = vec![T::default(); size];
            let [a, b] = &mut slopes;
            combine.run(set, &mut out, RowLayout { pitch: channels, offset: 0 }, Some([a, b]));
            close(&out, &expected, unit, &format!("{how:?}, {set}"));
        }
        slopes
    }

    /// Compares the pullbacks to both operands with plain loops.
    fn check_pullbacks(&self, how: How, slopes: &[Vec<T>; 2], unit: f64, draws: &mut Draws) {
        let Self { samples, positions, channels, lines, x, o, other_rows, repeat, g } = self;
        let (samples, positions, channels, lines) = (*samples, *positions, *channels, *lines);
        let dense = |values| DenseRows { values, pitch: channels, offset: 0, channels };
        let own = |rows| RowFactor::Rows { rows, count: positions, repeat: None };
        let factors = match how {
            How::Sum(signs) => signs.map(|sign| RowFactor::Number(T::from_f64(sign))),
            How::Product => {
                let repeated = RowFactor::Rows { rows: o.dense(), count: *other_rows, repeat: Some(repeat) };
                [repeated, own(x.dense())]
            }
            _ => [own(dense(&slopes[0])), own(dense(&slopes[1]))],
        };
        // The derivatives by both.
        let by_x = |x: f64, o: f64| value(how, x + 1.0, o) - value(how, x, o);
        let by_o = |x: f64, o: f64| match how {
            How::Quotient => -x / (o * o),
            _ => value(how, x, o + 1.0) - value(how, x, o),
        };
        let cotangent = |row: usize, line: usize, channel: usize| g.at(row * lines + line, channel);
        let scaled = |links, factor, channels, add, [pitch, offset]: [usize; 2]| {
            let source = g.lines();
            ScaledPullback {
                links,
                source,
                positions,
                factor,
                slopes: None,
                pitch,
                offset,
                channels,
                add,
                lines,
            }
        };
        check_lines::<T>(
            [self.rows(), lines, channels],
            draws,
            unit,
            |row, line, channel| {
                cotangent(row, line, channel) * by_x(x.at(row, channel), self.other(row, channel))
            },
            |set, add, at, out| scaled(None, factors[0], channels, add, at).run(set, samples, out),
        );
        let links = repeat.rows.as_ref().map(RowTable::links);
        let wide = o.channels;
        check_lines::<T>(
            [samples * other_rows, lines, wide],
            draws,
            unit,
            |row, line, channel| {
                let (sample, own) = (row / other_rows, row % other_rows);
                let readers = (0..positions).filter(|&position| repeat.row(position) == own);
                let channels = if repeat.single { 0..channels } else { channel..channel + 1 };
                readers
                    .flat_map(|position| channels.clone().map(move |c| (sample * positions + position, c)))
                    .map(|(row, c)| cotangent(row, line, c) * by_o(x.at(row, c), self.other(row, c)))
                    .sum()
            },
            |set, add, at, out| scaled(links.as_ref(), factors[1], wide, add, at).run(set, samples, out),
        );
    }
}

/// One element of a combination.
fn value(how: How, x: f64, o: f64) -> f64 {
    match how {
        How::Sum([a, b]) => a * x + b * o,
        How::Product => x * o,
        How::Quotient => x / o,
        How::Inverse => o / x,
    }
}

fn check_combined<T: SimdFloat>(case: &LayerCase, unit: f64) {
    let mut draws = Draws(case.seed);
    let combined = Combined::<T>::new(case, &mut draws);
    for how in [How::Sum([1.0, -1.0]), How::Product, How::Quotient] {
        let slopes = combined.check_values(how, unit);
        combined.check_pullbacks(how, &slopes, unit, &mut draws);
    }
}

fn check_within<T: SimdFloat>(case: &LayerCase, unit: f64) {
    let mut draws = Draws(case.seed);
    let LayerCase { samples, inputs: channels, rows: [positions, _], lines, .. } = *case;
    let all = samples * positions;
    let x = GivenRows::<T>::new(all, channels, &mut draws);
    let g = GivenRows::<T>::new(all * lines, channels, &mut draws);
    let (gamma, beta): (Vec<T>, Vec<T>) = (draws.numbers(channels), draws.numbers(channels));
    let live: Vec<_> = (0..positions).collect();
    let epsilon = 0.5;
    for row in [WithinRow::Softmax, WithinRow::Standard { epsilon, gamma: gamma.clone(), beta: beta.clone() }]
    {
        let is_softmax = matches!(row, WithinRow::Softmax);
        let of_row = |at: usize| (0..channels).map(|c| x.at(at, c)).collect::<Vec<_>>();
        let mean = |terms: &[f64]| terms.iter().sum::<f64>() / channels as f64;
        // h and one over the deviation, or the softmax.
        let plain = |at: usize| {
            let x = of_row(at);
            if is_softmax {
                let sum: f64 = x.iter().map(|x| x.exp()).sum();
                return (x.iter().map(|x| x.exp() / sum).collect::<Vec<_>>(), 1.0);
            }
            let centred: Vec<_> = x.iter().map(|value| value - mean(&x)).collect();
            let inverse = 1.0 / (mean(&centred.iter().map(|x| x * x).collect::<Vec<_>>()) + epsilon).sqrt();
            (centred.iter().map(|x| x * inverse).collect(), inverse)
        };
        let plain: Vec<(Vec<f64>, f64)> = (0..all).map(plain).collect();
        let width = row.kept(channels).unwrap_or(channels);
        let mut kept = vec![T::default(); all * width];
        for set in sets() {
            let mut out = vec![T::default(); all * channels];
            let within = Within { row: &row, source: x.dense(), positions, live: &live, samples };
            let layout = RowLayout { pitch: channels, offset: 0 };
            within.run(set, &mut out, layout, (!is_softmax).then_some(&mut kept));
            if is_softmax {
                kept.copy_from_slice(&out);
            }
            let expected: Vec<_> = (0..all)
                .flat_map(|at| plain[at].0.clone())
                .enumerate()
                .map(|(at, h)| {
                    let c = at % channels;
                    if is_softmax { h } else { h * gamma[c].to_f64() + beta[c].to_f64() }
                })
                .collect();
            close(&out, &expected, unit, &format!("{row:?}, {set}"));
        }
        let expected = |at: usize, line: usize, channel: usize| {
            let (h, inverse) = &plain[at];
            let own = |c: usize| g.at(at * lines + line, c);
            if is_softmax {
                let along: f64 = (0..channels).map(|c| own(c) * h[c]).sum();
                return h[channel] * (own(channel) - along);
            }
            let u: Vec<_> = (0..channels).map(|c| own(c) * gamma[c].to_f64()).collect();
            let along = mean(&u.iter().zip(h).map(|(u, h)| u * h).collect::<Vec<_>>());
            inverse * (u[channel] - mean(&u) - h[channel] * along)
        };
        check_lines::<T>([all, lines, channels], &mut draws, unit, expected, |set, add, at, out| {
            let kept = DenseRows { values: &kept, pitch: width, offset: 0, channels: width };
            let [pitch, offset] = at;
            WithinPullback { row: &row, kept, source: g.lines(), pitch, offset, add, lines }
                .run(set, all, out);
        });
    }
}

/// Heads side by side in channels or one after the other in rows, and matrices either way round.
fn check_matrices<T: SimdFloat + faer::traits::RealField>(case: &LayerCase, unit: f64) {
    let mut draws = Draws(case.seed);
    let LayerCase { samples, rows: [m, n], lines, .. } = *case;
    let (k, heads) = (1 + draws.below(9), 1 + draws.below(3));
    let mut operand = |[first, second]: [usize; 2]| {
        let (rows, channels) = (Stride { rows: 1, channels: 0 }, Stride { rows: 0, channels: 1 });
        let flipped = draws.below(2) == 0;
        let [along, across] = if flipped { [second, first] } else { [first, second] };
        let strides = if flipped { [channels, rows] } else { [rows, channels] };
        let beside = draws.below(2) == 0;
        let corner = |head: usize| if beside { [0, head * across] } else { [head * along, 0] };
        let corners = (0..heads).map(corner).collect();
        let (rows, channels) = if beside { (along, heads * across) } else { (heads * along, across) };
        (MatrixOperand { corners, strides, rows }, channels)
    };
    let [(a, of_a), (b, of_b), (c, of_c)] = [[m, k], [k, n], [m, n]].map(&mut operand);
    let matrices = Matrices { sizes: [m, k, n], operands: [a, b, c] };
    let entry = |operand: usize, head: usize, [i, j]: [usize; 2]| {
        let MatrixOperand { corners, strides: [first, second], .. } = &matrices.operands[operand];
        let [row, channel] = corners[head];
        let rows = row + i * first.rows + j * second.rows;
        (rows, channel + i * first.channels + j * second.channels)
    };
    let rows = |operand: usize| samples * matrices.operands[operand].rows;
    let (x, y) =
        (GivenRows::<T>::new(rows(0), of_a, &mut draws), GivenRows::<T>::new(rows(1), of_b, &mut draws));
    let g = GivenRows::<T>::new(rows(2) * lines, of_c, &mut draws);
    let value = |given: &GivenRows<T>, operand: usize, sample: usize, head: usize, at: [usize; 2]| {
        let (row, channel) = entry(operand, head, at);
        given.at(sample * matrices.operands[operand].rows + row, channel)
    };
    let mut out = vec![T::default(); rows(2) * of_c];
    matrices.run([x.dense(), y.dense()], samples, &mut out, [of_c, 0]);
    let mut expected = vec![0.0; out.len()];
    let mut pulled = [vec![0.0; rows(0) * lines * of_a], vec![0.0; rows(1) * lines * of_b]];
    for ((sample, head), (i, j, l)) in (0..samples)
        .flat_map(|s| (0..heads).map(move |h| (s, h)))
        .flat_map(|s| triples(m, n, k).map(move |t| (s, t)))
    {
        let (row, channel) = entry(2, head, [i, j]);
        let result = sample * matrices.operands[2].rows + row;
        let (a, b) = (value(&x, 0, sample, head, [i, l]), value(&y, 1, sample, head, [l, j]));
        expected[result * of_c + channel] += a * b;
        for line in 0..lines {
            let own = g.at(result * lines + line, channel);
            for (operand, at, width, factor) in [(0, [i, l], of_a, b), (1, [l, j], of_b, a)] {
                let (row, channel) = entry(operand, head, at);
                let row = sample * matrices.operands[operand].rows + row;
                pulled[operand][(row * lines + line) * width + channel] += own * factor;
            }
        }
    }
    close(&out, &expected, unit, &format!("{matrices:?}"));
    for (operand, (other, width)) in [(&y, of_a), (&x, of_b)].into_iter().enumerate() {
        let expected =
            |row: usize, line: usize, channel: usize| pulled[operand][(row * lines + line) * width + channel];
        check_lines::<T>([rows(operand), lines, width], &mut draws, unit, expected, |_, add, at, out| {
            let [pitch, offset] = at;
            if !add {
                let lines = out.chunks_exact_mut(pitch);
                lines.for_each(|line| line[offset..offset + width].fill(T::default()));
            }
            let (source, other) =
                (DenseRows { channels: of_c, pitch: g.pitch, offset: 2, values: &g.values }, other.dense());
            let operand = [MatrixRole::A, MatrixRole::B][operand];
            MatricesPullback { matrices: &matrices, operand, source, other, pitch, offset, lines }
                .run(samples, out);
        });
    }
}

/// A product whose pullback's results are multiplied by a factor for each element of their rows.
fn check_slopes_by_rows<T: SimdFloat>(case: &LayerCase, unit: f64) {
    check_product::<T>(case, &table(case, &mut Draws(case.seed)), None, unit);
}

fn check_slopes_by_patches<T: SimdFloat>(case: &LayerCase, unit: f64) {
    let mut draws = Draws(case.seed);
    let image = image(case, &mut draws);
    check_product::<T>(&image.case, &image.table, Some(&image.reversed(WinogradForm::Four)), PATCHED * unit);
}

/// A depthwise convolution: as many groups as channels.
fn check_slopes_of_channels<T: SimdFloat>(case: &LayerCase, unit: f64) {
    let alone = LayerCase { outputs: case.inputs, groups: case.inputs, ..case.clone() };
    check_product::<T>(&alone, &table(case, &mut Draws(case.seed)), None, unit);
}

fn check_product<T: SimdFloat>(case: &LayerCase, table: &RowTable, patches: Option<&Patches>, unit: f64) {
    let mut draws = Draws(case.seed);
    let LayerCase { samples, inputs, outputs, groups, rows: [before, behind], taps, lines, .. } = *case;
    let (links, rows) = (table.links(), samples * before);
    let weights: Vec<f64> = draws.numbers(taps * inputs * outputs);
    let weight = |tap: usize, o: usize, i: usize| {
        if case.joins(i, o) { weights[(tap * outputs + o) * inputs + i] } else { 0.0 }
    };
    let layout = LineLayout::Dense { pitch: outputs + 3, offset: 2, channels: outputs };
    let g: GivenCotangents<T> = given(layout, samples * behind, lines, &mut draws);
    let source = Cotangents { values: &g.values, layout };
    let factors = GivenRows::<T>::new(rows, inputs, &mut draws);
    let product = naive_pullback(case, table, &g.full, weight);
    let expected = |row: usize, line: usize, channel: usize| {
        product[(row * lines + line) * inputs + channel] * factors.at(row, channel)
    };
    let target = |[pitch, offset]: [usize; 2]| {
        CotangentTarget::Lines(LineLayout::Dense { pitch, offset, channels: inputs })
    };
    if groups > 1 && [inputs, outputs] == [groups; 2] {
        let own = |tap: usize| (0..inputs).map(move |channel| (tap, channel));
        let own = (0..taps).flat_map(own);
        let weights: Vec<T> = own.map(|(tap, channel)| T::from_f64(weight(tap, channel, channel))).collect();
        return check_lines::<T>([rows, lines, inputs], &mut draws, unit, expected, |set, add, at, out| {
            let (share, target, slopes) = (Share::Weights(&weights), target(at), Some(factors.dense()));
            let (channels, links) = (inputs, &links);
            GatherPullback { links, source, share, target, channels, scale: None, slopes, add, lines }
                .run(set, samples, out);
        });
    }
    let panels = match patches {
        // Seen from the inputs, each tap leads to the opposite side.
        Some(patches) => patches.panels(outputs, inputs, |tap, o, i| weight(8 - tap, o, i)),
        None => Panels::<T>::reverse(taps, outputs, inputs, groups, weight),
    };
    check_lines::<T>([rows, lines, inputs], &mut draws, unit, expected, |set, add, at, out| {
        let start = if add { Start::Sum } else { Start::Empty };
        let (panels, target, links) = (&panels, target(at), &links);
        let slopes = Some(factors.dense());
        Pullback { links, patches, panels, source, target, start, slopes, lines }.run(set, samples, out);
    });
}

/// Rows that a mask has compressed, times a factor for each element, and slopes on top.
fn check_scaled<T: SimdFloat>(case: &LayerCase, unit: f64) {
    let mut draws = Draws(case.seed);
    let LayerCase { samples, inputs: channels, rows: [positions, _], lines, share, .. } = *case;
    let all = samples * positions;
    let mask = draws.active(all, channels, share);
    let source = given::<T>(LineLayout::Compressed(&mask), all, lines, &mut draws);
    let (factors, further) =
        (GivenRows::<T>::new(all, channels, &mut draws), GivenRows::<T>::new(all, channels, &mut draws));
    let fixed: Vec<T> = draws.numbers(positions * channels);
    for which in 0..3 {
        let expected = |row: usize, line: usize, channel: usize| {
            let factor = match which {
                0 => 0.5,
                1 => factors.at(row, channel),
                _ => fixed[row % positions * channels + channel].to_f64(),
            };
            source.full[(row * lines + line) * channels + channel] * factor * further.at(row, channel)
        };
        check_lines::<T>([all, lines, channels], &mut draws, unit, expected, |set, add, at, out| {
            let factor = match which {
                0 => RowFactor::Number(T::from_f64(0.5)),
                1 => RowFactor::Rows { rows: factors.dense(), count: positions, repeat: None },
                _ => RowFactor::Fixed(DenseRows { values: &fixed, pitch: channels, offset: 0, channels }),
            };
            let ([pitch, offset], slopes) = (at, Some(further.dense()));
            let source = Cotangents { values: &source.values, layout: LineLayout::Compressed(&mask) };
            ScaledPullback {
                links: None,
                source,
                positions,
                factor,
                slopes,
                pitch,
                offset,
                channels,
                add,
                lines,
            }
            .run(set, samples, out);
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn combine_forward_and_pullback(case in cases()) {
        check_combined::<f32>(&case, f64::from(f32::EPSILON));
        check_combined::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn pullback_by_rows_times_slopes(case in cases_in_lanes_too()) {
        check_slopes_by_rows::<f32>(&case, f64::from(f32::EPSILON));
        check_slopes_by_rows::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn pullback_winograd_times_slopes(case in cases()) {
        check_slopes_by_patches::<f32>(&case, f64::from(f32::EPSILON));
        check_slopes_by_patches::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn gather_depthwise_times_slopes(case in cases_in_lanes_too()) {
        check_slopes_of_channels::<f32>(&case, f64::from(f32::EPSILON));
        check_slopes_of_channels::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn scaled_pullback(case in cases()) {
        check_scaled::<f32>(&case, f64::from(f32::EPSILON));
        check_scaled::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn softmax_and_layer_norm_forward_and_pullback(case in cases()) {
        check_within::<f32>(&case, f64::from(f32::EPSILON));
        check_within::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn matrix_products_forward_and_pullback(case in cases()) {
        check_matrices::<f32>(&case, f64::from(f32::EPSILON));
        check_matrices::<f64>(&case, f64::EPSILON);
    }
}
