//! What a Burn device is: its name in words, and whether it computes on a CPU.
//!
//! The variants of Burn's device depend on cargo features of Burn that this crate does not see, so
//! the name is read from the debug text.

use burn::backend::DispatchDevice;
use burn::tensor::{Device, FloatDType, TensorData};

use crate::array::{Array, Placement};
use crate::error::Result;

/// `flex`, `ndarray`, `wgpu`, `wgpu:cpu` (an adapter that is software), `vulkan:1` (the second of
/// its kind), `cuda:0`, ...
pub(crate) fn name(device: &DispatchDevice) -> String {
    of_text(&format!("{device:?}"))
}

/// Whether the kernels run on a CPU, with an order of summation that depends only on shapes.
fn is_cpu(device: &DispatchDevice) -> bool {
    ["flex", "ndarray"].contains(&name(device).as_str())
}

/// Whether a device computes on a CPU, with an order of summation that depends only on shapes.
#[must_use]
pub fn is_processor(device: &Device) -> bool {
    is_cpu(device.as_dispatch())
}

/// Whether exp is computed in double precision on a device that has arithmetic in f64. Shading
/// languages have such functions only in single precision, and a driver may then give any result
/// without an error.
///
/// # Errors
/// When the device cannot be read.
pub(crate) fn has_double_functions(device: &DispatchDevice) -> Result<bool> {
    /// Above the rounding errors of f64, and below those of f32.
    const TOLERANCE: f64 = 1e-12;
    let place = Placement { device: device.clone(), dtype: FloatDType::F64 };
    let points = [-1.5, -0.1, 0.25, 2.0_f64];
    let found = Array::from_data(TensorData::from(points), &place).exp().into_data()?;
    Ok(points.iter().zip(found.iter::<f64>()).all(|(x, found)| (found / x.exp() - 1.0).abs() < TOLERANCE))
}

/// A device's name from its debug text.
fn of_text(text: &str) -> String {
    let words: Vec<_> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let after = |key: &str| words.iter().position(|word| *word == key).and_then(|at| words.get(at + 1));
    let first = words.iter().find(|word| **word != "Cube").copied().unwrap_or_default().to_lowercase();
    // The API of wgpu is its name, unless wgpu is to choose it.
    let runtime = match (first.as_str(), after("backend")) {
        ("wgpu", Some(&api)) if api != "Auto" => api.to_lowercase(),
        _ => first,
    };
    match (runtime.as_str(), after("kind").or_else(|| after("index"))) {
        ("flex" | "ndarray", _) | (_, None | Some(&"DefaultDevice")) => runtime,
        (_, Some(&"Cpu")) => format!("{runtime}:cpu"),
        (_, Some(kind)) => {
            // The number stands where the kind would (`index: 2`), or after it (`DiscreteGpu(1)`).
            let number = kind.parse::<usize>().ok().map(|number| number.to_string());
            number
                .or_else(|| after(kind).map(|number| (*number).to_owned()))
                .map_or(runtime.clone(), |number| format!("{runtime}:{number}"))
        }
    }
}

#[cfg(test)]
mod tests {
    //! Names from debug texts.

    use super::*;

    #[test]
    fn devices_are_named_as_engines_are() {
        for (text, name) in [
            ("Flex(FlexDevice)", "flex"),
            ("NdArray(Cpu)", "ndarray"),
            ("Cube(Wgpu(WgpuDevice { kind: DefaultDevice, backend: Auto }))", "wgpu"),
            ("Cube(Wgpu(WgpuDevice { kind: Cpu, backend: Auto }))", "wgpu:cpu"),
            ("Cube(Wgpu(WgpuDevice { kind: Cpu, backend: Vulkan }))", "vulkan:cpu"),
            ("Cube(Wgpu(WgpuDevice { kind: DiscreteGpu(1), backend: Vulkan }))", "vulkan:1"),
            ("Cube(Cuda(CudaDevice { index: 2 }))", "cuda:2"),
            ("Something", "something"),
            ("", ""),
        ] {
            assert_eq!(of_text(text), name, "{text}");
        }
        assert!(is_cpu(Device::flex().as_dispatch()));
    }

    #[test]
    fn processors_have_functions_in_double_precision() {
        assert_eq!(has_double_functions(Device::flex().as_dispatch()), Ok(true));
    }
}
