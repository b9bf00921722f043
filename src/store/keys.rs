//! The names of keys and fields, and the text of stored values. PURE. Names of experiments, groups and
//! metrics consist of letters, digits and `_.-`, so `|`, `:` and spaces can separate them.

use super::damage::Damage;
use super::{
    EpochDefinition, EpochTotals, EventAt, ExperimentTotals, GroupTotals, HourTotals, MetricTotals,
    StoreError, UserMetric, UserRecord,
};
use crate::experiment::EpochDigest;
use crate::experiment::not_counted::NotCounted;
use std::collections::BTreeMap;

/// The keys of one shard of one experiment. They share a hash tag, and so a node of a cluster.
#[derive(Clone, Debug)]
pub struct ShardKeys {
    /// user → record.
    pub users: String,
    /// field → count.
    pub totals: String,
    /// hour and field → count.
    pub hours: String,
    /// digest → definition.
    pub epochs: String,
    /// journal → sequence number.
    pub applied: String,
    /// user → events that wait for the user's exposure.
    pub waiting: String,
    /// The same users by their time.
    pub waiting_since: String,
    /// ID → its role; see [`super::identities`].
    pub identities: String,
    /// Outcome → count; see [`super::identities`].
    pub identity_counts: String,
    /// Of version 0.1.0: alias → ID of the same person. It is read, and never extended.
    pub aliases: String,
    /// User and event ID, to find those of a user; see [`super::event_ids`].
    pub event_ids: String,
    /// The same by the time of the event.
    pub event_ids_at: String,
    /// Events that are not counted: reason → count.
    pub event_counts: String,
    /// A sorted set: visitors who were seen once → their first exposure, in Unix milliseconds.
    pub seen_once: String,
    /// Digest of an ID → time; see [`super::forgotten`].
    pub forgotten: String,
    /// Field → number, in the first shard only; see [`super::running_minima`].
    pub lowest: String,
    /// Field → text.
    pub first: String,
}

/// Returns the keys of one of `shards` shards.
pub fn shard_keys(prefix: &str, experiment: &str, shard: u32, shards: u32) -> ShardKeys {
    let tag = tag(experiment, shard, shards);
    let key = |what: &str| format!("{prefix}:{{{tag}}}:{what}");
    ShardKeys {
        users: key("users"),
        totals: key("totals"),
        hours: key("hours"),
        epochs: key("epochs"),
        applied: key("applied"),
        waiting: key("waiting"),
        waiting_since: key("waiting-since"),
        identities: key("identities"),
        identity_counts: key("identity-counts"),
        aliases: key("aliases"),
        event_ids: key("event-ids"),
        event_ids_at: key("event-ids-at"),
        event_counts: key("event-counts"),
        seen_once: key("seen-once"),
        forgotten: key("forgotten"),
        lowest: key("lowest"),
        first: key("first"),
    }
}

/// Returns the hash tag of a shard, which decides its node in a cluster: `new-site:0` for a single shard,
/// and `new-site:2.7` for one of several. The last number is the first one whose slot is in the shard's
/// part of the 16,384 slots, so that shards spread evenly over the masters.
fn tag(experiment: &str, shard: u32, shards: u32) -> String {
    if shards <= 1 {
        return format!("{experiment}:{shard}");
    }
    const SLOTS: u32 = 16_384;
    let own = (shard * SLOTS).div_ceil(shards)..((shard + 1) * SLOTS).div_ceil(shards);
    let tags = (0..100 * shards).map(|number| format!("{experiment}:{shard}.{number}"));
    let mut tags = tags.filter(|tag| {
        let slot = u32::from(crc16::State::<crc16::XMODEM>::calculate(tag.as_bytes())) % SLOTS;
        own.contains(&slot)
    });
    // Without one, any number works.
    tags.next()
        .unwrap_or_else(|| format!("{experiment}:{shard}.0"))
}

/// The key of the hash of experiments: name → number of shards.
pub fn experiments_key(prefix: &str) -> String {
    format!("{prefix}:experiments")
}

/// The key of the hash of processes: id → `definition seen_ms version`.
pub fn replicas_key(prefix: &str) -> String {
    format!("{prefix}:replicas")
}

/// The key of the hash of decisions: experiment → decision, as JSON.
pub fn decisions_key(prefix: &str) -> String {
    format!("{prefix}:{{controls}}:now")
}

/// The key of the hash of definitions: experiment → definition, as JSON.
pub fn definitions_key(prefix: &str) -> String {
    format!("{prefix}:{{controls}}:definitions")
}

