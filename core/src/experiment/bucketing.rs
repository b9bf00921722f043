//! Assigns users as other vendors' SDKs do, so that a running test moves in or out without reassigning
//! anybody. Each algorithm hashes the salt and the user's ID to a number; each group has a range of numbers.
//!
//! `docs/bucketing.md` describes each algorithm; `tests/vectors/bucketing.csv` has known answers of the
//! vendors' SDKs.

use super::weight::{Share, Weight};
use super::{GroupIndex, UserId};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::io::Read;

/// An algorithm of another vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Optimizely: murmur3 with seed 1, 10,000 buckets.
    Optimizely,
    /// Unleash: murmur3 modulo the sum of the weights, and modulo 100 for the rollout.
    Unleash,
    /// GrowthBook, `hashVersion` 1: FNV-1a, 1,000 buckets.
    GrowthbookV1,
    /// GrowthBook, `hashVersion` 2: FNV-1a twice, 10,000 buckets.
    GrowthbookV2,
    /// Split: murmur3 with the feature's seed, 100 buckets.
    Split,
    /// LaunchDarkly: the first 60 bits of SHA-1.
    LaunchDarkly,
    /// PostHog: the first 60 bits of SHA-1, twice.
    PostHog,
    /// Statsig: the first 64 bits of SHA-256, 1,000 buckets.
    Statsig,
    /// Eppo: the first 32 bits of MD5, 10,000 shards.
    Eppo,
    /// flagd (`fractional`): murmur3 of a list in CBOR.
    Flagd,
}

impl Algorithm {
    /// All of them, in the order of the documentation.
    pub const ALL: [Algorithm; 10] = [
        Algorithm::Optimizely,
        Algorithm::Unleash,
        Algorithm::GrowthbookV1,
        Algorithm::GrowthbookV2,
        Algorithm::Split,
        Algorithm::LaunchDarkly,
        Algorithm::PostHog,
        Algorithm::Statsig,
        Algorithm::Eppo,
        Algorithm::Flagd,
    ];

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Optimizely => "optimizely",
            Algorithm::Unleash => "unleash",
            Algorithm::GrowthbookV1 => "growthbook_v1",
            Algorithm::GrowthbookV2 => "growthbook_v2",
            Algorithm::Split => "split",
            Algorithm::LaunchDarkly => "launchdarkly",
            Algorithm::PostHog => "posthog",
            Algorithm::Statsig => "statsig",
            Algorithm::Eppo => "eppo",
            Algorithm::Flagd => "flagd",
        }
    }

    /// Whether the vendor can hash the traffic share with a salt of its own.
    pub fn has_traffic_salt(self) -> bool {
        use Algorithm::{Eppo, Split, Statsig, Unleash};
        matches!(self, Unleash | Split | Statsig | Eppo)
    }

    /// How the group of a user is drawn.
    fn group_draw(self, salt: &str) -> Draw {
        let text = |before: String, after: &str, hash| Draw {
            before: before.into_bytes().into(),
            after: after.as_bytes().into(),
            hash,
        };
        match self {
            Algorithm::Optimizely => text(String::new(), salt, Hash::MurmurOf10000 { seed: 1 }),
            Algorithm::Unleash => Algorithm::unleash_draw(salt, UNLEASH_VARIANT_SEED, 0),
            Algorithm::GrowthbookV1 => text(String::new(), salt, Hash::FnvOnce),
            Algorithm::GrowthbookV2 => text(salt.to_owned(), "", Hash::FnvTwice),
            Algorithm::Split => {
                let seed = Algorithm::split_seed(salt).unwrap_or_default();
                text(String::new(), "", Hash::MurmurModulo { seed, of: 100 })
            }
            Algorithm::LaunchDarkly => text(format!("{salt}."), "", Hash::Sha1),
            Algorithm::PostHog => text(format!("{salt}."), "variant", Hash::Sha1),
            Algorithm::Statsig => text(format!("{salt}."), "", Hash::Sha256),
            Algorithm::Eppo => text(format!("{salt}-"), "", Hash::Md5),
            Algorithm::Flagd => {
                // A list of two texts.
                let mut before = vec![0x82];
                before.extend_from_slice(CborHead::of_text(salt.len()).bytes());
                before.extend_from_slice(salt.as_bytes());
                Draw {
                    before: before.into(),
                    after: Box::default(),
                    hash: Hash::MurmurOfCbor,
                }
            }
        }
    }

    fn unleash_draw(salt: &str, seed: u32, of: u32) -> Draw {
        Draw {
            before: format!("{salt}:").into_bytes().into(),
            after: Box::default(),
            hash: Hash::MurmurModulo { seed, of },
        }
    }

    /// Reads a seed of Split: a whole number, which may be negative. Its lowest 32 bits count.
    pub fn split_seed(salt: &str) -> Option<u32> {
        let seed: i64 = salt.trim().parse().ok()?;
        let allowed = i64::from(i32::MIN)..=i64::from(u32::MAX);
        allowed.contains(&seed).then_some(seed as u32)
    }
}

