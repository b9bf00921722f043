//! What stands in sixteen bytes, looked at all at once where the processor can. PURE.

#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "instructions that every processor of the architecture has; no memory is touched"
    )
)]

/// The place of the first byte that is neither a letter nor a dash.
#[inline(always)]
pub(super) fn first_beside_letters_and_dashes(bytes: &[u8; 16]) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this architecture has SSE2.
    return unsafe { sse2::first_beside_letters_and_dashes(bytes) };
    #[cfg(not(target_arch = "x86_64"))]
    return bytes
        .iter()
        .position(|byte| !byte.is_ascii_alphabetic() && *byte != b'-');
}

/// The place of the first control: below 0x20, or 0x7f.
#[inline(always)]
pub(super) fn first_control(bytes: &[u8; 16]) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this architecture has SSE2.
    return unsafe { sse2::first_control(bytes) };
    #[cfg(not(target_arch = "x86_64"))]
    return bytes.iter().position(u8::is_ascii_control);
}

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::{
        __m128i, _mm_andnot_si128, _mm_cmpeq_epi8, _mm_max_epu8, _mm_min_epu8, _mm_movemask_epi8,
        _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8, _mm_sub_epi8,
    };

    #[inline]
    #[target_feature(enable = "sse2")]
    pub(super) fn first_beside_letters_and_dashes(bytes: &[u8; 16]) -> Option<usize> {
        let bytes = vector(bytes);
        let small = _mm_or_si128(bytes, all(0x20));
        let from_a = _mm_sub_epi8(small, all(b'a'));
        let letters = _mm_cmpeq_epi8(_mm_min_epu8(from_a, all(b'z' - b'a')), from_a);
        let dashes = _mm_cmpeq_epi8(bytes, all(b'-'));
        first_missing(_mm_or_si128(letters, dashes))
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    pub(super) fn first_control(bytes: &[u8; 16]) -> Option<usize> {
        let bytes = vector(bytes);
        let high = _mm_cmpeq_epi8(_mm_max_epu8(bytes, all(0x20)), bytes);
        let deleted = _mm_cmpeq_epi8(bytes, all(0x7f));
        first_missing(_mm_andnot_si128(deleted, high))
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn vector(bytes: &[u8; 16]) -> __m128i {
        let both = u128::from_le_bytes(*bytes);
        _mm_set_epi64x((both >> 64) as i64, both as i64)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn all(byte: u8) -> __m128i {
        _mm_set1_epi8(byte as i8)
    }

    /// The place of the first byte whose bits are not set.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn first_missing(found: __m128i) -> Option<usize> {
        let missing = !(_mm_movemask_epi8(found) as u32) & 0xffff;
        (missing != 0).then(|| missing.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_told_at_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..16 {
                for other in [place, 15] {
                    let mut bytes = *b"aZ-zA-mMnN-qrstU";
                    (bytes[place], bytes[other]) = (byte, byte);
                    let is_other = !byte.is_ascii_alphabetic() && byte != b'-';
                    let first = is_other.then_some(place);
                    assert_eq!(first_beside_letters_and_dashes(&bytes), first, "{byte}");
                    let mut bytes = *b"a \xff~!-09z\x80\xc3@[`{|";
                    (bytes[place], bytes[other]) = (byte, byte);
                    let first = byte.is_ascii_control().then_some(place);
                    assert_eq!(first_control(&bytes), first, "{byte}");
                }
            }
        }
    }
}
