//! A sample or cotangent has the same bits whatever else runs with it, in every order, and on any
//! number of threads.

use std::sync::Arc;

use burn::tensor::{Device, TensorData};
use influence_autodiff::{BurnExecutor, Executor, Jacobian, Options, Plan, Precision, Program, Rows};

use crate::models::{CLASSES, WIDE_SAMPLE, batch, jacobians, program, wide};

/// Every bit of a result.
fn bits(jacobian: &Jacobian) -> Vec<u64> {
    let logits = jacobian.logits.iter().map(|x| x.to_bits());
    match &jacobian.rows {
        Rows::F32(rows) => logits.chain(rows.iter().map(|x| u64::from(x.to_bits()))).collect(),
        Rows::F64(rows) => logits.chain(rows.iter().map(|x| x.to_bits())).collect(),
    }
}

/// The samples at these positions, in this order.
fn picked(samples: &TensorData, order: &[usize]) -> TensorData {
    let values = samples.as_slice::<f64>().expect("f64");
    let size = values.len() / samples.shape()[0];
    let picked = order.iter().flat_map(|&i| values[i * size..(i + 1) * size].iter().copied()).collect();
    let mut shape: Vec<usize> = samples.shape().to_vec();
    shape[0] = order.len();
    TensorData::new(picked, shape)
}

fn all_bits(program: &Program, samples: &TensorData, order: &[usize]) -> Vec<Vec<u64>> {
    jacobians(program, &picked(samples, order)).iter().map(bits).collect()
}

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::F64];

#[test]
fn a_sample_has_the_same_bits_alone_and_anywhere() {
    for precision in PRECISIONS {
        let program = program(wide(), precision).expect("it loads");
        let samples = batch(5, &WIDE_SAMPLE);
        let alone: Vec<_> = (0..5).map(|i| all_bits(&program, &samples, &[i]).remove(0)).collect();
        for order in [&[0, 1, 2, 3, 4][..], &[4, 2, 0, 3, 1], &[3, 3, 1]] {
            let expected: Vec<_> = order.iter().map(|&i| alone[i].clone()).collect();
            assert!(expected == all_bits(&program, &samples, order), "{precision}, order {order:?}");
        }
    }
}

#[test]
fn the_batch_that_is_asked_for_does_not_show_on_a_cpu() {
    let samples = batch(3, &WIDE_SAMPLE);
    let runs: Vec<_> = [1, 2, 64]
        .map(|batch| {
            let options = Options { precision: Precision::F32, batch, ..Options::default() };
            let program = Program::new(wide(), &Device::flex(), &options).expect("it loads");
            all_bits(&program, &samples, &[0, 1, 2])
        })
        .to_vec();
    assert!(runs.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn the_number_of_threads_does_not_show() {
    for precision in PRECISIONS {
        let runs: Vec<_> = [1, 2, 3, 7]
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| {
                    let program = program(wide(), precision).expect("it loads");
                    all_bits(&program, &batch(2, &WIDE_SAMPLE), &[1, 0])
                })
            })
            .to_vec();
        assert!(runs.windows(2).all(|pair| pair[0] == pair[1]), "{precision}");
    }
}

#[test]
fn several_threads_share_a_program() {
    let program = program(wide(), Precision::F32).expect("it loads");
    let samples = batch(3, &WIDE_SAMPLE);
    let expected = all_bits(&program, &samples, &[0, 1, 2]);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert!(expected == all_bits(&program, &samples, &[0, 1, 2])));
        }
    });
}

#[test]
fn whole_runs_may_be_tasks_of_one_pool() {
    use rayon::iter::{IntoParallelIterator, ParallelIterator};
    // A thread that waits for its part of a kernel takes up another task: a capture during a run,
    // which is not a nested capture.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool");
    let samples = batch(1, &WIDE_SAMPLE);
    let run = |_| all_bits(&program(wide(), Precision::F32).expect("it loads"), &samples, &[0]);
    let runs: Vec<_> = pool.install(|| (0..32).into_par_iter().map(run).collect());
    assert!(runs.windows(2).all(|pair| pair[0] == pair[1]));
}

/// Cotangents `[v, n, K]`.
fn cotangents(v: usize, n: usize) -> TensorData {
    let values = (0..v * n * CLASSES).map(|i| crate::models::noise(i + 3)).collect();
    TensorData::new(values, [v, n, CLASSES])
}

fn float_bits(data: &TensorData) -> Vec<u64> {
    data.iter::<f64>().map(f64::to_bits).collect()
}

fn executor(n: usize, block: usize, precision: Precision) -> BurnExecutor {
    let plan = Plan::input(Arc::new(wide()), n, block, precision).expect("it is planned");
    BurnExecutor::new(Arc::new(plan), &Device::flex()).expect("it loads")
}

#[test]
fn stacked_cotangents_equal_separate_ones() {
    for precision in PRECISIONS {
        for (n, block) in [(1, 4), (1, 9), (3, 4)] {
            let executor = executor(n, block, precision);
            let linearized = executor.linearize(batch(n, &WIDE_SAMPLE)).expect("it runs");
            let all = cotangents(9, n);
            let stacked = float_bits(&linearized.pullback(all.clone()).expect("it pulls"));
            let size = stacked.len() / 9;
            for v in 0..9 {
                let alone = picked(&all, &[v]);
                let alone = float_bits(&linearized.pullback(alone).expect("it pulls"));
                assert!(alone == stacked[v * size..(v + 1) * size], "{precision}, n = {n}, cotangent {v}");
            }
        }
    }
}

#[test]
fn a_plan_of_several_samples_treats_each_alike() {
    for precision in PRECISIONS {
        let executor = executor(3, 5, precision);
        let (x, g) = (batch(3, &WIDE_SAMPLE), cotangents(2, 3));
        let run = |order: &[usize]| {
            let linearized = executor.linearize(picked(&x, order)).expect("it runs");
            // The cotangents move with their samples.
            let g: Vec<f64> = (0..2)
                .flat_map(|v| order.iter().map(move |&i| (v * 3 + i) * CLASSES))
                .flat_map(|start| g.as_slice::<f64>().expect("f64")[start..start + CLASSES].to_vec())
                .collect();
            let pulled = linearized.pullback(TensorData::new(g, [2, 3, CLASSES])).expect("it pulls");
            (float_bits(&linearized.logits().expect("they are read")), float_bits(&pulled))
        };
        let (logits, pulled) = run(&[0, 1, 2]);
        let (moved_logits, moved) = run(&[2, 0, 1]);
        let size = pulled.len() / 6;
        for (to, from) in [2, 0, 1].into_iter().enumerate() {
            assert!(
                logits[from * CLASSES..][..CLASSES] == moved_logits[to * CLASSES..][..CLASSES],
                "{precision}"
            );
            for v in 0..2 {
                let part = |all: &[u64], i: usize| all[(v * 3 + i) * size..][..size].to_vec();
                assert!(part(&pulled, from) == part(&moved, to), "{precision}, sample {from}");
            }
        }
    }
}
