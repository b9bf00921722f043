//! Webhooks: who is told of events.

use super::http_target::HttpTarget;
use super::secret::Secret;

/// A receiver of messages.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where it listens.
    pub target: HttpTarget,
    /// The key that signs messages; `None` sends them without a signature.
    pub key: Option<SigningKey>,
    /// What it receives, at least one kind.
    pub on: Box<[NotificationKind]>,
    /// A digest of its address, which names it in the store.
    pub receiver: Box<str>,
}

/// The key of signatures, in bytes that are never printed.
#[derive(Clone)]
pub struct SigningKey(Box<[u8]>);

impl SigningKey {
    /// Hides a key.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> SigningKey {
        SigningKey(bytes.into())
    }

    /// Returns the bytes.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Secret::new("").fmt(f)
    }
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NotificationKind {
    /// A group has won.
    Winner,
    /// A version does harm.
    Harm,
    /// The experiment ends without an effect.
    NoPlannedLift,
    /// The group sizes do not match their weights.
    Mismatch,
    /// An experiment had no data for an hour.
    NoData,
    /// A version does not respond, or most of its responses fail.
    UpstreamDown,
    /// The store is unavailable.
    StoreDown,
    /// A ramp has taken a step.
    Ramp,
    /// Somebody or something has decided about an experiment.
    Decision,
}

impl NotificationKind {
    /// All kinds, in the order of the documentation.
    pub const ALL: [NotificationKind; 9] = [
        NotificationKind::Winner,
        NotificationKind::Harm,
        NotificationKind::NoPlannedLift,
        NotificationKind::Mismatch,
        NotificationKind::NoData,
        NotificationKind::UpstreamDown,
        NotificationKind::StoreDown,
        NotificationKind::Ramp,
        NotificationKind::Decision,
    ];

    /// Returns the word in the file and the `type` of messages.
    pub fn name(self) -> &'static str {
        match self {
            NotificationKind::Winner => "winner",
            NotificationKind::Harm => "harm",
            NotificationKind::NoPlannedLift => "no_planned_lift",
            NotificationKind::Mismatch => "mismatch",
            NotificationKind::NoData => "no_data",
            NotificationKind::UpstreamDown => "upstream_down",
            NotificationKind::StoreDown => "store_down",
            NotificationKind::Ramp => "ramp",
            NotificationKind::Decision => "decision",
        }
    }
}
