//! The ID of a user, and how it is written as text.

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

/// Returns an ID as text. Bytes that are not UTF-8 become `\xff`, and a backslash becomes two.
pub fn readable(user: &[u8]) -> String {
    let mut text = String::with_capacity(user.len());
    for chunk in user.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Returns the ID that [`readable`] has written.
pub fn unreadable(text: &str) -> Vec<u8> {
    let mut id = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        id.extend_from_slice(before.as_bytes());
        let byte = after.strip_prefix('x').and_then(|it| it.get(..2));
        match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                id.push(byte);
                rest = &after[3..];
            }
            None => {
                id.push(b'\\');
                rest = after.strip_prefix('\\').unwrap_or(after);
            }
        }
    }
    id.extend_from_slice(rest.as_bytes());
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_any_id_is_read_back() {
        let ids: [&[u8]; 7] = [
            b"ann",
            b"\\",
            b"\\x41",
            b"\xff\xfe\n",
            b"a\\\\b",
            "ü\\ü".as_bytes(),
            b"x\x80\\x80",
        ];
        for id in ids {
            assert_eq!(unreadable(&readable(id)), id, "{}", readable(id));
        }
        assert_eq!(readable(b"\xff\\"), "\\xff\\\\");
    }
}