/// Unleash hashes variants with this seed, and rollouts with 0.
const UNLEASH_VARIANT_SEED: u32 = 86_028_157;

/// The numbers of a group, from the first to below the second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    from: f64,
    below: f64,
}

/// The split of one experiment by another vendor's algorithm, prepared for hashing.
#[derive(Clone, Debug)]
pub struct Bucketing {
    algorithm: Algorithm,
    salt: Box<str>,
    traffic_salt: Option<Box<str>>,
    /// The sum of the weights.
    total: f64,
    /// Who takes part, where another hash decides that.
    admits: Option<Admits>,
    group: Draw,
    /// The range of each group. Where `admits` is `None`, they leave out who takes no part.
    ranges: Box<[Range]>,
    /// The ranges at a traffic share of 100 %.
    whole: Box<[Range]>,
}

#[derive(Clone, Debug)]
struct Admits {
    draw: Draw,
    below: f64,
    /// Whether `below` itself is admitted.
    includes_end: bool,
}

impl Bucketing {
    /// Makes the split from the vendor's salt (or seed), the salt of its traffic share where that is another
    /// one ([`Algorithm::has_traffic_salt`]), the traffic share, and the weights of the groups in file order.
    pub fn new(
        algorithm: Algorithm,
        (salt, traffic_salt): (&str, Option<&str>),
        traffic: Share,
        weights: &[Weight],
    ) -> Bucketing {
        let weights: Vec<f64> = weights.iter().map(|weight| weight.get()).collect();
        let admits = admits(algorithm, (salt, traffic_salt), traffic);
        let mut group = algorithm.group_draw(salt);
        if let (Algorithm::Unleash, Hash::MurmurModulo { of, .. }) = (algorithm, &mut group.hash) {
            *of = (weights.iter().sum::<f64>() as u32).max(1);
        }
        let whole = ranges(algorithm, Share::ALL, &weights);
        Bucketing {
            algorithm,
            salt: salt.into(),
            traffic_salt: traffic_salt.map(Into::into),
            total: weights.iter().sum(),
            ranges: match admits {
                Some(_) => whole.clone(),
                None => ranges(algorithm, traffic, &weights),
            },
            admits,
            group,
            whole,
        }
    }

    /// The same with another traffic share and other weights.
    pub fn changed(&self, traffic: Share, weights: &[Weight]) -> Bucketing {
        let salts = (&*self.salt, self.traffic_salt.as_deref());
        Bucketing::new(self.algorithm, salts, traffic, weights)
    }

    /// All that decides groups besides the traffic share and relative weights.
    pub fn seed(&self) -> String {
        let total = match self.algorithm {
            Algorithm::Unleash => self.total,
            _ => 1.0,
        };
        let traffic_salt = self.traffic_salt.as_deref().unwrap_or_default();
        format!(
            "{}:{}/{traffic_salt}/{total}",
            self.algorithm.name(),
            self.salt
        )
    }

    /// Returns the user's group; `None` for a user outside the traffic share.
    pub fn assign(&self, user: UserId<'_>) -> Option<GroupIndex> {
        let is_admitted = self.admits.as_ref().is_none_or(|admits| admits.has(user));
        is_admitted.then(|| find(&self.ranges, self.group.number(user)))?
    }

    /// Returns the group of a user, whatever the traffic share is.
    pub fn group(&self, user: UserId<'_>) -> Option<GroupIndex> {
        find(&self.whole, self.group.number(user))
    }
}

fn find(ranges: &[Range], number: f64) -> Option<GroupIndex> {
    let place = ranges
        .iter()
        .position(|range| range.from <= number && number < range.below)?;
    Some(GroupIndex(place))
}

impl Admits {
    fn has(&self, user: UserId<'_>) -> bool {
        let number = self.draw.number(user);
        number < self.below || self.includes_end && number == self.below
    }
}

/// Who takes part, where another hash than that of the group decides it.
fn admits(
    algorithm: Algorithm,
    (salt, traffic_salt): (&str, Option<&str>),
    traffic: Share,
) -> Option<Admits> {
    if traffic == Share::ALL {
        return None;
    }
    let other = traffic_salt.map(|salt| algorithm.group_draw(salt));
    let (draw, below) = match algorithm {
        Algorithm::Unleash => {
            let draw = Algorithm::unleash_draw(traffic_salt.unwrap_or(salt), 0, 100);
            (draw, tidy(traffic.get() * 100.0).floor())
        }
        Algorithm::PostHog => {
            let mut draw = algorithm.group_draw(salt);
            draw.after = Box::default();
            (draw, traffic.get())
        }
        Algorithm::Split => (other?, tidy(traffic.get() * 100.0).floor()),
        Algorithm::Statsig => (other?, (traffic.get() * 1000.0).round()),
        Algorithm::Eppo => (other?, (traffic.get() * 10_000.0).round()),
        _ => return None,
    };
    Some(Admits {
        draw,
        below,
        includes_end: algorithm == Algorithm::PostHog,
    })
}