/// The key of the audit log: a list of entries as JSON, the newest first.
pub fn audit_log_key(prefix: &str) -> String {
    format!("{prefix}:{{controls}}:acts")
}

/// The key of the list of loaded files, as JSON, the newest first.
pub fn loaded_files_key(prefix: &str) -> String {
    format!("{prefix}:{{files}}:list")
}

/// The key of the hash of loaded files: number → content, and `latest`, the number of the latest.
pub fn loaded_contents_key(prefix: &str) -> String {
    format!("{prefix}:{{files}}:contents")
}

/// The key of the list of secrets; the first one signs.
pub fn secrets_key(prefix: &str) -> String {
    format!("{prefix}:secrets")
}

/// The key of the sorted set of ended sessions: nonce, with its time of expiry as the score.
pub fn ended_sessions_key(prefix: &str) -> String {
    format!("{prefix}:sessions:ended")
}

/// The key of the hash of dropped records: journal → number.
pub fn dropped_key(prefix: &str) -> String {
    format!("{prefix}:dropped")
}

/// The key of the hash with the `version` of all keys.
pub fn format_key(prefix: &str) -> String {
    format!("{prefix}:format")
}

/// The key of the hash of damaged records: journal → number.
pub fn damaged_key(prefix: &str) -> String {
    format!("{prefix}:damaged")
}

/// The keys of certificates by ACME, which share a hash tag.
#[derive(Clone, Debug)]
pub struct AcmeKeys {
    /// The process that talks to the authority; it expires.
    pub lease: String,
    /// A hash: name → account, certificate, or answer to a challenge.
    pub entries: String,
}

/// Returns the keys of certificates by ACME.
pub fn acme_keys(prefix: &str) -> AcmeKeys {
    AcmeKeys {
        lease: format!("{prefix}:{{acme}}:lease"),
        entries: format!("{prefix}:{{acme}}:entries"),
    }
}

/// The keys of messages to webhooks, which share a hash tag.
#[derive(Clone, Debug)]
pub struct MessageKeys {
    /// A sorted set: event → when it was reported last.
    pub reported: String,
    /// Entry → message, as JSON.
    pub messages: String,
    /// A sorted set: entry → when it is due.
    pub due: String,
    /// Entry → the process that sends it now.
    pub taken: String,
}

/// Returns the keys of messages to webhooks.
pub fn message_keys(prefix: &str) -> MessageKeys {
    let key = |what: &str| format!("{prefix}:{{webhooks}}:{what}");
    MessageKeys {
        reported: key("reported"),
        messages: key("messages"),
        due: key("due"),
        taken: key("taken"),
    }
}

/// `<epoch>|<group>|<what>`: a field of totals.
pub fn field(epoch: EpochDigest, group: &str, what: &str) -> String {
    format!("{epoch}|{group}|{what}")
}

/// `<hour>|<epoch>|<group>|<what>`: a field of hours.
pub fn hour_field(hour: u64, epoch: EpochDigest, group: &str, what: &str) -> String {
    format!("{hour}|{epoch}|{group}|{what}")
}

/// `m:<metric>:<what>`.
pub fn metric_field(metric: &str, what: &str) -> String {
    format!("m:{metric}:{what}")
}

/// The names of the classes of status, in order.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Decodes totals from the definitions and fields of all shards.
pub fn totals(
    definitions: impl IntoIterator<Item = EpochDefinition>,
    fields: impl IntoIterator<Item = (String, i128)>,
    damage: &Damage,
) -> ExperimentTotals {
    let mut epochs: BTreeMap<EpochDigest, EpochTotals> = BTreeMap::new();
    for definition in definitions {
        let epoch = epochs
            .entry(definition.digest)
            .or_insert_with(|| EpochTotals {
                definition: definition.clone(),
                number: 0,
                groups: BTreeMap::new(),
            });
        epoch.definition.first_ms = epoch.definition.first_ms.min(definition.first_ms);
    }
    for (field, value) in fields {
        let read = || {
            let (epoch, rest) = field.split_once('|')?;
            let (group, what) = rest.split_once('|')?;
            // The definition of an epoch is stored in the same atomic step as its first count.
            let epoch = epochs.get_mut(&digest(epoch)?)?;
            add(
                epoch.groups.entry(group.to_owned()).or_default(),
                what,
                value,
            )
        };
        if { read }().is_none() {
            damage.note("totals", &field);
        }
    }
    for epoch in epochs.values_mut() {
        epoch.groups.retain(|_, group| holds_something(group));
    }
    let mut epochs: Vec<_> = epochs.into_values().collect();
    epochs.sort_by_key(|epoch| (epoch.definition.first_ms, epoch.definition.digest));
    for (place, epoch) in epochs.iter_mut().enumerate() {
        epoch.number = place as u32 + 1;
    }
    ExperimentTotals {
        epochs,
        ..ExperimentTotals::default()
    }
}

