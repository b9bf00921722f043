//! `watershed replay`: asks a new metric of the past, from the archive.

use super::archive::ArchiveSource;
use super::judge::shown;
use super::output::Output;
use crate::admin::results::evaluator::{CountsSnapshot, Evaluator};
use crate::admin::results::schema::ExperimentResult;
use crate::admin::{View, experiment_result};
use crate::archive::{ArchiveError, ArchivedPast, EventSource, ReplayBase, ReplayQuestion};
use crate::config;
use crate::config::declaration::declaration;
use crate::config::plan::{ArchiveTarget, Plan};
use crate::experiment::Crossover;
use crate::experiment::metric::{Metric, MetricKind, RatioBase, Trigger};
use crate::features::{Feature, MissingFeature};
use crate::server::ErrorWithHint;
use crate::store::apply_semantics::CROSSED_OVER;
use crate::store::ingest::Ingestor;
use crate::store::phases;
use crate::store::sqlite::SqliteStore;
use crate::store::{ExperimentTotals, Store};
use crate::telemetry::{Counted, Telemetry};
use anyhow::Context;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// The arguments of `replay`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The metric: the name of one in the routes file, or a new one, such as 'large: { event: revenue, value: amount,
    /// kind: mean, cap: 100, within: 7d }', whose event is one of the column `event` of the archive
    #[arg(long, value_name = "METRIC")]
    metric: String,
    /// The experiment [default: the only one of the routes file]
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,
    /// Judge only users of one segment at their first exposure, such as device=mobile
    #[arg(long, value_name = "NAME=VALUE")]
    segment: Option<String>,
    #[command(flatten)]
    from: ArchiveSource,
}

/// Counts the metric from the archive, and prints the verdict on it.
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    if !Feature::Archive.is_built() {
        let missing = MissingFeature(Feature::Archive);
        return Err(ErrorWithHint::new(missing.to_string(), missing.hint()).into());
    }
    let plan = arguments.from.file().load()?;
    let archive = arguments.from.target()?;
    let name = experiment_name(&plan, arguments.experiment.as_deref())?;
    let (plan, question) = question(&plan, &name, &arguments.metric)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let segment = arguments.segment.as_deref();
    let result = runtime.block_on(replay(&plan, &archive, question, segment))?;
    let document = serde_json::to_value(&result)?;
    Ok(output.print(|| shown(&result), || document)?)
}

fn experiment_name(plan: &Plan, name: Option<&str>) -> anyhow::Result<String> {
    let mut names = plan.experiments.iter().map(|it| it.name.to_string());
    let all = || {
        let names = plan.experiments.iter().map(|it| &*it.name);
        names.collect::<Vec<_>>().join(", ")
    };
    let found = match name {
        Some(name) => names.find(|it| it == name),
        None if plan.experiments.len() == 1 => names.next(),
        None => None,
    };
    found.ok_or_else(|| {
        let what = match name {
            Some(name) => format!("the routes file has no experiment {name:?}"),
            None => "the routes file has several experiments".to_owned(),
        };
        ErrorWithHint::new(what, format!("name one with --experiment: {}", all())).into()
    })
}

/// Returns the experiment with this metric alone, and what to ask of the archive.
fn question(plan: &Plan, name: &str, metric: &str) -> anyhow::Result<(Plan, ReplayQuestion)> {
    let definition = plan
        .definitions
        .get(name)
        .context("the experiment has no definition")?;
    let mut whole: Value = serde_json::from_str(definition)?;
    let is_new = metric.contains(':');
    let metric_name = metric
        .split(':')
        .next()
        .unwrap_or_default()
        .trim()
        .trim_matches('"');
    let experiment = &mut whole["experiments"][name];
    experiment["metrics"] = json!([metric_name]);
    if let Some(experiment) = experiment.as_object_mut() {
        // Their harm is not replayed.
        experiment.remove("guardrails");
    }
    let metrics = match whole
        .as_object_mut()
        .and_then(|whole| whole.remove("metrics"))
    {
        Some(metrics) if !is_new => metrics.to_string(),
        _ => format!("{{ {metric} }}"),
    };
    // JSON is YAML.
    let text = whole
        .to_string()
        .replacen('{', &format!("{{\"metrics\": {metrics}, "), 1);
    let plan = config::parse(&text, std::path::Path::new("--metric"), &|_| None)?;
    let index = plan
        .experiment_named(name)
        .context("the experiment has no definition")?;
    let index = *plan
        .experiment(index)
        .metrics
        .first()
        .context("the metric is missing")?;
    let metric = plan.metric(index);
    let declared = declaration(&plan).metrics.swap_remove(index.0);
    let (events, base) = match is_new {
        true => sources(metric)?,
        // Archived events have the names of the metrics that counted them.
        false => {
            let named = EventSource::Named(metric_name.to_owned());
            let has_events = metric.kind != MetricKind::Latency;
            (has_events.then_some(named), ReplayBase::Archived)
        }
    };
    let question = ReplayQuestion {
        experiment: name.to_owned(),
        events,
        base,
        has_values: metric.value.is_some(),
        metric: declared,
    };
    Ok((plan, question))
}

