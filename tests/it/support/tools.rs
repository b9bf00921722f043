//! Programs that tests use and that scripts/test-tools installs.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Something that scripts/test-tools installs below Cargo's target directory, such as
/// `python/bin/python`. Panics with how to install it if it is missing.
#[track_caller]
pub fn installed(place: &str) -> PathBuf {
    // Cargo has a folder for tests there.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let path = target.expect("it has a parent").join(place);
    assert!(
        path.exists(),
        "{} is missing: run ./scripts/test-tools, which installs it",
        path.display()
    );
    path
}

/// A command whose program must be installed, such as `chromedriver`. Panics with how to install it
/// if it is missing.
#[track_caller]
pub fn command(program: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    assert!(
        is_there || Path::new(program).is_file(),
        "`{program}` is not on the PATH: run ./scripts/test-tools, which installs it, or install it \
         with your system's package manager"
    );
    Command::new(program)
}
