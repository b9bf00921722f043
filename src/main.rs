//! The `watershed` command.

#![deny(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    watershed::cli::main()
}