/// The range of each group, in the numbers that the algorithm draws. Ranges follow each other from 0 up;
/// those of GrowthBook begin where they would at full coverage.
fn ranges(algorithm: Algorithm, traffic: Share, weights: &[f64]) -> Box<[Range]> {
    let total: f64 = weights.iter().sum();
    let share = traffic.get();
    if let Algorithm::GrowthbookV1 | Algorithm::GrowthbookV2 = algorithm {
        return growthbook_ranges(share, total, weights);
    }
    let last = weights.iter().rposition(|weight| *weight > 0.0);
    let (mut sum, mut added, mut from) = (0.0, 0.0, 0.0);
    let range = |(place, weight): (usize, &f64)| {
        sum += weight;
        let of = |numbers: f64| tidy(sum * numbers / total * share);
        let mut below = match algorithm {
            Algorithm::Unleash => sum,
            Algorithm::Split => of(100.0).floor(),
            Algorithm::Optimizely | Algorithm::Eppo => of(10_000.0).round(),
            Algorithm::Statsig => of(1000.0).round(),
            // These vendors add up fractions; so do we, to round as they do.
            Algorithm::LaunchDarkly => {
                added += (weight / total * share * 100_000.0).round() / 100_000.0;
                added
            }
            Algorithm::PostHog => {
                added += tidy(weight * 100.0 / total) / 100.0;
                added
            }
            _ => flagd_end(sum, total, share),
        };
        if traffic == Share::ALL && Some(place) == last {
            below = f64::INFINITY;
        }
        let range = Range { from, below };
        from = below;
        range
    };
    weights.iter().enumerate().map(range).collect()
}

fn growthbook_ranges(share: f64, total: f64, weights: &[f64]) -> Box<[Range]> {
    // Fractions that nearly add up to 1 stay as they are.
    let is_fraction = (0.99..=1.01).contains(&total);
    let mut from = 0.0;
    let range = |weight: &f64| {
        let weight = match is_fraction {
            true => *weight,
            false => tidy(weight / total),
        };
        let range = Range {
            from,
            below: from + share * weight,
        };
        from += weight;
        range
    };
    weights.iter().map(range).collect()
}

/// The end of a range of flagd: the smallest number whose product with the total weight, divided by 2^32, is
/// not below `sum`.
fn flagd_end(sum: f64, total: f64, share: f64) -> f64 {
    let is_whole = |number: f64| number.fract() == 0.0 && number < f64::from(u32::MAX);
    if share == 1.0 && is_whole(sum) && is_whole(total) && total >= 1.0 {
        return ((sum as u128) << 32).div_ceil(total as u128) as f64;
    }
    (sum / total * share * 4_294_967_296.0).ceil()
}

/// Removes what dividing decimal fractions leaves in the last digits.
fn tidy(number: f64) -> f64 {
    (number * 1e12).round() / 1e12
}

/// How a user's ID becomes a number.
#[derive(Clone, Debug)]
struct Draw {
    before: Box<[u8]>,
    after: Box<[u8]>,
    hash: Hash,
}

#[derive(Clone, Copy, Debug)]
enum Hash {
    /// murmur3 as a fraction of 10,000.
    MurmurOf10000 {
        seed: u32,
    },
    MurmurModulo {
        seed: u32,
        of: u32,
    },
    /// murmur3 after the head of a text in CBOR.
    MurmurOfCbor,
    /// FNV-1a, in thousandths.
    FnvOnce,
    /// FNV-1a of the digits of FNV-1a, in ten thousandths.
    FnvTwice,
    /// The first 60 bits of SHA-1 as a fraction of 1.
    Sha1,
    /// The first 64 bits of SHA-256 modulo 1,000.
    Sha256,
    /// The first 32 bits of MD5 modulo 10,000.
    Md5,
}

