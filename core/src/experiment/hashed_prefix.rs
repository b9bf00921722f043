//! murmur3 of a fixed prefix and a user's ID, of which only the ID is read for each request. PURE.

use super::UserId;

/// The hash's state behind a prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct HashedPrefix {
    /// Of the prefix's whole words.
    state: u32,
    /// The bytes behind them, at most three.
    rest: u32,
    /// How many bits those are.
    rest_bits: u32,
    /// How long the prefix is, in bytes.
    bytes: u32,
}

impl HashedPrefix {
    /// Reads a prefix.
    pub(super) fn new(prefix: &[u8]) -> HashedPrefix {
        let (words, rest) = prefix.as_chunks::<4>();
        HashedPrefix {
            state: words
                .iter()
                .fold(0, |state, word| add_word(state, u32::from_le_bytes(*word))),
            rest: as_word(rest),
            rest_bits: 8 * rest.len() as u32,
            bytes: prefix.len() as u32,
        }
    }

    /// Computes `murmur3_32(prefix + user, seed 0)`.
    pub(super) fn hash(&self, user: UserId<'_>) -> u32 {
        let user = user.as_bytes();
        let (words, rest) = user.as_chunks::<4>();
        // Words may begin in the prefix and end in the ID. `kept` has what is not hashed yet.
        let (mut state, mut kept) = (self.state, u64::from(self.rest));
        for word in words {
            kept |= u64::from(u32::from_le_bytes(*word)) << self.rest_bits;
            state = add_word(state, kept as u32);
            kept >>= 32;
        }
        kept |= u64::from(as_word(rest)) << self.rest_bits;
        if self.rest_bits as usize + 8 * rest.len() >= 32 {
            state = add_word(state, kept as u32);
            kept >>= 32;
        }
        finish(state ^ mix(kept as u32), self.bytes + user.len() as u32)
    }
}

/// Computes murmur3 (x86, 32 bit) with seed 0. The crate reads each word through [`std::io::Read`],
/// which takes more than half of its instructions; a test compares both.
/// Source: Appleby, `MurmurHash3_x86_32`, SMHasher.
pub fn murmur3_32(bytes: &[u8]) -> u32 {
    let prefix = HashedPrefix::new(bytes);
    finish(prefix.state ^ mix(prefix.rest), prefix.bytes)
}

fn mix(word: u32) -> u32 {
    word.wrapping_mul(0xcc9e_2d51)
        .rotate_left(15)
        .wrapping_mul(0x1b87_3593)
}

fn add_word(state: u32, word: u32) -> u32 {
    (state ^ mix(word))
        .rotate_left(13)
        .wrapping_mul(5)
        .wrapping_add(0xe654_6b64)
}

/// At most three bytes, the first one lowest.
fn as_word(bytes: &[u8]) -> u32 {
    let bytes = bytes.iter().rev();
    bytes.fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn finish(state: u32, bytes: u32) -> u32 {
    let hash = state ^ bytes;
    let hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hash_is_that_of_the_crate(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(murmur3_32(&bytes), murmur3::murmur3_32(&mut &bytes[..], 0).unwrap());
        }

        #[test]
        fn prefix_and_user_are_hashed_as_one(
            prefix in prop::collection::vec(any::<u8>(), 0..40),
            user in prop::collection::vec(any::<u8>(), 1..150),
        ) {
            let whole = [&prefix[..], &user].concat();
            let hash = HashedPrefix::new(&prefix).hash(UserId::new(&user).unwrap());
            prop_assert_eq!(hash, murmur3::murmur3_32(&mut &whole[..], 0).unwrap());
        }
    }
}
