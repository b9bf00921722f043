//! Phases and series: which counts belong together.
//!
//! A *phase* is a run of an experiment with one salt, one unit, and one upstream for each group. Each phase has
//! counts of its own, so that a new one counts every user afresh: the first one stands under the
//! experiment's name, `new-site`, later ones under `new-site~2` and so on. A salt or an upstream that
//! comes back continues its phase.
//!
//! A *series* is what one definition of a metric has counted. Definitions are fixed when the first
//! user of a phase comes: a metric that is defined otherwise later, or added later, is counted under
//! a name of its own, `purchase~1a2b3c4d`, and so are the users who come from then on, in an epoch
//! that names such series. So no rate mixes two definitions, and no user is counted for a metric
//! that was not there.
//!
//! What a phase began with is kept beside its counts, in [`RunningMinima::first`]: of several
//! replicas the first one decides. In the first phase:
//!
//! - `phase|<number>|salt`, `phase|<number>|unit` and `phase|<number>|upstream|<group>`: what makes each
//!   phase;
//!
//! and in each phase:
//!
//! - `begun`: its metrics and their definitions, as JSON;
//! - `series|<series>` and `scale|<series>`: the definition of each series, and its decimal places.

use super::delta::EpochDefinition;
use super::error::StoreError;
use super::interface::Store;
use super::running_minima::RunningMinima;
use crate::experiment::EpochDigest;
use crate::experiment::record::{Declaration, DeclaredExperiment, DeclaredMetric};
use std::collections::BTreeMap;

/// So often a phase is claimed before giving up: each time, another replica began one.
const CLAIMS_MAX: usize = 8;

/// Parts an experiment's name from the number of its phase, and a metric's from its series. It is in
/// no name of the file.
const MARK: char = '~';

const BEGUN: &str = "begun";

/// Where the counts of an experiment stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// 1 for the first phase.
    pub phase: u32,
    /// What the store calls the phase.
    pub key: String,
    /// By metric's name: its series, where that is not the one that the phase began with.
    pub series: BTreeMap<String, String>,
}

impl Placement {
    /// The first phase, with the definitions that it began with.
    pub fn first(name: &str) -> Placement {
        Placement {
            phase: 1,
            key: name.to_owned(),
            series: BTreeMap::new(),
        }
    }

    /// What the store calls a metric.
    pub fn series_of<'a>(&'a self, metric: &'a str) -> &'a str {
        self.series.get(metric).map_or(metric, String::as_str)
    }

    /// Whether users of an epoch count for a metric as it is defined here.
    pub fn counts_in(&self, metric: &str, epoch: &EpochDefinition) -> bool {
        let mut listed = epoch.series.iter();
        let listed = listed.find(|series| parts(series).0 == metric);
        listed.map_or(metric, String::as_str) == self.series_of(metric)
    }

    /// The epoch of users who come now, where the declared one is `declared`.
    pub fn epoch(&self, declared: EpochDigest) -> EpochDigest {
        if self.series.is_empty() {
            return declared;
        }
        let series: Vec<&str> = self.series.values().map(|series| &**series).collect();
        EpochDigest(digest(&format!("{declared} {}", series.join(" "))))
    }
}

/// A phase's key.
pub fn key(experiment: &str, phase: u32) -> String {
    match phase {
        1 => experiment.to_owned(),
        phase => format!("{experiment}{MARK}{phase}"),
    }
}

/// The name before the mark, and what is behind it.
fn parts(text: &str) -> (&str, Option<&str>) {
    // Names of harm that the proxy sees begin with the mark.
    let marks = text.char_indices().skip(1);
    let mut marks = marks.filter(|(_, letter)| *letter == MARK);
    match marks.next() {
        Some((place, mark)) => (&text[..place], Some(&text[place + mark.len_utf8()..])),
        None => (text, None),
    }
}

/// The experiment and the number of a phase's key.
pub fn of_key(key: &str) -> (&str, u32) {
    let (name, number) = parts(key);
    (name, number.and_then(|text| text.parse().ok()).unwrap_or(1))
}

