//! Families of perturbations: how sensitive a network is to rotating, shifting and brightening an
//! image, and to a direction of your own.
//!
//!     cargo run --example families
#![expect(clippy::print_stdout, reason = "an example shows its results")]

use std::sync::Arc;

use burn::tensor::{Device, FloatDType, TensorData};
use influence::{Basis, Family, Filter, SampleObjective, Scorer};
use influence_data::{Dataset, sample};
use influence_zoo::{Architecture, Network, weights};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let network = Architecture::ResNet50 { width: 8 }.init(1, 28, 10, &device)?;
    let (network, _) = weights::load(network, sample::RESNET50W8_MNIST, FloatDType::F32, &device)?;
    let shape = [1, 28, 28];
    let scorer = Scorer::builder().compile(&network, Network::forward, &shape)?;
    let data = Dataset::embedded();
    let pixels = TensorData::new(data.batch::<f32>(&[1]), [1, 1, 28, 28]);
    // A custom direction: light from the left.
    let lamp = (0..784).map(|at| 1.0 - (at % 28) as f64 / 27.0).collect();
    let own = Family::Own(Arc::new(Basis::new(vec!["lamp".into()], lamp, shape)?));
    let image = data.batch::<f64>(&[1]);
    for at in scorer.linearize(pixels)? {
        let at = at?;
        for family in Family::all().chain([own.clone()]) {
            let basis = family.basis(&image, shape)?;
            let score = at.family(&basis, &SampleObjective::Predicted, &Filter::exact())?;
            let setting = score.setting.map(|setting| basis.describe(&setting.knobs)).unwrap_or_default();
            println!("{family}: reach {:.3} at rank {}, {setting}", score.reach, score.rank);
        }
    }
    Ok(())
}

#[test]
fn runs_to_the_end() {
    main().unwrap();
}