impl Draw {
    fn number(&self, user: UserId<'_>) -> f64 {
        let user = user.as_bytes();
        match self.hash {
            Hash::MurmurOf10000 { seed } => {
                (f64::from(self.murmur(&[], user, seed)) / 4_294_967_296.0 * 10_000.0).floor()
            }
            Hash::MurmurModulo { seed, of } => f64::from(self.murmur(&[], user, seed) % of),
            Hash::MurmurOfCbor => {
                let user = String::from_utf8_lossy(user);
                let head = CborHead::of_text(user.len());
                f64::from(self.murmur(head.bytes(), user.as_bytes(), 0))
            }
            Hash::FnvOnce => f64::from(self.fnv(user) % 1000) / 1000.0,
            Hash::FnvTwice => f64::from(fnv_of_digits(self.fnv(user)) % 10_000) / 10_000.0,
            Hash::Sha1 => {
                let digest = self.digest::<Sha1>(user);
                let bits = u64::from_be_bytes(first(&digest)) >> 4;
                bits as f64 / 0x0FFF_FFFF_FFFF_FFFF_u64 as f64
            }
            Hash::Sha256 => {
                let digest = self.digest::<Sha256>(user);
                (u64::from_be_bytes(first(&digest)) % 1000) as f64
            }
            Hash::Md5 => {
                let digest = self.digest::<Md5>(user);
                f64::from(u32::from_be_bytes(first(&digest)) % 10_000)
            }
        }
    }

    fn murmur(&self, head: &[u8], user: &[u8], seed: u32) -> u32 {
        let mut key = self.before.chain(head).chain(user).chain(&*self.after);
        // Reading from memory cannot fail, and the crate adds no error of its own.
        murmur3::murmur3_32(&mut key, seed).unwrap_or_default()
    }

    fn digest<D: Digest>(&self, user: &[u8]) -> sha2::digest::Output<D> {
        D::new()
            .chain_update(&self.before)
            .chain_update(user)
            .chain_update(&self.after)
            .finalize()
    }

    /// FNV-1a, 32 bit, over the UTF-16 of the text, as JavaScript sees it.
    fn fnv(&self, user: &[u8]) -> u32 {
        let parts = [&*self.before, user, &*self.after];
        parts.iter().fold(FNV_START, |state, part| {
            String::from_utf8_lossy(part)
                .encode_utf16()
                .fold(state, |state, unit| fnv_step(state, u32::from(unit)))
        })
    }
}

/// The first bytes of a digest, which has more of them.
fn first<const N: usize>(digest: &[u8]) -> [u8; N] {
    digest.first_chunk().copied().unwrap_or([0; N])
}

const FNV_START: u32 = 0x811C_9DC5;

fn fnv_step(state: u32, unit: u32) -> u32 {
    (state ^ unit).wrapping_mul(0x0100_0193)
}

/// FNV-1a of a number in decimal digits.
fn fnv_of_digits(number: u32) -> u32 {
    let mut digits = [0; 10];
    let mut rest = number;
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let digits = digits[start..].iter();
    digits.fold(FNV_START, |state, digit| fnv_step(state, u32::from(*digit)))
}

/// The first bytes of a text in CBOR (RFC 8949): its type and length, in the shortest form.
struct CborHead {
    bytes: [u8; 9],
    length: usize,
}

impl CborHead {
    fn of_text(length: usize) -> CborHead {
        let mut bytes = [0; 9];
        let wide = (length as u64).to_be_bytes();
        let (kind, width) = match length {
            0..24 => (0x60 + length as u8, 0),
            24..0x100 => (0x78, 1),
            0x100..0x1_0000 => (0x79, 2),
            0x1_0000..=0xFFFF_FFFF => (0x7A, 4),
            _ => (0x7B, 8),
        };
        bytes[0] = kind;
        bytes[1..=width].copy_from_slice(&wide[8 - width..]);
        CborHead {
            bytes,
            length: 1 + width,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cbor_heads_have_the_shortest_form() {
        for (length, head) in [
            (0, &[0x60][..]),
            (23, &[0x77]),
            (24, &[0x78, 24]),
            (255, &[0x78, 255]),
            (256, &[0x79, 1, 0]),
            (65_536, &[0x7A, 0, 1, 0, 0]),
        ] {
            assert_eq!(CborHead::of_text(length).bytes(), head);
        }
    }

    #[test]
    fn fnv_of_digits_is_fnv_of_the_text() {
        for number in [0, 7, 10, 4_294_967_295] {
            let text = number.to_string();
            let of_text = text
                .bytes()
                .fold(FNV_START, |state, byte| fnv_step(state, u32::from(byte)));
            assert_eq!(fnv_of_digits(number), of_text);
        }
    }

    #[test]
    fn flagd_ends_are_exact() {
        // floor(hash * total / 2^32) < sum, as flagd computes it.
        for (sum, total) in [(1_u64, 3_u64), (50, 100), (333, 1000), (7, 2_147_483_647)] {
            let end = flagd_end(sum as f64, total as f64, 1.0) as u64;
            let is_in = |hash: u64| (hash * total) >> 32 < sum;
            assert!(is_in(end - 1) && !is_in(end), "{sum} of {total}");
        }
    }
}
