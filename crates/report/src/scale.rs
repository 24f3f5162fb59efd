//! Maps numbers to positions on axes and colour bars, linear or logarithmic, and chooses ticks.

/// Largest number of decades of a colour bar or axis of bars; smaller values are drawn at the lower
/// end, labelled "≤". With more decades, colours and lengths would be hard to distinguish.
const DECADES: f64 = 6.0;
/// Largest number of decades of an axis of dots, where small values are as interesting as large
/// ones.
const DECADES_OF_DOTS: f64 = 16.0;

/// A range of values. For a logarithmic scale they are decimal logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AxisSpan {
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// Whether some values are below `low`.
    pub(crate) clipped: bool,
}

impl AxisSpan {
    /// The span of logarithms, from the smallest to the largest finite one, at most six decades.
    pub(crate) fn of_logs(values: impl Iterator<Item = f64> + Clone) -> Self {
        Self::within(values, DECADES)
    }

    /// The span of logarithms for dots: at most sixteen decades.
    pub(crate) fn of_dots(values: impl Iterator<Item = f64> + Clone) -> Self {
        Self::within(values, DECADES_OF_DOTS)
    }

    fn within(values: impl Iterator<Item = f64> + Clone, decades: f64) -> Self {
        // The upper end is always the largest finite value; the lower end moves up if the span
        // would be too wide. Without any finite value (all influences 0 or infinite), one decade is
        // shown.
        let finite = || values.clone().filter(|x| x.is_finite());
        let high = finite().fold(f64::NEG_INFINITY, f64::max);
        if !high.is_finite() {
            return Self { low: -1.0, high: 0.0, clipped: values.clone().any(|x| x == f64::NEG_INFINITY) };
        }
        let low = finite().fold(f64::INFINITY, f64::min).max(high - decades);
        Self { low, high, clipped: values.clone().any(|x| x < low) }
    }

    /// A span symmetric around zero.
    pub(crate) fn around_zero(values: impl Iterator<Item = f64>) -> Self {
        let most = values.filter(|x| x.is_finite()).fold(0.0_f64, |most, x| most.max(x.abs()));
        Self { low: -most, high: most, clipped: false }
    }

    /// The position of a value between the low end (0) and the high end (1), clamped; 1/2 if the
    /// span has no width.
    pub(crate) fn share(&self, value: f64) -> f64 {
        match value {
            value if value == f64::INFINITY => 1.0,
            value if value == f64::NEG_INFINITY || value.is_nan() => 0.0,
            value if self.high > self.low => ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0),
            _ => 0.5,
        }
    }

    /// The value at a position in [0, 1].
    pub(crate) fn at(&self, share: f64) -> f64 {
        self.low + share * (self.high - self.low)
    }

    /// The whole decades inside the span to label, at most about eight.
    pub(crate) fn decades(&self) -> Vec<i32> {
        let (first, last) = (self.low.ceil() as i32, self.high.floor() as i32);
        let step = ((last - first) / 8 + 1) as usize;
        (first..=last).step_by(step).collect()
    }
}

/// A number with three significant digits.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if (1e-3..1e4).contains(&size) => {
            let decimals = (2 - size.log10().floor() as i32).max(0) as usize;
            format!("{value:.decimals$}")
        }
        _ => format!("{value:.2e}"),
    }
}

/// The number with this decimal logarithm, also beyond the range of `f64`.
pub(crate) fn power(log10: f64) -> String {
    match 10.0_f64.powf(log10) {
        value if value.is_finite() && value > 0.0 => number(value),
        _ if log10 == f64::NEG_INFINITY => "0".into(),
        _ => format!("1e{log10:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hold_what_is_finite_and_say_what_is_not() {
        let span = |values: &[f64]| AxisSpan::of_logs(values.iter().copied());
        assert_eq!(span(&[-2.0, 1.0]), AxisSpan { low: -2.0, high: 1.0, clipped: false });
        assert_eq!(span(&[-9.0, 1.0]), AxisSpan { low: -5.0, high: 1.0, clipped: true });
        assert_eq!(span(&[f64::NEG_INFINITY, 400.0]), AxisSpan { low: 400.0, high: 400.0, clipped: true });
        let beyond = span(&[398.0, 400.0]);
        assert_eq!([399.0, 500.0, f64::NEG_INFINITY].map(|x| beyond.share(x)), [0.5, 1.0, 0.0]);
        assert_eq!(span(&[3.0]).share(3.0), 0.5);
        assert_eq!(span(&[-2.5, 1.2]).decades(), [-2, -1, 0, 1]);
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0, 1.0, 0.123456, -12.345, 9999.0, 12345.0, 1.2345e-7].map(number);
        assert_eq!(shown, ["0", "1.00", "0.123", "-12.3", "9999", "1.23e4", "1.23e-7"]);
        assert_eq!([-1.0, 400.25, f64::NEG_INFINITY].map(power), ["0.100", "1e400.2", "0"]);
    }
}
