//! Writes files that only their owner may read.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces a file in one step. A part of it is never seen, and nobody but its owner can read it.
pub fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = file.with_extension("next");
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&next)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    fs::rename(&next, file)
}