/// Returns the archived events that a new metric counts, and those that add to its base.
fn sources(metric: &Metric) -> anyhow::Result<(Option<EventSource>, ReplayBase)> {
    let events = match &metric.trigger {
        Trigger::Event(event) => Some(EventSource::Named(event.to_string())),
        Trigger::Rule(rule) => Some(EventSource::Rule(rule.text())),
        Trigger::Latency(_) => None,
    };
    let base = match &metric.per {
        None => ReplayBase::Archived,
        Some(RatioBase::Event(event)) => ReplayBase::Events(EventSource::Named(event.to_string())),
        Some(RatioBase::Rule(rule)) => ReplayBase::Events(EventSource::Rule(rule.text())),
        Some(RatioBase::Requests) => {
            let error = ErrorWithHint::new(
                "a new ratio per requests cannot be replayed: requests that nothing counted were not archived",
                "replay one of the routes file by its name, or take an archived event as the base: `per: { event: NAME }`",
            );
            return Err(error.into());
        }
    };
    Ok((events, base))
}

/// Counts the past as ingestion does, in a store of its own, and judges it as results do.
async fn replay(
    plan: &Plan,
    archive: &ArchiveTarget,
    question: ReplayQuestion,
    segment: Option<&str>,
) -> anyhow::Result<ExperimentResult> {
    let failed = |error: ArchiveError| {
        let text = error.with_advice();
        anyhow::anyhow!("the archive {archive} cannot be replayed: {text}")
    };
    let folder = TempDir::new()?;
    let store = SqliteStore::open(&folder.path().join("replay.db"))?;
    let store: Arc<dyn Store> = Arc::new(store);
    let telemetry = Arc::new(Telemetry::default());
    let mut ingestor = Ingestor::new(Vec::new(), Arc::clone(&store), telemetry, Vec::new);
    let name = question.experiment.clone();
    let mut past = ArchivedPast::open(archive, question)
        .await
        .map_err(failed)?;
    while let Some(chunk) = past.next().await.map_err(failed)? {
        ingestor.give(&[chunk]).await?;
    }
    let index = plan
        .experiment_named(&name)
        .context("the experiment is gone")?;
    let experiment = plan.experiment(index);
    let declaration = declaration(plan);
    let declared = &declaration.experiments[index.0];
    let located = phases::locate(&*store, declared, &declaration.metrics).await?;
    let evaluator = Evaluator::default();
    let evaluation = match segment {
        None => {
            evaluator
                .evaluate(plan, experiment, located, &*store)
                .await?
        }
        Some(segment) => {
            let key = &located.placement.key;
            let (mut totals, mut hours) = (store.totals(key).await?, store.hours(key).await?);
            if experiment.crossover == Crossover::Exclude {
                totals.leave_out(CROSSED_OVER);
                hours
                    .iter_mut()
                    .for_each(|hour| hour.totals.leave_out(CROSSED_OVER));
            }
            let segment = segment_key(plan, &totals, segment)?;
            let hours = hours.iter().filter_map(|hour| hour.of_segment(&segment));
            let counts = CountsSnapshot {
                totals: totals.of_segment(&segment),
                hours: Some(Arc::new(hours.collect())),
                placement: located.placement,
                counted: Counted::Wholly,
                at_ms: SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64,
            };
            evaluator.judge(plan, experiment, counts, &located.kept)
        }
    };
    Ok(experiment_result(plan, &evaluation, View::default()))
}

/// Returns what the store calls a segment, such as `device~31c5aa=mobile` for `device=mobile`: by the file's
/// definition, or by another one where the file has it no more.
fn segment_key(plan: &Plan, totals: &ExperimentTotals, segment: &str) -> anyhow::Result<String> {
    let groups = totals.epochs.iter().flat_map(|epoch| epoch.groups.values());
    let keys: BTreeSet<&str> = groups
        .flat_map(|group| group.segments.keys().map(String::as_str))
        .collect();
    let named = |key: &str| {
        let (name, value) = key.split_once('=')?;
        let (name, _) = name.split_once('~').filter(|(name, _)| !name.is_empty())?;
        Some(format!("{name}={value}"))
    };
    let is_present = |key: &str| {
        let mut defined = plan.segments.iter();
        defined.any(|it| key.split('=').next() == Some(&*it.key))
    };
    let found = keys
        .iter()
        .filter(|key| named(key).as_deref() == Some(segment));
    let found = found.max_by_key(|key| is_present(key));
    found.map(|key| (*key).to_owned()).ok_or_else(|| {
        let known: BTreeSet<String> = keys.iter().filter_map(|key| named(key)).collect();
        let known: Vec<String> = known.into_iter().collect();
        ErrorWithHint::new(
            format!("no user was in the segment {segment}"),
            format!("known: {}", known.join(", ")),
        )
        .into()
    })
}