/// Decodes hours from the fields of all shards, oldest first.
pub fn hours(fields: impl IntoIterator<Item = (String, i128)>, damage: &Damage) -> Vec<HourTotals> {
    let mut hours: BTreeMap<(u64, EpochDigest, String), GroupTotals> = BTreeMap::new();
    for (field, value) in fields {
        let read = || {
            let mut parts = field.splitn(4, '|');
            let (hour, epoch) = (parts.next()?.parse().ok()?, digest(parts.next()?)?);
            let (group, what) = (parts.next()?.to_owned(), parts.next()?);
            add(hours.entry((hour, epoch, group)).or_default(), what, value)
        };
        if { read }().is_none() {
            damage.note("hours", &field);
        }
    }
    hours.retain(|_, group| holds_something(group));
    let hour = |((hour, epoch, group), totals)| HourTotals {
        hour,
        epoch,
        group,
        totals,
    };
    hours.into_iter().map(hour).collect()
}

/// Drops counts that are zero again because users moved to an earlier group. Returns false if none is
/// left.
fn holds_something(group: &mut GroupTotals) -> bool {
    group
        .metrics
        .retain(|_, metric| *metric != MetricTotals::default());
    group.first_latency.retain(|_, users| *users > 0);
    group.segments.retain(|_, segment| holds_something(segment));
    *group != GroupTotals::default()
}

fn digest(text: &str) -> Option<EpochDigest> {
    u64::from_str_radix(text, 16).ok().map(EpochDigest)
}

/// Adds a count to the total that its field names. Returns `None` for an unknown name.
fn add(group: &mut GroupTotals, what: &str, value: i128) -> Option<()> {
    let small = || u64::try_from(value).ok();
    match what {
        "users" => group.users += small()?,
        "crossed_over" => group.crossed_over += small()?,
        "seen_once" => group.seen_once += small()?,
        "requests" => group.requests += small()?,
        "fallbacks" => group.fallbacks += small()?,
        "unfinished" => group.unfinished += small()?,
        _ => {
            if let Some(class) = CLASSES.iter().position(|class| *class == what) {
                group.classes[class] += small()?;
            } else if let Some(of_segment) = what.strip_prefix(SEGMENT) {
                let (segment, what) = of_segment.split_once(':')?;
                let segment = group.segments.entry(segment.to_owned()).or_default();
                add(segment, what, value)?;
            } else if let Some(bucket) = what.strip_prefix(FIRST_LATENCY) {
                *group.first_latency.entry(bucket.parse().ok()?).or_default() += small()?;
            } else if let Some(bucket) = what.strip_prefix("latency:") {
                *group.latency.entry(bucket.parse().ok()?).or_default() += small()?;
            } else if let Some(why) = what.strip_prefix("not_counted:") {
                let why = NotCounted::named(why)?;
                *group.not_counted.entry(why).or_default() += small()?;
            } else {
                let (metric, what) = what.strip_prefix("m:")?.rsplit_once(':')?;
                // `sum_sq.2` is the limb of 10^14: see `LIMB`.
                let (what, limb) = match what.split_once('.') {
                    Some((what, limb)) => (what, limb.parse().ok().filter(|&limb: &u32| limb < 6)?),
                    None => (what, 0),
                };
                let value = value.checked_mul(LIMB.pow(limb))?;
                let metric = group.metrics.entry(metric.to_owned()).or_default();
                match what {
                    "converted" => metric.converted += small()?,
                    "count" => metric.count += small()?,
                    "count_sq" => metric.count_sq += value,
                    "sum" => metric.sum += value,
                    "sum_sq" => metric.sum_sq += value,
                    "base" => metric.base += value,
                    "base_sq" => metric.base_sq += value,
                    "cross" => metric.cross += value,
                    "capped" => metric.capped += small()?,
                    "cut" => metric.cut += value,
                    "known" => metric.known += small()?,
                    "known_sum" => metric.known_sum += value,
                    "before" => metric.before += value,
                    "before_sq" => metric.before_sq += value,
                    "before_cross" => metric.before_cross += value,
                    _ => return None,
                }
            }
        }
    }
    Some(())
}

