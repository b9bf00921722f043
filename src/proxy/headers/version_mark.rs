//! What tells the versions of a site apart in names that clients keep: in ETags and in cookies. PURE.

use std::fmt;

/// The mark of one version, such as `w1f2e3d4c-`. It stands in front, because proxies and servers behind
/// may add to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionMark([u8; MARK_BYTES]);

/// Which bytes are digits of a mark.
static IS_DIGIT: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = matches!(byte as u8, b'0'..=b'9' | b'a'..=b'f');
        byte += 1;
    }
    table
};

/// How long a mark is, in bytes.
pub(crate) const MARK_BYTES: usize = 10;

impl VersionMark {
    /// The mark of the version that an upstream of this name serves: the same on every replica, and after
    /// every restart.
    pub fn of(upstream: &str) -> VersionMark {
        // Reading from memory cannot fail, and the crate adds no error of its own.
        let digest = murmur3::murmur3_32(&mut upstream.as_bytes(), 0).unwrap_or_default();
        let mut mark = *b"w00000000-";
        for (place, digit) in mark[1..MARK_BYTES - 1].iter_mut().enumerate() {
            let four_bits = (digest >> (28 - 4 * place)) & 0xf;
            *digit = b"0123456789abcdef"[four_bits as usize];
        }
        VersionMark(mark)
    }

    /// Its text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What follows this mark.
    pub fn strip<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        let (mark, rest) = text.split_first_chunk()?;
        (*mark == self.0).then_some(rest)
    }
}

impl fmt::Display for VersionMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(f, "{}", char::from(*byte)))
    }
}

/// Whether a text begins with the mark of any version.
pub(crate) fn is_marked(text: &[u8]) -> bool {
    let Some((mark, _)) = text.split_at_checked(MARK_BYTES) else {
        return false;
    };
    // All are looked at, which is quicker than to stop at the first one.
    let digits = mark[1..MARK_BYTES - 1].iter();
    let are_digits = || digits.fold(true, |all, byte| all & IS_DIGIT[usize::from(*byte)]);
    mark[0] == b'w' && mark[MARK_BYTES - 1] == b'-' && are_digits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_stable_and_told_from_other_texts() {
        let mark = VersionMark::of("current");
        assert_eq!(mark, VersionMark::of("current"));
        assert_ne!(mark, VersionMark::of("next"));
        assert_eq!(mark.to_string(), "w185155e9-");
        let marked = format!("{mark}abc");
        assert!(is_marked(marked.as_bytes()));
        assert_eq!(mark.strip(marked.as_bytes()), Some(&b"abc"[..]));
        assert_eq!(VersionMark::of("next").strip(marked.as_bytes()), None);
        for other in [
            "",
            "w",
            "w1f2e3d4c",
            "x1f2e3d4c-",
            "w1f2e3d4C-a",
            "w1f2e3d4c_a",
        ] {
            assert!(!is_marked(other.as_bytes()), "{other}");
        }
    }
}
