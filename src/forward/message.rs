//! A message: one exposure or one event, before it has the format of a destination. PURE.

use crate::experiment::metric::Observation;
use crate::experiment::user_id::readable;
use crate::journal::rows::{EventRow, ExposureRow, JournaledRecord};
use serde_json::{Map, Number, Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// One exposure or one event.
pub(super) struct Message<'a> {
    /// Its ID: the same whenever it is sent.
    pub id: Uuid,
    /// When it happened, in Unix milliseconds.
    pub at_ms: u64,
    /// The user's ID.
    pub user: String,
    /// The ID that watershed had given to the same user before.
    pub minted: Option<String>,
    /// The record that it is from.
    pub of: JournaledRecord<'a>,
    /// What it says.
    pub what: MessageKind<'a>,
}

/// What a message says.
pub(super) enum MessageKind<'a> {
    /// A user was exposed to a group.
    Exposure {
        /// The name of the experiment.
        experiment: &'a str,
        /// The name of the group.
        group: &'a str,
    },
    /// An event that a metric counts.
    Event {
        /// The name of the metric.
        metric: &'a str,
        /// The decimal places of values.
        scale: u8,
        /// The value, in units of 10^-scale.
        value: Option<i64>,
        /// What was observed.
        observation: &'a Observation,
    },
}

impl<'a> Message<'a> {
    /// Makes the message of an exposure, the one at this place of its record.
    pub(super) fn of_exposure(row: &ExposureRow<'a>, place: usize) -> Message<'a> {
        let group = row.experiment.groups.get(row.exposure.group.0);
        Message {
            id: id_of(&row.of, &format!("exposure {place}")),
            at_ms: row.of.record.at_ms,
            user: row.of.user(),
            minted: None,
            of: row.of,
            what: MessageKind::Exposure {
                experiment: &row.experiment.name,
                group: group.map_or("", |group| &group.name),
            },
        }
        .with_minted()
    }

    /// Makes the message of an event.
    pub(super) fn of_event(row: &EventRow<'a>) -> Message<'a> {
        let metric = &*row.metric.name;
        let id = match row.observation.event_id {
            // The ID that its reporter gave it distinguishes the events of one user.
            Some(given) => {
                let user = &row.of.record.user;
                let unit = row.of.unit().unwrap_or_default();
                digest([
                    b"event",
                    metric.as_bytes(),
                    unit.as_bytes(),
                    user,
                    &given.get().to_be_bytes(),
                ])
            }
            None => id_of(&row.of, &format!("event {}", row.ordinal)),
        };
        Message {
            id,
            at_ms: row.at_ms(),
            user: row.of.user(),
            minted: None,
            of: row.of,
            what: MessageKind::Event {
                metric,
                scale: row.metric.scale,
                value: row.value(),
                observation: row.observation,
            },
        }
        .with_minted()
    }

    fn with_minted(self) -> Message<'a> {
        let minted = self.of.record.minted.as_deref().map(readable);
        Message { minted, ..self }
    }

    /// Returns the value as a number; `None` for a message without one.
    pub(super) fn value(&self) -> Option<Number> {
        match self.what {
            MessageKind::Event { scale, value, .. } => Some(number(value?, scale)),
            MessageKind::Exposure { .. } => None,
        }
    }

    /// Returns what it says in one flat object, under the names that the archive has for the same.
    pub(super) fn properties(&self) -> Map<String, Value> {
        let record = self.of.record;
        let mut all = Map::new();
        let mut add = |name: &str, value: Value| {
            all.insert(name.to_owned(), value);
        };
        match &self.what {
            MessageKind::Exposure { experiment, group } => {
                add("experiment_id", json!(experiment));
                add("variation_id", json!(group));
            }
            MessageKind::Event { observation, .. } => {
                if let Some(value) = self.value() {
                    add("value", Value::Number(value));
                }
                if observation.count != 1 {
                    add("count", json!(observation.count));
                }
                if observation.base != 0 {
                    add("base", json!(observation.base));
                }
            }
        }
        if record.status != 0 {
            add("status", json!(record.status));
            add("latency_us", json!(record.latency_us));
        }
        for (name, value) in segments(&record.segments) {
            add(&format!("segment_{name}"), json!(value));
        }
        if let Some(unit) = self.of.unit() {
            add("unit", json!(unit));
        }
        if record.is_new {
            add("is_new", json!(true));
        }
        add("journal", json!(self.of.journal));
        add("seq", json!(self.of.seq));
        all
    }
}

/// The segments of a record, without what distinguishes definitions of the same name.
fn segments(described: &str) -> impl Iterator<Item = (&str, &str)> {
    let all = described.split(',').filter_map(|it| it.split_once('='));
    all.map(|(key, value)| (key.split_once('~').map_or(key, |(name, _)| name), value))
}

/// A value as a number, such as 19.9 for 1990 with two decimal places.
fn number(units: i64, scale: u8) -> Number {
    if scale == 0 {
        return Number::from(units);
    }
    let text = decimal(units, scale);
    // A decimal number is a JSON number.
    text.parse().unwrap_or_else(|_| Number::from(units))
}

fn decimal(units: i64, scale: u8) -> String {
    let width = usize::from(scale) + 1;
    let digits = format!("{:0width$}", units.unsigned_abs());
    let (whole, rest) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if units < 0 { "-" } else { "" };
    match rest.trim_end_matches('0') {
        "" => format!("{sign}{whole}"),
        rest => format!("{sign}{whole}.{rest}"),
    }
}

/// The ID of what stands at a place of a record.
fn id_of(of: &JournaledRecord<'_>, place: &str) -> Uuid {
    digest([
        b"position",
        of.journal.as_bytes(),
        &of.seq.to_be_bytes(),
        place.as_bytes(),
    ])
}

/// A UUID (version 8) of some parts, each of which begins with its length.
fn digest<const N: usize>(parts: [&[u8]; N]) -> Uuid {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decimal_numbers() {
        for (units, scale, text) in [
            (1990, 2, "19.9"),
            (-5, 3, "-0.005"),
            (100, 2, "1"),
            (0, 6, "0"),
            (7, 0, "7"),
            (i64::MIN, 2, "-92233720368547758.08"),
        ] {
            assert_eq!(decimal(units, scale), text);
        }
        assert_eq!(number(1990, 2).to_string(), "19.9");
        assert_eq!(number(100, 2).to_string(), "1");
    }

    #[test]
    fn segments_have_the_names_of_the_file() {
        let found: Vec<_> = segments("device~31c5aa=mobile,plan~1f03ab=free").collect();
        assert_eq!(found, [("device", "mobile"), ("plan", "free")]);
        assert_eq!(segments("").count(), 0);
    }

    #[test]
    fn parts_of_an_id_are_not_one_text() {
        assert_ne!(digest([b"ab", b"c"]), digest([b"a", b"bc"]));
        assert_eq!(digest([b"ab", b"c"]).get_version_num(), 8);
    }
}