/// One limb of a large sum. Redis counts in 64 bits and its scripts in doubles, so large sums are kept
/// in limbs of seven decimal digits: `sum.0` + `sum.1`·10^7 + `sum.2`·10^14 and so on.
pub const LIMB: i128 = 10_000_000;

/// The prefix of the fields that count the users of a segment.
const SEGMENT: &str = "s:";

/// `s:<segment>=<value>:<what>`: a count of the users of one value of a segment.
pub fn segment_field(segment: &str, what: &str) -> String {
    format!("{SEGMENT}{segment}:{what}")
}

/// The prefix of the fields that count users by the latency of their first exposure.
const FIRST_LATENCY: &str = "first_latency:";

/// The field that counts users whose first exposure's latency is in this bucket.
pub fn first_latency_field(bucket: u16) -> String {
    format!("{FIRST_LATENCY}{bucket}")
}

/// Encodes a definition:
/// `<first_ms> <traffic> <group>=<weight> <group>=<weight> … ~<series> …`. SQLite keeps `first_ms` in a
/// column of its own, Redis at the start of the text.
pub fn write_definition(definition: &EpochDefinition) -> String {
    let mut text = definition.traffic.to_string();
    for (group, weight) in &definition.groups {
        text.push_str(&format!(" {group}={weight}"));
    }
    for series in &definition.series {
        text.push_str(&format!(" ~{series}"));
    }
    text
}

/// Decodes a definition of [`write_definition`].
pub fn read_definition(
    epoch: &str,
    first_ms: u64,
    text: &str,
) -> Result<EpochDefinition, StoreError> {
    let unreadable = || StoreError::Unreadable {
        place: format!("epoch {epoch}"),
        found: text.to_owned(),
    };
    let (series, words): (Vec<&str>, Vec<&str>) =
        text.split(' ').partition(|word| word.starts_with('~'));
    let mut words = words.into_iter();
    let traffic = words
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or_else(unreadable)?;
    let group = |word: &str| {
        let (group, weight) = word.split_once('=')?;
        Some((group.to_owned(), weight.parse().ok()?))
    };
    let groups = words
        .map(group)
        .collect::<Option<_>>()
        .ok_or_else(unreadable)?;
    Ok(EpochDefinition {
        digest: digest(epoch).ok_or_else(unreadable)?,
        traffic,
        groups,
        first_ms,
        series: series.iter().map(|word| word[1..].to_owned()).collect(),
    })
}

/// Encodes the record of a user:
/// `<group> <epoch> <first_ms> <crossed> <metric>:<count>:<sum>:<base> …`. A metric with a cap ends with
/// `:<cap>`, and one with a sum from before the first exposure with `<` and that sum. `crossed` is 0 or 1,
/// and 2 more while the user is seen once. Where the latency of the first exposure is known, `<crossed>` is
/// followed by `@<bucket>`, and where segments are, by another `@` and `<segment>=<value>,…`.
pub fn write_user(record: &UserRecord) -> String {
    let crossed = u8::from(record.crossed_over) + 2 * u8::from(record.seen_once);
    let mut text = format!(
        "{} {} {} {crossed}",
        record.group, record.epoch, record.first_ms
    );
    if record.latency.is_some() || !record.segments.is_empty() {
        let latency = record.latency.map(|bucket| bucket.to_string());
        text.push_str(&format!("@{}", latency.unwrap_or_default()));
    }
    if !record.segments.is_empty() {
        text.push_str(&format!("@{}", record.segments));
    }
    for (metric, of) in &record.metrics {
        let UserMetric {
            count, sum, base, ..
        } = of;
        text.push_str(&format!(" {metric}:{count}:{sum}:{base}"));
        text.push_str(&of.cap.map_or(String::new(), |cap| format!(":{cap}")));
        text.push_str(&of.before.map_or(String::new(), |sum| format!("<{sum}")));
    }
    text
}

