//! The program `influence`: arguments become a validated job, the job runs, its rows go to a file or a table.

mod arguments;
mod check;
mod data;
mod direction;
mod engine;
mod failure;
mod family;
mod folder;
mod jacobian;
mod job;
mod layers;
mod layers_arguments;
mod layers_table;
mod map;
mod map_arguments;
mod onnx;
mod output;
mod row;
mod score;
mod table;
mod tensors;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use arguments::{Command, Program, ScoreArguments};
use failure::Failure;

fn main() -> ExitCode {
    let program = Program::parse();
    let outcome = match program.command {
        Some(Command::Score(arguments)) => score::command(&arguments),
        Some(Command::Layers(arguments)) => layers::command(&arguments),
        Some(Command::Map(arguments)) => map::command(&arguments),
        Some(Command::Jacobian(arguments)) => jacobian::command(&arguments),
        None => score::command(&ScoreArguments::default()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::BrokenPipe) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to tell where standard error is gone too.
            let _ = writeln!(io::stderr(), "influence: {failure}");
            ExitCode::from(failure::EXIT_CODE)
        }
    }
}
