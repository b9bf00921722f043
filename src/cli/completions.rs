//! `watershed completions` and `watershed man`: completions for shells, and the manual page.

use super::output::Output;
use clap::Command;
use clap_complete::Shell;
use serde_json::json;
use std::io::{self, Write};

/// The arguments of `completions`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

/// Prints the completion script of a shell.
pub(super) fn run(
    arguments: &Arguments,
    mut command: Command,
    output: Output,
) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    print(&script, "script", output)
}

/// Prints one manual page for the program and all its commands.
pub(super) fn man(mut command: Command, output: Output) -> anyhow::Result<()> {
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for subcommand in command
        .get_subcommands()
        .filter(|it| it.get_name() != "help")
    {
        let name = subcommand.get_name();
        writeln!(page, ".SH {} {}", command.get_name(), name.to_uppercase())?;
        let man = clap_mangen::Man::new(subcommand.clone());
        man.render_description_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    print(&page, "page", output)
}

/// Prints bytes as they are, or as a text with a name.
fn print(bytes: &[u8], name: &str, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Text => io::stdout().write_all(bytes)?,
        Output::Json => {
            output.print(
                String::new,
                || json!({ name: String::from_utf8_lossy(bytes) }),
            )?;
        }
    }
    Ok(())
}
