//! A head that comes in pieces, and when reading it again is worth the work. PURE.

use memchr::memchr;

/// Follows the pieces of one head. Only the end of a line can complete a head, so a piece without
/// one is not a reason to read the head again: its bytes are read once for each of its lines, not
/// once for each piece that a slow or hostile peer cuts it into.
#[derive(Debug, Default)]
pub struct PartialHead {
    /// How many bytes were there the last time.
    seen: usize,
}

impl PartialHead {
    /// Whether reading these bytes can have another outcome than before. They begin with those of
    /// the last call. More than `head_bytes_max` are always read: that is too long.
    pub fn is_news(&mut self, bytes: &[u8], head_bytes_max: usize) -> bool {
        let first = self.seen == 0 || bytes.len() > head_bytes_max;
        let new = bytes.get(self.seen..).unwrap_or(bytes);
        self.seen = bytes.len();
        first || memchr(b'\n', new).is_some()
    }

    /// The next bytes begin another head.
    pub fn reset(&mut self) {
        self.seen = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a head is read that comes in pieces of this size.
    fn reads(text: &str, piece: usize) -> usize {
        let mut partial = PartialHead::default();
        let ends = (piece..=text.len()).step_by(piece).chain([text.len()]);
        let news = |&end: &usize| partial.is_news(&text.as_bytes()[..end], 100_000);
        ends.filter(news).count()
    }

    #[test]
    fn head_in_pieces_is_read_once_per_line() {
        let head = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(60_000)
        );
        assert_eq!(reads(&head, head.len()), 1);
        // The first byte, and each of the four lines' ends.
        assert_eq!(reads(&head, 1), 5);
        assert_eq!(reads(&head, 1000), 2);
    }

    #[test]
    fn too_long_head_and_next_head_are_read() {
        let mut partial = PartialHead::default();
        assert!(partial.is_news(b"GET", 4));
        assert!(!partial.is_news(b"GET ", 4));
        assert!(partial.is_news(b"GET /", 4));
        partial.reset();
        assert!(partial.is_news(b"P", 4));
    }
}
