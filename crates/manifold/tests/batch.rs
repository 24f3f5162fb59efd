//! Batches of Burn tensors give the same values as slices, in every float type, and refuse types in
//! which no rank can be decided.

mod common;

use burn::tensor::{DType, Device, Tensor, TensorData};
use common::Random;
use influence_manifold::batch::{self, BatchTangent};
use influence_manifold::{Error, Filter, RowPrecision, SampleObjective, Tangent};

const SAMPLES: usize = 3;
const CLASSES: usize = 4;
const COLUMNS: usize = 6;

fn tensor<const D: usize>(values: &[f64], shape: [usize; D], dtype: DType) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (&Device::flex(), dtype))
}

struct Batch {
    logits: Vec<f64>,
    rows: Vec<f64>,
    objectives: Vec<SampleObjective>,
}

fn batch() -> Batch {
    let mut random = Random(17);
    // Multiples of 1/64, which every float type represents exactly.
    let mut draw =
        |n: usize| random.vector(n, 2.0).iter().map(|x| (x * 64.0).round() / 64.0).collect::<Vec<f64>>();
    let (logits, rows) = (draw(SAMPLES * CLASSES), draw(SAMPLES * CLASSES * COLUMNS));
    Batch {
        logits,
        rows,
        objectives: vec![SampleObjective::class(2), SampleObjective::Predicted, SampleObjective::class(0)],
    }
}

impl Batch {
    fn logits(&self, dtype: DType) -> Tensor<2> {
        tensor(&self.logits, [SAMPLES, CLASSES], dtype)
    }

    fn jacobian(&self, dtype: DType) -> BatchTangent {
        BatchTangent::Jacobian(tensor(&self.rows, [SAMPLES, CLASSES, COLUMNS], dtype))
    }
}

#[test]
fn tensors_give_what_slices_give() {
    let all = batch();
    for (dtype, precision) in
        [(DType::F64, RowPrecision::F64), (DType::F32, RowPrecision::F32), (DType::F16, RowPrecision::F16)]
    {
        let found =
            batch::influences(all.logits(dtype), all.jacobian(dtype), &all.objectives, &Filter::default());
        let found = found.expect("influences");
        let measures =
            batch::baselines(all.logits(dtype), all.jacobian(dtype), &all.objectives).expect("baselines");
        for i in 0..SAMPLES {
            let rows = &all.rows[i * CLASSES * COLUMNS..][..CLASSES * COLUMNS];
            let tangent =
                Tangent::from_rows(rows, CLASSES, COLUMNS).expect("tangent").with_precision(precision);
            let logits = &all.logits[i * CLASSES..][..CLASSES];
            let expected =
                influence_manifold::influence(logits, &tangent, &all.objectives[i], &Filter::default());
            assert_eq!(found[i], expected.expect("influence"), "{dtype:?}");
            assert_eq!(
                measures[i],
                influence_manifold::baselines(logits, &tangent, &all.objectives[i]).expect("baselines")
            );
        }
    }
}

#[test]
fn gram_tensors_and_differences_do_as_well() {
    let all = batch();
    let (mut grams, mut short) = (Vec::new(), Vec::new());
    for rows in all.rows.chunks_exact(CLASSES * COLUMNS) {
        let rows = common::Dense::new(CLASSES, COLUMNS, rows.to_vec());
        grams.extend(rows.gram().values);
        short.extend(rows.differences().values);
    }
    let gram = BatchTangent::Gram {
        gram: tensor(&grams, [SAMPLES, CLASSES, CLASSES], DType::F64),
        rows: RowPrecision::F32,
    };
    let short = BatchTangent::Jacobian(tensor(&short, [SAMPLES, CLASSES - 1, COLUMNS], DType::F64));
    let filter = "tikhonov:1".parse().expect("filter");
    let run = |tangent| {
        batch::influences(all.logits(DType::F64), tangent, &all.objectives, &filter).expect("influences")
    };
    let expected = run(all.jacobian(DType::F64));
    for found in [run(gram), run(short)] {
        for (found, expected) in found.iter().zip(&expected) {
            common::assert_close(found.value, expected.value, 1e-12);
        }
    }
    let samples = batch::samples(all.logits(DType::F64), all.jacobian(DType::F32)).expect("samples");
    assert!(samples.iter().all(|sample| sample.tangent.precision() == RowPrecision::F32));
}

#[test]
fn what_does_not_fit_is_refused() {
    let all = batch();
    let run = |logits: Tensor<2>, tangent: BatchTangent, objectives: &[SampleObjective]| {
        batch::influences(logits, tangent, objectives, &Filter::default()).map(|_| ())
    };
    let logits = || all.logits(DType::F64);
    let few = run(logits(), all.jacobian(DType::F64), &all.objectives[..2]);
    assert!(matches!(few, Err(Error::WrongLength { what: "the list of objectives", found: 2, .. })));
    let cut = BatchTangent::Jacobian(tensor(&all.rows[..48], [2, CLASSES, COLUMNS], DType::F64));
    assert!(matches!(run(logits(), cut, &all.objectives), Err(Error::WrongLength { found: 2, .. })));
    let thin = BatchTangent::Jacobian(tensor(&all.rows[..36], [SAMPLES, 2, COLUMNS], DType::F64));
    assert!(matches!(run(logits(), thin, &all.objectives), Err(Error::WrongLength { found: 2, .. })));
    let single =
        BatchTangent::Gram { gram: tensor(&[1.0; 48], [SAMPLES, 4, 4], DType::F32), rows: RowPrecision::F32 };
    let refused = run(logits(), single, &all.objectives).expect_err("refused");
    assert!(matches!(refused, Error::UnsupportedType { .. }) && refused.to_string().contains("sum in f64"));
    let brain = run(logits(), all.jacobian(DType::BF16), &all.objectives);
    assert!(matches!(brain, Err(Error::UnsupportedType { .. })));
    let wide =
        BatchTangent::Gram { gram: tensor(&[1.0; 36], [SAMPLES, 4, 3], DType::F64), rows: RowPrecision::F64 };
    assert!(matches!(run(logits(), wide, &all.objectives), Err(Error::WrongLength { .. })));
    let objectives = [SampleObjective::class(0), SampleObjective::class(4), SampleObjective::class(0)];
    let class = run(logits(), all.jacobian(DType::F64), &objectives).expect_err("no such class");
    assert!(matches!(class, Error::Sample { index: 1, .. }), "{class}");
    let mut rows = all.rows.clone();
    rows[2 * CLASSES * COLUMNS + 5] = f64::NAN;
    let spoiled = BatchTangent::Jacobian(tensor(&rows, [SAMPLES, CLASSES, COLUMNS], DType::F64));
    let spoiled = run(logits(), spoiled, &all.objectives).expect_err("NaN");
    assert_eq!(spoiled.to_string().split(':').next(), Some("sample 2"));
}

#[test]
fn an_empty_batch_has_no_values() {
    let logits = Tensor::<2>::zeros([0, CLASSES], (&Device::flex(), DType::F64));
    let rows = Tensor::<3>::zeros([0, CLASSES, COLUMNS], (&Device::flex(), DType::F64));
    let found = batch::influences(logits, BatchTangent::Jacobian(rows), &[], &Filter::default());
    assert_eq!(found, Ok(Vec::new()));
}