/// Decodes a record of [`write_user`].
pub fn read_user(text: &str) -> Result<UserRecord, StoreError> {
    let read = || {
        let mut words = text.split(' ');
        let mut record = UserRecord {
            group: words.next()?.to_owned(),
            epoch: digest(words.next()?)?,
            first_ms: words.next()?.parse().ok()?,
            crossed_over: false,
            seen_once: false,
            latency: None,
            segments: String::new(),
            metrics: BTreeMap::new(),
        };
        let mut marks = words.next()?.split('@');
        let crossed = marks.next();
        record.crossed_over = matches!(crossed, Some("1" | "3"));
        record.seen_once = matches!(crossed, Some("2" | "3"));
        let latency = marks.next().filter(|latency| !latency.is_empty());
        record.latency = latency.map(str::parse).transpose().ok()?;
        record.segments = marks.next().unwrap_or_default().to_owned();
        // Version 0.1.0 kept event IDs here, each after a `#`.
        for word in words.filter(|word| !word.starts_with('#')) {
            let (word, before) = match word.split_once('<') {
                Some((word, before)) => (word, Some(before.parse().ok()?)),
                None => (word, None),
            };
            let mut parts = word.split(':');
            let metric = parts.next()?.to_owned();
            let mut number = || parts.next()?.parse::<i64>().ok();
            let (count, sum, base) = (number()?, number()?, number()?);
            let values = UserMetric {
                count: u64::try_from(count).ok()?,
                sum,
                base,
                cap: read_positive(parts.next()).ok()?,
                before,
            };
            record.metrics.insert(metric, values);
        }
        Some(record)
    };
    read().ok_or_else(|| StoreError::Unreadable {
        place: "a user".to_owned(),
        found: text.to_owned(),
    })
}

/// A cap or a time, where there is one.
fn read_positive(text: Option<&str>) -> Result<Option<i64>, ()> {
    let read = |text: &str| text.parse().ok().filter(|&it: &i64| it > 0).ok_or(());
    let text = text.filter(|text| !text.is_empty());
    text.map(read).transpose()
}

/// Encodes waiting events, separated by spaces, each as
/// `<at_ms>:<metric>:<within_ms or nothing>:<count>:<sum>:<base>:<event id or nothing>`. The time at
/// which an event was reported follows its own time if they differ: `<at_ms>/<reported_ms>:…`. A cap
/// follows at the end: `:<cap>`, and the time of a covariate follows that: `:<cap or nothing>:<ms>`.
pub fn write_waiting(events: &[EventAt]) -> String {
    let words: Vec<String> = events.iter().map(write_event).collect();
    words.join(" ")
}

/// Encodes one event, as in [`write_waiting`].
pub fn write_event(event: &EventAt) -> String {
    let within = event
        .within_ms
        .map_or(String::new(), |within| within.to_string());
    let id = event.id.map_or(String::new(), |id| format!("{id:016x}"));
    let EventAt {
        at_ms,
        reported_ms,
        metric,
        count,
        sum,
        base,
        ..
    } = event;
    let reported = match reported_ms == at_ms {
        true => String::new(),
        false => format!("/{reported_ms}"),
    };
    let cap = event.cap.map_or(String::new(), |cap| cap.to_string());
    let end = match (event.cap, event.covariate_ms) {
        (_, Some(covariate_ms)) => format!(":{cap}:{covariate_ms}"),
        (Some(_), None) => format!(":{cap}"),
        (None, None) => String::new(),
    };
    format!("{at_ms}{reported}:{metric}:{within}:{count}:{sum}:{base}:{id}{end}")
}

/// Decodes events of [`write_waiting`].
pub fn read_waiting(text: &str) -> Result<Vec<EventAt>, StoreError> {
    let read = |word: &str| {
        let mut parts = word.split(':');
        let times = parts.next()?;
        let (at_ms, reported_ms) = times.split_once('/').unwrap_or((times, times));
        let metric = parts.next()?.to_owned();
        let within = parts.next()?;
        let mut number = || parts.next()?.parse::<i64>().ok();
        let (count, sum, base) = (number()?, number()?, number()?);
        let id = parts.next()?;
        let cap = read_positive(parts.next()).ok()?;
        let covariate_ms = read_positive(parts.next()).ok()?;
        let optional = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Some(EventAt {
            at_ms: at_ms.parse().ok()?,
            reported_ms: reported_ms.parse().ok()?,
            metric,
            within_ms: optional(within).map(|text| text.parse()).transpose().ok()?,
            cap,
            covariate_ms: covariate_ms.map(i64::unsigned_abs),
            count: u64::try_from(count).ok()?,
            sum,
            base,
            id: optional(id)
                .map(|text| u64::from_str_radix(&text, 16))
                .transpose()
                .ok()?,
        })
    };
    text.split(' ')
        .map(read)
        .collect::<Option<_>>()
        .ok_or_else(|| StoreError::Unreadable {
            place: "waiting events".to_owned(),
            found: text.to_owned(),
        })
}
