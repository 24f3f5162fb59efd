//! Compares the engines on random models with the models' own forward passes, with central
//! differences, and with each other. The tests do the same for a few models; here you choose how
//! many:
//!
//! ```text
//! cargo bench --bench strangers -- --models 20000 --seed 1
//! ```
//!
//! `--dense N` compares one model in N by differences in all its parameters (default 8),
//! `--threads T` sets the number of threads (default 2), `--show SEED` prints the model of one
//! seed. The exit code is 1 if a model is wrong.
#![allow(clippy::print_stdout, reason = "a bench prints what it finds")]

#[path = "../tests/strangers/attack/mod.rs"]
mod attack;

use std::process::ExitCode;
use std::time::Instant;

/// The number that follows a flag on the command line.
fn option(name: &str) -> Option<u64> {
    let mut words = std::env::args().skip_while(|word| word != name);
    words.nth(1).and_then(|word| word.parse().ok())
}

fn main() -> ExitCode {
    if let Some(seed) = option("--show") {
        match attack::draw::draw(seed) {
            Some(model) => {
                let outcome = attack::compare::compare(&model, attack::compare::Scope { dense: true });
                println!("{model}{outcome:?}");
            }
            None => println!("seed {seed} draws no model"),
        }
        return ExitCode::SUCCESS;
    }
    let (models, first) = (option("--models").unwrap_or(1000), option("--seed").unwrap_or(1));
    let threads = option("--threads").unwrap_or(2) as usize;
    let start = Instant::now();
    let tally = attack::tally::run(first..first + models, option("--dense").unwrap_or(8), threads);
    for failure in &tally.failures {
        println!("{failure}");
    }
    println!("{tally}seeds {first} to {}, {:.1} s", first + models - 1, start.elapsed().as_secs_f64());
    if tally.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
