//! What forgetting does to an archive.

/// What was done to archived files so that they hold no forgotten user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// The files that were read.
    pub read: u64,
    /// Those that were replaced.
    pub replaced: u64,
}
