//! Completions and the manual page, generated from the grammar by clap's own crates.

use std::io::{self, Write};

use clap::CommandFactory;

use crate::arguments::{CommandLine, CompletionsArguments};
use crate::failure::Result;

/// Completions for one shell.
pub(crate) fn completions(arguments: &CompletionsArguments) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut CommandLine::command(), "influence", &mut text);
    Ok(io::stdout().lock().write_all(&text)?)
}

/// Prints the program's page, followed by a page for each command.
pub(crate) fn page() -> Result<()> {
    let mut program = CommandLine::command();
    program.build();
    let mut out = io::stdout().lock();
    clap_mangen::Man::new(program.clone()).render(&mut out)?;
    for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
        let title = format!("influence-{}", command.get_name());
        clap_mangen::Man::new(command.clone().display_name(&title)).title(title).render(&mut out)?;
    }
    Ok(out.flush()?)
}
