//! The position of a further reader, in a file of its journal's folder: the sequence number of the last record that
//! it needs no more, and its complement, 8 bytes each, little-endian.
//!
//! The file is not synced. A power failure may take it back, and then records are read again.

use super::{files, segment};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const BYTES: usize = 16;

/// Reads the position of the reader of this name; `None` if there is none, or if it is damaged.
pub(super) fn load(folder: &Path, name: &str) -> io::Result<Option<u64>> {
    let bytes = match std::fs::read(files::position_path(folder, name)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
    let numbers = bytes.split_at_checked(BYTES / 2);
    let numbers = numbers.and_then(|(first, last)| number(first).zip(number(last)));
    Ok(numbers.and_then(|(position, complement)| (position == !complement).then_some(position)))
}

/// Stores the position of the reader of this name.
pub(super) fn store(folder: &Path, name: &str, position: u64) -> io::Result<()> {
    let mut bytes = [0; BYTES];
    bytes[..BYTES / 2].copy_from_slice(&position.to_le_bytes());
    bytes[BYTES / 2..].copy_from_slice(&(!position).to_le_bytes());
    let path = files::position_path(folder, name);
    let file = segment::private().create(true).write(true).open(path)?;
    file.write_all_at(&bytes, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_is_read_back_and_a_damaged_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        assert_eq!(load(at, "a").unwrap(), None);
        for position in [0, 7, u64::MAX] {
            store(at, "a", position).unwrap();
            assert_eq!(load(at, "a").unwrap(), Some(position));
        }
        assert_eq!(load(at, "b").unwrap(), None);
        for damaged in [&[][..], &[0; 8], &[0; 16], &[0; 17]] {
            std::fs::write(files::position_path(at, "a"), damaged).unwrap();
            assert_eq!(load(at, "a").unwrap(), None, "{damaged:?}");
        }
        assert!(
            files::all_but_segments(at)
                .unwrap()
                .contains(&at.join("a.position"))
        );
        assert!(files::is_own(at, &at.join("a.position")));
    }
}
