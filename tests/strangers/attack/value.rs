//! One type for tensors of rank 1 to 5, and shapes as functions of the number of samples.

use std::fmt;

use burn::tensor::{Device, Shape, Tensor, TensorData};

/// A tensor whose rank is known at run time.
#[derive(Debug, Clone)]
pub(crate) enum AnyTensor {
    One(Tensor<1>),
    Two(Tensor<2>),
    Three(Tensor<3>),
    Four(Tensor<4>),
    Five(Tensor<5>),
}

/// Evaluates an expression with the tensor of a value, whatever its rank.
macro_rules! with {
    ($value:expr, $x:ident => $body:expr) => {
        match $value {
            $crate::attack::value::AnyTensor::One($x) => $body,
            $crate::attack::value::AnyTensor::Two($x) => $body,
            $crate::attack::value::AnyTensor::Three($x) => $body,
            $crate::attack::value::AnyTensor::Four($x) => $body,
            $crate::attack::value::AnyTensor::Five($x) => $body,
        }
    };
}

/// Evaluates an expression with the tensors of two values of the same rank; panics if the ranks
/// differ.
macro_rules! with_both {
    ($a:expr, $b:expr, ($x:ident, $y:ident) => $body:expr) => {
        match ($a, $b) {
            ($crate::attack::value::AnyTensor::One($x), $crate::attack::value::AnyTensor::One($y)) => $body,
            ($crate::attack::value::AnyTensor::Two($x), $crate::attack::value::AnyTensor::Two($y)) => $body,
            ($crate::attack::value::AnyTensor::Three($x), $crate::attack::value::AnyTensor::Three($y)) => {
                $body
            }
            ($crate::attack::value::AnyTensor::Four($x), $crate::attack::value::AnyTensor::Four($y)) => $body,
            ($crate::attack::value::AnyTensor::Five($x), $crate::attack::value::AnyTensor::Five($y)) => $body,
            (a, b) => panic!("ranks differ: {:?} and {:?}", a.shape(), b.shape()),
        }
    };
}

pub(crate) use {with, with_both};

macro_rules! ranks {
    ($($variant:ident $rank:literal $($method:ident)?),*) => {
        $(
            impl From<Tensor<$rank>> for AnyTensor {
                fn from(tensor: Tensor<$rank>) -> Self {
                    Self::$variant(tensor)
                }
            }
        )*

        impl AnyTensor {
            $($(
                /// The tensor of a value that has this rank; panics for any other rank.
                pub(crate) fn $method(self) -> Tensor<$rank> {
                    match self {
                        Self::$variant(tensor) => tensor,
                        other => panic!("expected rank {}, found {:?}", $rank, other.shape()),
                    }
                }
            )?)*

            /// Reshapes the tensor; its elements keep their order.
            pub(crate) fn reshape(self, shape: &[usize]) -> Self {
                let to = Shape::from(shape.to_vec());
                match shape.len() {
                    $($rank => with!(self, x => Self::$variant(x.reshape::<$rank, _>(to))),)*
                    rank => panic!("rank {rank}"),
                }
            }

            /// A value from elements on the host.
            pub(crate) fn from_data(data: TensorData, device: &Device) -> Self {
                let dtype = data.dtype();
                match data.shape().len() {
                    $($rank => Self::$variant(Tensor::from_data(data, (device, dtype))),)*
                    rank => panic!("rank {rank}"),
                }
            }
        }
    };
}

ranks!(One 1 one, Two 2 two, Three 3 three, Four 4 four, Five 5 five);

impl AnyTensor {
    /// Its sizes.
    pub(crate) fn shape(&self) -> Vec<usize> {
        with!(self, x => x.dims().to_vec())
    }

    /// Its elements.
    pub(crate) fn numbers(&self) -> Vec<f64> {
        with!(self, x => x.to_data().iter::<f64>().collect())
    }
}

/// The size of one axis at n samples: `per_sample * n + fixed`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Dim {
    pub(crate) per_sample: usize,
    pub(crate) fixed: usize,
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.per_sample, self.fixed) {
            (0, fixed) => write!(f, "{fixed}"),
            (1, 0) => write!(f, "n"),
            (per_sample, 0) => write!(f, "{per_sample}n"),
            (per_sample, fixed) => write!(f, "{per_sample}n+{fixed}"),
        }
    }
}

impl Dim {
    /// The number of samples itself.
    pub(crate) const N: Self = Self { per_sample: 1, fixed: 0 };

    /// A size that is the same at every n.
    pub(crate) fn fixed(fixed: usize) -> Self {
        Self { per_sample: 0, fixed }
    }

    /// The size at n samples.
    pub(crate) fn at(self, n: usize) -> usize {
        self.per_sample * n + self.fixed
    }

    /// The linear function through the sizes at 2 and at 3 samples; none if a coefficient were
    /// negative.
    fn through(two: usize, three: usize) -> Option<Self> {
        let per_sample = three.checked_sub(two)?;
        Some(Self { per_sample, fixed: two.checked_sub(2 * per_sample)? })
    }

    /// The shape that is `two` at 2 samples and `three` at 3.
    pub(crate) fn shape_through(two: &[usize], three: &[usize]) -> Option<Vec<Self>> {
        if two.len() != three.len() {
            return None;
        }
        two.iter().zip(three).map(|(&two, &three)| Self::through(two, three)).collect()
    }
}
