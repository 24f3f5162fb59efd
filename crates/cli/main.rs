//! The program `influence`: arguments are turned into a validated job, the job runs, and its rows
//! go to a file or a table.

mod arguments;
mod check;
mod compare;
mod compare_arguments;
mod compare_table;
mod data;
mod direction;
#[cfg(test)]
mod documents;
mod drawn;
mod engine;
mod failure;
mod family;
mod first;
mod folder;
mod gathered;
#[cfg(feature = "parquet")]
mod hub;
mod inputs;
mod jacobian;
mod job;
mod judged;
mod layer_kinds;
mod layers;
mod layers_arguments;
mod layers_table;
mod logits;
mod manual;
mod map;
mod map_arguments;
mod network;
mod normalisation;
mod onnx;
mod out;
mod outliers;
mod outliers_arguments;
mod outliers_table;
mod pages;
mod plant;
mod progress;
mod provenance;
mod record;
mod report;
mod row;
mod samples;
mod score;
mod study;
mod table;
mod tally;
mod tensors;
mod terminal;
#[cfg(feature = "train")]
mod train;
mod train_arguments;
mod truth;
mod verdict;
mod windows;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use arguments::{Command, CommandLine};
use failure::Failure;

fn main() -> ExitCode {
    let program = match CommandLine::try_parse() {
        Ok(program) => program,
        Err(error) => return words(&error),
    };
    out::stop::listen();
    let outcome = match program.command {
        Some(Command::Score(arguments)) => score::command(&arguments),
        Some(Command::Layers(arguments)) => layers::command(&arguments),
        Some(Command::Map(arguments)) => map::command(&arguments),
        Some(Command::Compare(arguments)) => compare::command(&arguments),
        Some(Command::Outliers(arguments)) => outliers::command(&arguments),
        Some(Command::Jacobian(arguments)) => jacobian::command(&arguments),
        Some(Command::Check(arguments)) => logits::command(&arguments),
        Some(Command::Train(arguments)) => train(&arguments),
        Some(Command::Merge(arguments)) => out::merge::command(&arguments),
        Some(Command::Completions(arguments)) => manual::completions(&arguments),
        Some(Command::Man) => manual::page(),
        None => first::command(),
    };
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    if !matches!(failure, Failure::BrokenPipe) {
        // If standard error is closed too, the message cannot be reported.
        let _ = writeln!(terminal::errors(), "influence: {failure}");
    }
    ExitCode::from(failure.exit_code())
}

/// Trains a network. Training needs a cargo feature because Burn's learner takes minutes to
/// compile.
fn train(arguments: &train_arguments::TrainArguments) -> failure::Result<()> {
    #[cfg(feature = "train")]
    return train::command(arguments);
    #[cfg(not(feature = "train"))]
    Err(Failure::new(format!(
        "train --network {}: this build has no training; build it with --features train",
        arguments.network
    )))
}

/// Prints clap's output: help, the version, or a usage error, which quotes the arguments.
fn words(error: &clap::Error) -> ExitCode {
    let plain = |text: &str| terminal::harmless(text) == text;
    if std::env::args_os().all(|argument| plain(&argument.to_string_lossy())) {
        // In clap's own colours.
        error.exit();
    }
    let _ = write!(terminal::errors(), "{}", error.render());
    ExitCode::from(failure::EXIT_CODE)
}
