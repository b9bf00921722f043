//! The ID of a user.

/// The ID of a user as the client sent it: any bytes, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserId<'a>(&'a [u8]);

impl<'a> UserId<'a> {
    /// Returns `None` for an empty ID: hashing it would put all users without an ID in one group.
    pub fn new(bytes: &'a [u8]) -> Option<UserId<'a>> {
        (!bytes.is_empty()).then_some(UserId(bytes))
    }

    /// Wraps an ID that is known not to be empty.
    pub(super) fn of_nonempty(bytes: &'a [u8]) -> UserId<'a> {
        debug_assert!(!bytes.is_empty());
        UserId(bytes)
    }

    /// Removes spaces and tabs around an ID. A header such as `Watershed-User` cannot carry them,
    /// so they are not part of an ID from any source.
    pub fn trim(bytes: &[u8]) -> &[u8] {
        let is_kept = |byte: &u8| !matches!(byte, b' ' | b'\t');
        let Some(first) = bytes.iter().position(is_kept) else {
            return &[];
        };
        let last = bytes.iter().rposition(is_kept).unwrap_or(first);
        &bytes[first..=last]
    }

    /// Returns the bytes of the ID.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}