/// The metric of a series.
pub fn metric_of(series: &str) -> &str {
    parts(series).0
}

/// A digest of a text.
pub fn digest(text: &str) -> u64 {
    // Reading from memory cannot fail, and the crate adds no error of its own.
    murmur3::murmur3_x64_128(&mut text.as_bytes(), 0).unwrap_or_default() as u64
}

/// What makes a phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredPhase {
    /// What was hashed with users' IDs; `None` for counts of version 0.1.
    pub salt: Option<String>,
    /// What was divided; `None` for users.
    pub unit: Option<String>,
    /// By group: the upstream that it began with, empty for none.
    pub upstreams: BTreeMap<String, String>,
}

/// All phases of an experiment, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// In order.
    pub all: BTreeMap<u32, StoredPhase>,
    /// Digests of salts that version 0.1 counted under the experiment's name.
    old_salts: Vec<String>,
}

impl Phases {
    fn read(kept: &RunningMinima) -> Phases {
        let mut phases = Phases::default();
        for (field, text) in &kept.first {
            let mut words = field.split('|');
            match (words.next(), words.next(), words.next()) {
                (Some("salt"), Some(_), None) => phases.old_salts.push(text.clone()),
                (Some("phase"), Some(number), Some(what)) => {
                    let Ok(number) = number.parse() else { continue };
                    let phase = phases.all.entry(number).or_default();
                    match (what, words.next()) {
                        ("salt", None) => phase.salt = Some(text.clone()),
                        ("unit", None) => phase.unit = Some(text.clone()),
                        ("upstream", Some(group)) => {
                            phase.upstreams.insert(group.to_owned(), text.clone());
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        phases
    }

    /// The phase that a declaration continues: the latest that agrees with it.
    fn found(&self, declared: &DeclaredExperiment) -> Option<u32> {
        let phases = self.all.iter().rev();
        let mut agreeing = phases.filter(|(_, phase)| phase.agrees(declared));
        let found = agreeing.next().map(|(number, _)| *number);
        found.or_else(|| self.is_old(declared).then_some(1))
    }

    /// Whether version 0.1 counted for this declaration, as far as is known.
    fn is_old(&self, declared: &DeclaredExperiment) -> bool {
        let salt = declared.salt.as_deref().unwrap_or_default();
        let salt = format!("{:016x}", digest(salt));
        !self.all.contains_key(&1) && self.old_salts.contains(&salt)
    }

    /// The number of the next phase. What version 0.1 counted is the first one.
    fn next(&self) -> u32 {
        let last = self.all.keys().next_back().copied();
        let old = u32::from(!self.old_salts.is_empty());
        last.unwrap_or(0).max(old) + 1
    }
}

impl StoredPhase {
    fn agrees(&self, declared: &DeclaredExperiment) -> bool {
        let same = self.salt == declared.salt && self.unit == declared.unit;
        same && self.moved(declared).is_none()
    }

    /// A group that is served by another upstream, with both names.
    pub fn moved<'a>(
        &'a self,
        declared: &'a DeclaredExperiment,
    ) -> Option<(&'a str, &'a str, &'a str)> {
        declared.groups.iter().find_map(|group| {
            let (began, now) = (self.upstreams.get(&group.name)?, group.upstream.as_ref()?);
            (began != now).then_some((&*group.name, &**began, &**now))
        })
    }
}

/// Where an experiment's counts stand, and what is known of it.
#[derive(Clone, Debug)]
pub struct Located {
    /// Where.
    pub placement: Placement,
    /// What is kept beside the counts of the phase.
    pub kept: RunningMinima,
    /// All phases.
    pub phases: Phases,
    /// What is to be kept before the phase's first user is counted: in the experiment's first phase,
    /// and in this one. Empty once it has begun.
    missing: [BTreeMap<String, String>; 2],
}

/// Where the counts of an experiment stand as it is declared. Nothing is written.
pub async fn locate(
    store: &dyn Store,
    declared: &DeclaredExperiment,
    metrics: &[DeclaredMetric],
) -> Result<Located, StoreError> {
    let first = store.running_minima(&declared.name).await?;
    let phases = Phases::read(&first);
    let phase = match &declared.salt {
        // Of a journal of version 0.1.
        None => 1,
        Some(_) => phases.found(declared).unwrap_or_else(|| phases.next()),
    };
    let kept = match phase {
        1 => first,
        phase => store.running_minima(&key(&declared.name, phase)).await?,
    };
    Ok(located(declared, metrics, phase, kept, phases))
}

/// The same of a phase that may be over.
pub async fn of_phase(
    store: &dyn Store,
    declared: &DeclaredExperiment,
    metrics: &[DeclaredMetric],
    phase: u32,
    phases: &Phases,
) -> Result<Located, StoreError> {
    let kept = store.running_minima(&key(&declared.name, phase)).await?;
    Ok(located(declared, metrics, phase, kept, phases.clone()))
}

fn located(
    declared: &DeclaredExperiment,
    metrics: &[DeclaredMetric],
    phase: u32,
    kept: RunningMinima,
    phases: Phases,
) -> Located {
    let counted = declared
        .metrics
        .iter()
        .filter_map(|&place| metrics.get(place));
    let defined: Vec<(&DeclaredMetric, &String)> = counted
        .filter_map(|metric| Some((metric, metric.definition.as_ref()?)))
        .collect();
    let began = began(&kept);
    let series = defined.iter().filter_map(|(metric, definition)| {
        let began = began.as_ref()?;
        let is_own = began.get(&metric.name) == Some(*definition);
        let short = digest(definition) as u32;
        (!is_own).then(|| {
            (
                metric.name.clone(),
                format!("{}{MARK}{short:08x}", metric.name),
            )
        })
    });
    let placement = Placement {
        phase,
        key: key(&declared.name, phase),
        series: series.collect(),
    };
    let missing = [
        missing_of_phase(declared, phase, &phases),
        missing_of_series(declared, &defined, &placement, &kept),
    ];
    Located {
        placement,
        kept,
        phases,
        missing,
    }
}

/// Metrics and their definitions as the phase began; `None` before its first user.
pub fn began(kept: &RunningMinima) -> Option<BTreeMap<String, String>> {
    serde_json::from_str(kept.first.get(BEGUN)?).ok()
}

/// The definition of a series.
pub fn definition<'a>(kept: &'a RunningMinima, series: &str) -> Option<&'a str> {
    kept.first
        .get(&format!("series|{series}"))
        .map(|text| &**text)
}

/// The decimal places of a series.
pub fn scale(kept: &RunningMinima, series: &str) -> Option<u8> {
    kept.first.get(&format!("scale|{series}"))?.parse().ok()
}

fn missing_of_phase(
    declared: &DeclaredExperiment,
    phase: u32,
    phases: &Phases,
) -> BTreeMap<String, String> {
    let Some(salt) = &declared.salt else {
        return BTreeMap::new();
    };
    let known = phases.all.get(&phase);
    let mut missing = BTreeMap::new();
    if let (Some(unit), None) = (&declared.unit, known) {
        missing.insert(format!("phase|{phase}|unit"), unit.clone());
    }
    if known.is_none_or(|known| known.salt.is_none()) {
        missing.insert(format!("phase|{phase}|salt"), salt.clone());
    }
    for group in &declared.groups {
        let is_known = known.is_some_and(|known| known.upstreams.contains_key(&group.name));
        if let (Some(upstream), false) = (&group.upstream, is_known) {
            let field = format!("phase|{phase}|upstream|{}", group.name);
            missing.insert(field, upstream.clone());
        }
    }
    missing
}

fn missing_of_series(
    declared: &DeclaredExperiment,
    defined: &[(&DeclaredMetric, &String)],
    placement: &Placement,
    kept: &RunningMinima,
) -> BTreeMap<String, String> {
    let mut missing = BTreeMap::new();
    if declared.salt.is_none() {
        return missing;
    }
    if !kept.first.contains_key(BEGUN) {
        let all: BTreeMap<&str, &str> = defined
            .iter()
            .map(|(metric, definition)| (&*metric.name, &***definition))
            .collect();
        let text = serde_json::json!(all).to_string();
        missing.insert(BEGUN.to_owned(), text);
    }
    for (metric, definition) in defined {
        let series = placement.series_of(&metric.name);
        for (field, text) in [
            (format!("series|{series}"), (*definition).clone()),
            (format!("scale|{series}"), metric.scale.to_string()),
        ] {
            if !kept.first.contains_key(&field) {
                missing.insert(field, text);
            }
        }
    }
    missing
}

/// Where the counts of an experiment stand, of which a user is about to be counted: what it begins
/// with is kept from now on.
pub async fn claim(
    store: &dyn Store,
    declared: &DeclaredExperiment,
    metrics: &[DeclaredMetric],
) -> Result<Placement, StoreError> {
    let mut located = locate(store, declared, metrics).await?;
    for _ in 0..CLAIMS_MAX {
        let [of_phase, of_series] = std::mem::take(&mut located.missing);
        let (name, first) = match (of_phase.is_empty(), of_series.is_empty()) {
            (true, true) => return Ok(located.placement),
            (false, _) => (declared.name.clone(), of_phase),
            (true, false) => (located.placement.key.clone(), of_series),
        };
        let claims = RunningMinima {
            first,
            ..RunningMinima::default()
        };
        store.merge_minima(&name, &claims).await?;
        // Another replica may have been quicker.
        located = locate(store, declared, metrics).await?;
    }
    Ok(located.placement)
}

/// The key of an experiment that a person names: of the phase after the mark, or of the one that is
/// counted now; for an experiment that is no longer declared, of its last one. `None` where nothing
/// is kept of it.
pub async fn named(
    store: &dyn Store,
    declaration: &Declaration,
    name: &str,
) -> Result<Option<String>, StoreError> {
    let keys = store.experiments().await?;
    let (experiment, _) = of_key(name);
    let declared = declaration.experiments.iter();
    let wanted = match declared.clone().find(|it| it.name == name) {
        Some(declared) => {
            let located = locate(store, declared, &declaration.metrics).await?;
            Some(located.placement.key)
        }
        None if name.contains(MARK) => {
            let (name, number) = of_key(name);
            Some(key(name, number))
        }
        None => {
            let phases = keys.iter().map(|key| of_key(key));
            let phases = phases.filter(|(name, _)| *name == experiment);
            let last = phases.map(|(_, number)| number).max();
            last.map(|last| key(experiment, last))
        }
    };
    Ok(wanted.filter(|wanted| keys.contains(wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::assign::{Share, Weight};
    use crate::experiment::metric::{MetricGoal, MetricKind};
    use crate::experiment::record::DeclaredGroup;

    fn declared(salt: &str, upstreams: &[(&str, &str)]) -> DeclaredExperiment {
        let group = |(name, upstream): &(&str, &str)| DeclaredGroup {
            name: (*name).to_owned(),
            weight: Weight::new(1.0).unwrap(),
            upstream: Some((*upstream).to_owned()),
        };
        DeclaredExperiment {
            name: "site".to_owned(),
            epoch: EpochDigest(7),
            traffic: Share::ALL,
            groups: upstreams.iter().map(group).collect(),
            metrics: vec![0, 1],
            running: true,
            salt: Some(salt.to_owned()),
            unit: None,
        }
    }

    fn metric(name: &str, definition: &str) -> DeclaredMetric {
        DeclaredMetric {
            name: name.to_owned(),
            kind: MetricKind::Conversion,
            goal: MetricGoal::Increase,
            scale: 2,
            within_ms: None,
            cap: None,
            covariate_ms: None,
            definition: Some(definition.to_owned()),
        }
    }

    /// Keeps what is missing, as `claim` does; the phase.
    fn begin(kept: &mut RunningMinima, declared: &DeclaredExperiment) -> u32 {
        let phases = Phases::read(kept);
        let phase = phases.found(declared).unwrap_or_else(|| phases.next());
        kept.first
            .extend(missing_of_phase(declared, phase, &phases));
        phase
    }

    #[test]
    fn another_salt_or_upstream_begins_a_phase_and_an_old_one_goes_on() {
        let mut kept = RunningMinima::default();
        let mut phase =
            |salt: &str, upstreams: &[(&str, &str)]| begin(&mut kept, &declared(salt, upstreams));
        let both = [("control", "a"), ("b", "b")];
        assert_eq!(phase("one", &both), 1);
        assert_eq!(phase("two", &both), 2);
        assert_eq!(phase("two", &[("control", "a"), ("b", "c")]), 3);
        assert_eq!(phase("one", &both), 1);
        // Groups come and go within a phase; a renamed one is another group.
        assert_eq!(phase("one", &[("control", "a"), ("renamed", "b")]), 1);
        assert_eq!(phase("one", &[("control", "a"), ("c", "c")]), 1);
        assert_eq!(phase("one", &[("control", "a"), ("c", "d")]), 4);
        assert_eq!(phase("two", &[("control", "a"), ("b", "c")]), 3);
    }

    #[test]
    fn counts_of_version_0_1_are_the_first_phase() {
        let mut kept = RunningMinima::default();
        let salt = format!("{:016x}", digest("one"));
        kept.first.insert("salt|00000000000000aa".to_owned(), salt);
        assert_eq!(begin(&mut kept.clone(), &declared("two", &[])), 2);
        assert_eq!(begin(&mut kept, &declared("one", &[])), 1);
        assert_eq!(begin(&mut kept, &declared("two", &[])), 2);
    }

    #[test]
    fn another_definition_is_a_series_of_its_own() {
        let declared = declared("one", &[]);
        let mut kept = RunningMinima::default();
        let mut place = |metrics: &[DeclaredMetric]| {
            let phases = Phases::default();
            let Located {
                placement, missing, ..
            } = located(&declared, metrics, 1, kept.clone(), phases);
            for (field, text) in missing.into_iter().flatten() {
                kept.first.entry(field).or_insert(text);
            }
            placement
        };
        let first = place(&[metric("buy", "event buy")]);
        assert_eq!(first, Placement::first("site"));
        let other = place(&[metric("buy", "event purchase"), metric("new", "event new")]);
        let (buy, new) = (other.series_of("buy"), other.series_of("new"));
        assert!(buy.starts_with("buy~") && new.starts_with("new~"));
        assert_eq!((metric_of(buy), metric_of("~errors")), ("buy", "~errors"));
        assert_eq!(metric_of("~errors~1a2b3c4d"), "~errors");
        assert_ne!(other.epoch(EpochDigest(7)), EpochDigest(7));
        assert_eq!(first.epoch(EpochDigest(7)), EpochDigest(7));
        let epoch = |series: &[&str]| EpochDefinition {
            digest: EpochDigest(1),
            traffic: 1.0,
            groups: Vec::new(),
            first_ms: 0,
            series: series.iter().map(|it| (*it).to_owned()).collect(),
        };
        let (before, after) = (epoch(&[]), epoch(&[buy, new]));
        assert!(first.counts_in("buy", &before) && !first.counts_in("buy", &after));
        assert!(!other.counts_in("buy", &before) && other.counts_in("buy", &after));
        assert!(!other.counts_in("new", &before) && other.counts_in("new", &after));
        // What the file defines again as at first is what it was.
        let again = place(&[metric("buy", "event buy"), metric("new", "event new")]);
        assert_eq!(
            (again.series_of("buy"), again.series_of("new")),
            ("buy", new)
        );
        assert_eq!(definition(&kept, buy), Some("event purchase"));
    }

    #[test]
    fn keys_name_their_experiment() {
        assert_eq!(key("site", 1), "site");
        for number in [1, 2, 12] {
            assert_eq!(of_key(&key("site", number)), ("site", number));
        }
    }
}
