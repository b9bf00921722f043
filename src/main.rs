//! The `watershed` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    watershed::cli::main()
}
