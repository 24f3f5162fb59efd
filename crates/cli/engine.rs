//! Parses engines, `cpu|flex|ndarray|wgpu[:cpu|:N]|vulkan[:cpu|:N]|cuda[:N]`, and opens their
//! devices.
//!
//! Cargo features decide which engines a build has. The words are the same in every build, so that
//! a missing engine can be named in the error.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

/// Where a run is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum EngineChoice {
    /// Our own kernels on the CPU.
    #[default]
    Cpu,
    /// Burn's own kernels on the CPU.
    Flex,
    /// Burn's older kernels on the CPU, deprecated there.
    NdArray,
    /// A graphics adapter, through any interface that the machine has.
    Wgpu(Adapter),
    /// A graphics adapter through Vulkan.
    Vulkan(Adapter),
    /// An NVIDIA GPU through CUDA, by its number from 0.
    Cuda(usize),
}

/// Which graphics adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Adapter {
    /// The adapter that the driver prefers.
    #[default]
    Best,
    /// A software adapter, on the CPU.
    Software,
    /// An adapter by its number on this machine, from 0.
    Number(usize),
}

/// The engines, as usage errors list them.
const WORDS: &str = "cpu, flex, ndarray, wgpu[:cpu|:N], vulkan[:cpu|:N] or cuda[:N]";

impl FromStr for EngineChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("--engine {text}: no such engine; give {WORDS}");
        let (name, rest) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let adapter = || match rest {
            None => Ok(Adapter::Best),
            Some("cpu") => Ok(Adapter::Software),
            Some(number) => number.parse().map(Adapter::Number).map_err(|_| unknown()),
        };
        match (name, rest) {
            ("cpu", None) => Ok(Self::Cpu),
            ("flex", None) => Ok(Self::Flex),
            ("ndarray", None) => Ok(Self::NdArray),
            ("wgpu", _) => adapter().map(Self::Wgpu),
            ("vulkan", _) => adapter().map(Self::Vulkan),
            ("cuda", None) => Ok(Self::Cuda(0)),
            ("cuda", Some(number)) => number.parse().map(Self::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.feature())?;
        match self {
            Self::Wgpu(Adapter::Software) | Self::Vulkan(Adapter::Software) => f.write_str(":cpu"),
            Self::Wgpu(Adapter::Number(number)) | Self::Vulkan(Adapter::Number(number)) => {
                write!(f, ":{number}")
            }
            Self::Cuda(number) if *number > 0 => write!(f, ":{number}"),
            _ => Ok(()),
        }
    }
}

impl EngineChoice {
    /// The executor that runs on its device.
    pub(crate) fn executor(self) -> influence::Engine {
        match self {
            Self::Cpu => influence::Engine::Cpu(None),
            _ => influence::Engine::Burn,
        }
    }

    /// Whether it is a graphics adapter, where sums may depend on which samples run together.
    pub(crate) fn is_graphics(self) -> bool {
        matches!(self, Self::Wgpu(_) | Self::Vulkan(_) | Self::Cuda(_))
    }

    /// The cargo feature that enables it; cpu and flex are in every build.
    pub(crate) fn feature(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Flex => "flex",
            Self::NdArray => "ndarray",
            Self::Wgpu(_) => "wgpu",
            Self::Vulkan(_) => "vulkan",
            Self::Cuda(_) => "cuda",
        }
    }

    /// The device, if this build and this machine have it.
    ///
    /// # Errors
    /// What is missing, with the remedy.
    pub(crate) fn device(self) -> Result<Device, String> {
        match self {
            Self::Cpu | Self::Flex => Ok(Device::flex()),
            #[cfg(feature = "ndarray")]
            Self::NdArray => Ok(ndarray()),
            #[cfg(feature = "wgpu")]
            Self::Wgpu(adapter) => self.graphics(adapter, burn::tensor::DeviceType::Wgpu, Device::wgpu),
            #[cfg(feature = "vulkan")]
            Self::Vulkan(adapter) => self.graphics(adapter, burn::tensor::DeviceType::Vulkan, Device::vulkan),
            #[cfg(feature = "cuda")]
            Self::Cuda(number) => self.cuda(number),
            #[cfg(not(all(feature = "ndarray", feature = "vulkan", feature = "cuda")))]
            absent => {
                let feature = absent.feature();
                Err(format!(
                    "--engine {absent}: this build has no {feature}; build it with --features {feature}, or take --engine cpu"
                ))
            }
        }
    }

    /// A graphics adapter that the machine has.
    #[cfg(feature = "wgpu")]
    fn graphics(
        self,
        adapter: Adapter,
        kind: burn::tensor::DeviceType,
        named: impl Fn(burn::tensor::DeviceKind) -> Device,
    ) -> Result<Device, String> {
        use burn::tensor::DeviceKind;

        let mut there = Device::enumerate(kind).into_vec();
        let missing = |what: String| {
            Err(format!(
                "--engine {self}: this machine has {what}; Mesa's software driver (mesa-vulkan-drivers) is one, or take --engine cpu"
            ))
        };
        match adapter {
            _ if there.is_empty() => missing("no graphics adapter with a driver".to_owned()),
            Adapter::Best => Ok(named(DeviceKind::DefaultDevice)),
            Adapter::Software => match named(DeviceKind::Cpu) {
                software if there.contains(&software) => Ok(software),
                _ => missing("no graphics adapter in software".to_owned()),
            },
            Adapter::Number(number) if number < there.len() => Ok(there.swap_remove(number)),
            Adapter::Number(_) => missing(format!("the graphics adapters 0 to {} only", there.len() - 1)),
        }
    }

    /// An NVIDIA GPU that the machine has.
    #[cfg(feature = "cuda")]
    fn cuda(self, number: usize) -> Result<Device, String> {
        let there = Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec().len();
        if number < there {
            return Ok(Device::cuda(number));
        }
        Err(format!("--engine {self}: this machine has {there} NVIDIA GPUs with a driver; take --engine cpu"))
    }
}

/// The only use of Burn's deprecated device.
#[cfg(feature = "ndarray")]
#[expect(deprecated, reason = "kept as a second opinion on flex while Burn has it")]
fn ndarray() -> Device {
    Device::ndarray()
}

#[cfg(test)]
mod tests {
    //! Parsing and printing of engines, and the error of a build without one.

    #[allow(unused_imports, reason = "a bench takes this file too, and has no tests")]
    use super::*;

    #[test]
    fn words_are_engines() {
        for text in [
            "cpu",
            "flex",
            "ndarray",
            "wgpu",
            "wgpu:cpu",
            "wgpu:1",
            "vulkan",
            "vulkan:cpu",
            "vulkan:0",
            "cuda",
            "cuda:2",
        ] {
            assert_eq!(text.parse::<EngineChoice>().map(|engine| engine.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "gpu", "flex:0", "ndarray:cpu", "wgpu:", "wgpu:gpu", "wgpu:-1", "cuda:cpu", "Flex"] {
            let error = text.parse::<EngineChoice>().expect_err(text);
            assert!(
                error.contains(&format!("--engine {text}:")) && error.contains("wgpu[:cpu|:N]"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_engine_that_is_not_built_in_names_its_feature() {
        for engine in [
            EngineChoice::NdArray,
            EngineChoice::Wgpu(Adapter::Best),
            EngineChoice::Vulkan(Adapter::Software),
            EngineChoice::Cuda(0),
        ] {
            if let Err(error) = engine.device() {
                assert!(error.contains(engine.feature()) && error.contains("--engine cpu"), "{error}");
            }
        }
        assert!(EngineChoice::Flex.device().is_ok());
    }
}
