//! Where an image is sensitive and in which direction: maps, the most influential direction, and
//! how far the first order holds along it.
//!
//!     cargo run --example maps
#![expect(clippy::print_stdout, reason = "an example shows its results")]

use burn::tensor::{Device, FloatDType, TensorData};
use influence::{Channels, Filter, SampleObjective, Scorer};
use influence_data::{Dataset, sample};
use influence_zoo::{Architecture, Network, weights};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let network = Architecture::ResNet50 { width: 8 }.init(1, 28, 10, &device)?;
    let (network, _) = weights::load(network, sample::RESNET50W8_MNIST, FloatDType::F32, &device)?;
    let scorer = Scorer::builder().compile(&network, Network::forward, &[1, 28, 28])?;
    let data = Dataset::embedded();
    let pixels = TensorData::new(data.batch::<f32>(&[1]), [1, 1, 28, 28]);
    let (objective, filter) = (SampleObjective::Predicted, Filter::tikhonov(100.0)?);
    for at in scorer.linearize(pixels.clone())? {
        let at = at?;
        for map in at.maps(&objective, &filter, &[0, 1, 3], Channels::Joint)? {
            let most =
                (0..map.values.len()).max_by(|a, b| map.values[*a].total_cmp(&map.values[*b])).unwrap_or(0);
            let [_, _, width] = map.shape;
            println!(
                "half-width {}: most sensitive around row {}, column {}: {:.3e} of at most {:.3e}",
                map.half_width,
                most / width,
                most % width,
                map.values[most],
                map.bound
            );
        }
        let direction = at.direction(&objective, &filter)?;
        for step in scorer.along(pixels.clone(), &direction, &objective, &[0.01, 0.1, 1.0])? {
            println!(
                "a step of {}: -log P changes by {:.3e}, predicted {:.3e}",
                step.length, step.found, step.predicted
            );
        }
    }
    Ok(())
}

#[test]
fn runs_to_the_end() {
    main().unwrap();
}
