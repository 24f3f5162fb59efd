//! A compiled network as text, one line for each buffer, kernel and step. The grammar:
//!
//! ```text
//! m0 30 x 2, 30 live                              map 0: 30 rows of 2 elements, all of them read
//! m1[0..3] = product over 9 taps of m0[0..2]      a kernel: channels of a map from another's
//! , relu with mask r0                             and the mask that its ReLU makes
//! reverse:
//! dm0[0..2] += through r0 product of dr1          a step: d before a map or mask: its cotangent
//! up to 32 cotangents at once, in lanes           where there are so many (run/executor.rs)
//! ```

use std::fmt;

use super::program::{Compiled, Kernel, KernelKind, MapView, RowMap};
use super::steps::{CotangentRef, Factor, ReverseStep, Sink, StepKind};
use crate::kernels::{MatrixRole, Shares, WithinRow};

impl fmt::Display for MapView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{}[{}..{}]", self.map.index(), self.offset, self.offset + self.channels)
    }
}

impl fmt::Display for CotangentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dense(view) => write!(f, "d{view}"),
            Self::Compressed(mask) => write!(f, "dr{}", mask.index()),
        }
    }
}

impl<T> fmt::Display for KernelKind<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Product { table, patches, .. } => {
                let how = if patches.is_some() { " by patches" } else { "" };
                write!(f, "product over {} taps{how} of", table.taps())
            }
            Self::Channelwise { table, .. } => write!(f, "channelwise product over {} taps of", table.taps()),
            Self::Affine(Some(_)) => f.write_str("scaled and shifted"),
            Self::Affine(None) => f.write_str("copy of"),
            Self::Sum => f.write_str("sum of"),
            Self::Pointwise(chain) => {
                let parts: Vec<_> = chain.iter().map(|part| format!("{part:?}")).collect();
                write!(f, "{} of", parts.join(", "))
            }
            Self::Combine { how, .. } => write!(f, "{how:?} of"),
            Self::Elementwise { .. } => f.write_str("each number scaled and shifted of"),
            Self::Within(WithinRow::Softmax) => f.write_str("softmax of"),
            Self::Within(WithinRow::Standard { .. }) => f.write_str("normalised rows of"),
            Self::Matrices(matrices) => {
                write!(f, "{} matrix products of", matrices.operand(MatrixRole::C).corners.len())
            }
            Self::Average { shares: Shares::Rows(_), .. } => f.write_str("means of"),
            Self::Average { shares: Shares::Taps(_), .. } => f.write_str("weighted means of"),
            Self::Maximum { .. } => f.write_str("maxima of"),
            Self::Rearrange { .. } => f.write_str("rearranged"),
            Self::Segment(segment) => {
                write!(f, "segment {} on Burn's operations, from", segment.index())
            }
        }
    }
}

impl<T> fmt::Display for Kernel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} {}", self.output, self.kind, self.input)?;
        if let Some(other) = self.other {
            let sign = if self.adds_other() { "+" } else { "and" };
            write!(f, " {sign} {other}")?;
        }
        if let Some(mask) = self.relu {
            write!(f, ", relu with mask r{}", mask.index())?;
        }
        write!(f, "  # {}", self.name)
    }
}

impl<T> fmt::Display for ReverseStep<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.first { "=" } else { "+=" };
        write!(f, "{} {sign} ", self.target.cotangent())?;
        for (index, part) in self.parts().iter().enumerate() {
            if index > 0 {
                f.write_str(" + ")?;
            }
            part.write_source(f)?;
        }
        Ok(())
    }
}

impl<T> ReverseStep<T> {
    /// What is added to the target.
    fn write_source(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            Sink::Through { mask, .. } => write!(f, "through r{} ", mask.index())?,
            Sink::Times { slopes, .. } => write!(f, "{slopes} times ")?,
            Sink::Plain(_) => {}
        }
        match &self.kind {
            StepKind::Product { patches, identity, .. } => {
                let how = if patches.is_some() { " by patches" } else { "" };
                write!(f, "product{how} of {}", self.source)?;
                identity.map_or(Ok(()), |identity| write!(f, " + {identity}"))
            }
            StepKind::Together(parts) => write!(f, "{} products", parts.len()),
            StepKind::Columns { .. } => write!(f, "columns of {}", self.source),
            StepKind::Channelwise { .. } => write!(f, "channelwise product of {}", self.source),
            StepKind::Spread { scale: None } => write!(f, "{}", self.source),
            StepKind::Spread { scale: Some(_) } => write!(f, "scaled {}", self.source),
            StepKind::Average { .. } => write!(f, "{} over its windows", self.source),
            StepKind::Maximum { .. } => write!(f, "{} at its choices", self.source),
            StepKind::Rearrange => write!(f, "{} moved back", self.source),
            StepKind::Scaled { factor: Factor::Number(1.0), .. } => write!(f, "{}", self.source),
            StepKind::Scaled { factor: Factor::Number(factor), .. } => write!(f, "{factor} {}", self.source),
            StepKind::Scaled { factor: Factor::Values { view, .. }, .. } => {
                write!(f, "{} times {view}", self.source)
            }
            StepKind::Scaled { factor: Factor::Own, .. } => write!(f, "scaled {}", self.source),
            StepKind::Within { kept } => write!(f, "{} within rows, by {kept}", self.source),
            StepKind::Matrices { other, .. } => write!(f, "matrices of {} times {other}", self.source),
            StepKind::Segment { .. } => write!(f, "segment of {}", self.source),
        }
    }
}

impl<T> fmt::Display for Compiled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, RowMap { positions, pitch, live }) in self.maps.iter().enumerate() {
            writeln!(f, "m{id} {positions} x {pitch}, {} live", live.len())?;
        }
        self.kernels.iter().try_for_each(|kernel| writeln!(f, "{kernel}"))?;
        writeln!(f, "reverse:")?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}
