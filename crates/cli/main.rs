//! The program `influence`: arguments become a validated job, the job runs, its rows go to a file or a table.

mod arguments;
mod engine;
mod failure;
mod job;
mod output;
mod row;
mod score;
mod table;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use arguments::{Command, Program, ScoreArguments};
use failure::Failure;
use job::Job;

fn main() -> ExitCode {
    let program = Program::parse();
    let arguments = match program.command {
        Some(Command::Score(arguments)) => *arguments,
        None => ScoreArguments::default(),
    };
    match Job::new(&arguments).and_then(score::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::BrokenPipe) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to tell where standard error is gone too.
            let _ = writeln!(io::stderr(), "influence: {failure}");
            ExitCode::from(failure::EXIT_CODE)
        }
    }
}
