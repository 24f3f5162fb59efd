//! Sums over square windows of a plane, clipped at its border, only by additions.
//!
//! Sums of 1, 2, 4, ... neighbours are built by doubling, and sums of 2 s + 1 neighbours from them:
//! about 2 log2(2 s + 1) additions per pixel and axis. An integral image would need only four
//! operations, but its differences of prefix sums leave rounding errors of the size of the whole
//! image, which count as rank in a window of a few pixels. A pixel outside the plane adds an exact
//! zero.

/// Work memory of [`WindowSums::of`], reused between planes.
#[derive(Debug, Default)]
pub(super) struct WindowSums {
    padded: Vec<f64>,
    across: Vec<f64>,
}

impl WindowSums {
    /// The sums of `plane` over windows of half-width `s` around every pixel.
    ///
    /// # Shapes
    ///
    /// `plane`, `sums`: [`height`, `width`].
    pub(super) fn of(&mut self, plane: &[f64], [height, width]: [usize; 2], s: usize, sums: &mut [f64]) {
        if s == 0 {
            sums.copy_from_slice(plane);
            return;
        }
        // Pad every row with s zeros on both sides; sum along rows into `across`, which has s rows
        // of zeros above and below; then sum along columns.
        let (wide, window) = (width + 2 * s, 2 * s + 1);
        self.padded.clear();
        self.padded.resize(height * wide, 0.0);
        for (row, target) in plane.chunks_exact(width).zip(self.padded.chunks_exact_mut(wide)) {
            target[s..s + width].copy_from_slice(row);
        }
        self.across.clear();
        self.across.resize((height + 2 * s) * width, 0.0);
        doubling(&mut self.padded, 1, window, |powers, offset| {
            let targets = self.across[s * width..].chunks_exact_mut(width);
            for (row, target) in powers.chunks_exact(wide).zip(targets) {
                add(target, &row[offset..]);
            }
        });
        sums.fill(0.0);
        doubling(&mut self.across, width, window, |powers, offset| add(sums, &powers[offset * width..]));
    }
}

/// Splits a window of `window` elements, `stride` apart, into parts of 2^k elements, one part for
/// every bit of its length. Calls `part` with the array of sums of 2^k elements and the offset of
/// the part in the window. Overwrites `values`.
fn doubling(values: &mut [f64], stride: usize, window: usize, mut part: impl FnMut(&[f64], usize)) {
    let (mut length, mut offset) = (1, 0);
    loop {
        if window & length != 0 {
            part(values, offset);
            offset += length;
        }
        if offset == window {
            return;
        }
        let shift = length * stride;
        for i in 0..values.len() - shift {
            values[i] += values[i + shift];
        }
        length *= 2;
    }
}

fn add(target: &mut [f64], values: &[f64]) {
    target.iter_mut().zip(values).for_each(|(sum, x)| *sum += x);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sums by plain loops.
    fn naive(plane: &[f64], [height, width]: [usize; 2], s: usize) -> Vec<f64> {
        let mut sums = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let rows = y.saturating_sub(s)..(y + s + 1).min(height);
                let sum = |row: usize| {
                    plane[row * width + x.saturating_sub(s)..row * width + (x + s + 1).min(width)]
                        .iter()
                        .sum::<f64>()
                };
                sums.push(rows.map(sum).sum());
            }
        }
        sums
    }

    #[test]
    fn windows_of_any_size_are_summed() {
        let mut sums = WindowSums::default();
        for shape in [[1, 1], [1, 7], [6, 1], [5, 8], [9, 4]] {
            // Small whole numbers: every order of summation is exact.
            let plane: Vec<f64> = (0..shape[0] * shape[1]).map(|i| (i * 7 % 11) as f64).collect();
            for s in 0..9 {
                let mut found = vec![f64::NAN; plane.len()];
                sums.of(&plane, shape, s, &mut found);
                assert_eq!(found, naive(&plane, shape, s), "{shape:?} {s}");
            }
        }
    }

    /// A window that does not contain the pixel of 1e20 is not changed by it, which differences of
    /// prefix sums do not promise.
    #[test]
    fn nothing_outside_a_window_enters_it() {
        let mut plane = vec![1.0; 64];
        plane[0] = 1e20;
        let mut found = vec![0.0; 64];
        WindowSums::default().of(&plane, [8, 8], 1, &mut found);
        assert_eq!(found[4 * 8 + 4], 9.0);
        assert_eq!(found[63], 4.0);
    }
}
