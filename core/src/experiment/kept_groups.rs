//! The cookie that keeps a user in the groups of `sticky` experiments. PURE.
//!
//! Its value is `<tag>~<entry>~<entry>…`, an entry is `<experiment>:<group>:<salt>:<epoch>:<since>`: the
//! digest of the salt (8 hex digits), the epoch of the assignment (16 hex digits), and when it was made
//! (Unix seconds). The tag is the unpadded base64url of a [`key_ring`](super::key_ring) tag over the
//! user's ID and all entries. So no client can choose a group, and no cookie is valid for another user.

use super::assign::murmur3_32;
use super::key_ring::KeyRing;
use super::match_index::Experiments;
use super::{EpochDigest, Experiment, ExperimentIndex, GroupIndex, UserId};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use smallvec::SmallVec;

/// The name of the cookie.
pub const GROUPS_COOKIE: &str = "watershed_groups";
/// The longest value: browsers refuse more than 4096 bytes of name, value and attributes.
pub const VALUE_BYTES_MAX: usize = 3_500;
/// How far ahead the clock of another replica may be, in seconds.
const AHEAD_MAX_S: u64 = 300;
/// Separates the tags of this cookie from those of other messages.
const LABEL: &[u8] = b"groups";

/// The group that a user was assigned before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptGroup {
    /// The experiment.
    pub experiment: ExperimentIndex,
    /// The group.
    pub group: GroupIndex,
    /// The epoch of the assignment.
    pub epoch: EpochDigest,
    /// When it was made, in Unix seconds.
    pub since_s: u64,
}

/// The valid entries of a cookie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptGroups {
    /// One for each experiment at most.
    pub entries: SmallVec<[KeptGroup; 2]>,
    /// Whether the cookie has to be set again, because an older key signed it.
    pub is_old: bool,
}

/// Why a cookie, or a part of it, is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IgnoredGroups {
    /// No key of this site signed it for this user.
    #[error("it is not signed for this user")]
    Forged,
    /// The experiment has another salt or no such group now, or is not sticky.
    #[error("the experiment has changed since")]
    Stale,
    /// It was made later than now.
    #[error("it is from the future")]
    Future,
}

impl KeptGroups {
    /// The entry of an experiment.
    pub fn of(&self, experiment: ExperimentIndex) -> Option<&KeptGroup> {
        self.entries.iter().find(|it| it.experiment == experiment)
    }
}

/// Decodes the cookies of this user: of several, such as of two domains, each adds what the ones before do
/// not have. `ignored` is called for each part
/// that is not valid.
pub fn read<'a>(
    keys: &KeyRing,
    user: UserId<'_>,
    values: impl Iterator<Item = &'a [u8]>,
    (experiments, now_s): (&Experiments, u64),
    mut ignored: impl FnMut(IgnoredGroups),
) -> KeptGroups {
    let mut kept = KeptGroups::default();
    for value in values {
        let Some((key, entries)) = verified(keys, user, value) else {
            ignored(IgnoredGroups::Forged);
            continue;
        };
        kept.is_old |= key != 0;
        for entry in entries.split('~') {
            match entry_of(entry, experiments) {
                None => ignored(IgnoredGroups::Stale),
                Some(entry) if entry.since_s > now_s.saturating_add(AHEAD_MAX_S) => {
                    ignored(IgnoredGroups::Future);
                }
                Some(entry) if kept.of(entry.experiment).is_none() => kept.entries.push(entry),
                Some(_) => {}
            }
        }
    }
    kept
}

/// Encodes a cookie with the first key.
pub fn write(
    keys: &KeyRing,
    user: UserId<'_>,
    entries: &[KeptGroup],
    experiments: &Experiments,
) -> String {
    let mut text = String::new();
    for entry in entries {
        let experiment = &experiments[entry.experiment.0];
        let group = &experiment.groups[entry.group.0].name;
        let salt = salt_digest(experiment);
        let (epoch, since_s) = (entry.epoch, entry.since_s);
        let separator = if text.is_empty() { "" } else { "~" };
        text += &format!(
            "{separator}{}:{group}:{salt:08x}:{epoch}:{since_s}",
            experiment.name
        );
    }
    let tag = keys.sign(&[LABEL, user.as_bytes(), text.as_bytes()]);
    format!("{}~{text}", URL_SAFE_NO_PAD.encode(tag))
}

/// The most bytes that the cookie of these experiments can have.
pub fn bytes_max<'a>(experiments: impl Iterator<Item = &'a Experiment>) -> usize {
    let entry = |experiment: &Experiment| {
        let groups = experiment.groups.iter().map(|group| group.name.len());
        experiment.name.len() + groups.max().unwrap_or(0) + 4 + 8 + 16 + 10 + 1
    };
    22 + experiments.map(entry).sum::<usize>()
}

fn verified<'a>(keys: &KeyRing, user: UserId<'_>, value: &'a [u8]) -> Option<(usize, &'a str)> {
    let (tag, entries) = std::str::from_utf8(value).ok()?.split_once('~')?;
    let key = keys.verify_text(&[LABEL, user.as_bytes(), entries.as_bytes()], tag)?;
    Some((key, entries))
}

fn entry_of(entry: &str, experiments: &Experiments) -> Option<KeptGroup> {
    let mut words = entry.split(':');
    let name = words.next()?;
    let place = experiments.iter().position(|it| *it.name == *name)?;
    let experiment = &experiments[place];
    let group = experiment.group_named(words.next()?)?;
    let salt = u32::from_str_radix(words.next()?, 16).ok()?;
    let epoch = u64::from_str_radix(words.next()?, 16).ok()?;
    let since_s = words.next()?.parse().ok()?;
    let is_valid = experiment.is_sticky && salt == salt_digest(experiment);
    (is_valid && words.next().is_none()).then_some(KeptGroup {
        experiment: ExperimentIndex(place),
        group,
        epoch: EpochDigest(epoch),
        since_s,
    })
}

fn salt_digest(experiment: &Experiment) -> u32 {
    murmur3_32(experiment.salt.as_bytes())
}
