//! The results as a page for a browser. The templates escape what they are given.

use crate::admin::format;
use crate::admin::format::thousands;
use crate::admin::results::history::HistoryEntry;
use crate::admin::results::mirror::MirrorResult;
use crate::admin::results::schema::{
    ExperimentResult, GroupResult, MetricGroup, MetricResult, Results,
};
use crate::admin::view::advice;
use crate::admin::view::buttons::{self, Choice};
use crate::admin::view::changes::{self, Arrivals, ChangeMark};
use crate::admin::view::chart::{Chart, Curve};
use crate::admin::view::details::{self, GuardrailRow, SettingRow, StageRow};
use crate::admin::view::history;
use crate::admin::view::interval_plot::WIDTH;
use crate::admin::view::lifecycle;
use crate::admin::view::list::ExperimentList;
use crate::admin::view::metric_values;
use crate::admin::view::mirror::{self, MirrorRow};
use crate::admin::view::narrative;
use crate::admin::view::planning_text;
use crate::admin::view::scorecard::{BAR_HEIGHT, BAR_WIDTH, Scorecard};
use crate::admin::view::segments::{self, SegmentRow};
use crate::admin::view::tips;
use askama::Template;
use askama::filters::{Html, escape};

/// The person that a page is for.
#[derive(Debug)]
pub(crate) struct Viewer<'a> {
    /// The name of the token; `None` without tokens.
    pub name: Option<&'a str>,
    /// Whether decisions are allowed.
    pub may_operate: bool,
    /// The proof that forms of this session carry.
    pub form: String,
}

#[derive(Template)]
#[template(path = "results.html")]
struct Page<'a> {
    results: &'a Results,
    viewer: &'a Viewer<'a>,
    shown: &'a PageContent<'a>,
}

/// What the page shows besides the results.
#[derive(Debug)]
pub(crate) struct PageContent<'a> {
    /// What was searched for; the list of experiments is shown. `None` shows an experiment.
    pub list: Option<&'a str>,
    /// The routes file, without its secrets.
    pub file: &'a serde_json::Value,
    /// Why the results are not newer.
    pub alarm: Option<String>,
    /// The experiment that was asked for; all without.
    pub only: Option<&'a str>,
    /// The number of records that wait for the store.
    pub waiting: u64,
}

impl Page<'_> {
    /// Of a single experiment its verdict: it is what a tab in the background shows.
    fn title(&self) -> String {
        match self.experiments()[..] {
            [one] => format!("{}: {} - watershed", one.name, self.state(one)),
            _ => "watershed results".to_owned(),
        }
    }

    /// The experiments that are shown. Results of all may stand for those of one.
    fn experiments(&self) -> Vec<&ExperimentResult> {
        let experiments = self.results.experiments.iter();
        let is_shown = |it: &&ExperimentResult| self.shown.only.is_none_or(|name| it.name == name);
        experiments.filter(is_shown).collect()
    }

    fn state(&self, experiment: &ExperimentResult) -> String {
        narrative::state(experiment)
    }

    /// What is known while the store is away.
    fn waiting(&self) -> String {
        let waiting = match self.shown.waiting {
            0 => "Nothing is lost".to_owned(),
            1 => "1 record waits, and nothing is lost".to_owned(),
            many => format!("{} records wait, and nothing is lost", thousands(many)),
        };
        let at = self.results.generated_at.as_deref();
        let at = at.map_or(String::new(), |at| format!(" of {}", format::minute(at)));
        format!("{waiting}. These are the results{at}.")
    }

    /// A text as HTML. What stands between backticks is code.
    fn rich(&self, text: impl AsRef<str>) -> String {
        // Escaping a text cannot fail.
        let text = escape(text.as_ref(), Html).map_or(String::new(), |it| it.to_string());
        if text.matches('`').count() % 2 == 1 {
            return text;
        }
        let parts = text.split('`').enumerate();
        let html = parts.map(|(place, part)| match place % 2 {
            0 => part.to_owned(),
            _ => format!("<code>{part}</code>"),
        });
        html.collect()
    }

    fn list(&self) -> Option<ExperimentList<'_>> {
        let query = self.shown.list?;
        Some(ExperimentList::of(self.results, query))
    }

    fn scorecard(&self, experiment: &ExperimentResult) -> Scorecard {
        Scorecard::of(experiment)
    }

    /// The users of all groups, in a line.
    fn sizes(&self, experiment: &ExperimentResult) -> String {
        let groups = experiment.groups.iter();
        let sizes = groups.map(|group| {
            let users = thousands(group.users);
            format!("{} {users}", experiment.shown(&group.name))
        });
        format!("Users: {}", sizes.collect::<Vec<_>>().join(", "))
    }

    fn guardrails(&self, experiment: &ExperimentResult) -> Vec<GuardrailRow> {
        details::guardrails(experiment)
    }

    fn stages(&self, experiment: &ExperimentResult) -> Vec<StageRow> {
        details::stages(experiment)
    }

    fn settings(&self, experiment: &ExperimentResult) -> Vec<SettingRow> {
        details::settings(self.shown.file, experiment)
    }

    fn marks(&self, experiment: &ExperimentResult) -> Vec<ChangeMark> {
        changes::marks(experiment)
    }

    fn arrivals(&self, experiment: &ExperimentResult) -> Option<Arrivals> {
        changes::arrivals(experiment)
    }

    fn tip(&self, what: &str, experiment: &ExperimentResult) -> String {
        tips::tip(what, &experiment.name)
    }

    fn status(&self, experiment: &ExperimentResult) -> String {
        experiment.status.replace('_', " ")
    }

    fn process_problems(&self) -> Vec<String> {
        narrative::process_problems(self.results)
    }

    fn doubts(&self, experiment: &ExperimentResult) -> Vec<String> {
        narrative::doubts(self.results, experiment)
    }

    fn advice(&self, experiment: &ExperimentResult) -> String {
        advice::advice(experiment)
    }

    fn acts(&self, experiment: &ExperimentResult) -> Vec<Choice> {
        buttons::choices(self.viewer.may_operate, experiment)
    }

    fn facts(&self, experiment: &ExperimentResult) -> Vec<(&'static str, String)> {
        let mut facts = narrative::facts(self.results, experiment);
        let quality = facts
            .iter_mut()
            .find(|(label, _)| *label == narrative::DATA_QUALITY);
        if let (Some(quality), Some(_)) = (quality, &self.shown.alarm) {
            quality.1 = "not up to date".to_owned();
        }
        facts
    }

    fn about(&self, experiment: &ExperimentResult) -> Vec<(&'static str, String)> {
        lifecycle::about(experiment)
    }

    fn changed(&self, entry: &HistoryEntry) -> String {
        history::details(entry).join("\n")
    }

    fn past(&self, experiment: &ExperimentResult) -> Vec<String> {
        narrative::past(experiment)
    }

    fn planning(&self, experiment: &ExperimentResult) -> Option<String> {
        planning_text::planning(experiment)
    }

    fn health(&self, experiment: &ExperimentResult) -> Vec<(&'static str, String, bool)> {
        narrative::health(self.results, experiment)
    }

    fn rate(&self, metric: &MetricResult, group: &MetricGroup) -> String {
        match group.rate {
            Some(_) => metric_values::rate(metric, group),
            None => "–".to_owned(),
        }
    }

    fn lift(&self, group: &MetricGroup) -> String {
        match &*metric_values::lift(group) {
            "-" => "–".to_owned(),
            _ if group.users == 0 => "–".to_owned(),
            lift => self.typeset(lift),
        }
    }

    fn fixed(&self, group: &MetricGroup) -> String {
        self.typeset(&narrative::fixed(group.fixed.as_ref()))
    }

    /// With minus signs, which are read aloud, unlike hyphens.
    fn typeset(&self, numbers: &str) -> String {
        numbers.replace('-', "\u{2212}")
    }

    fn notes(&self, metric: &MetricResult) -> Vec<String> {
        narrative::notes(metric)
    }

    fn bayesian(&self, metric: &MetricResult) -> Vec<String> {
        narrative::bayesian(metric)
    }

    fn segments(&self, experiment: &ExperimentResult) -> Vec<SegmentRow> {
        segments::rows(experiment)
    }

    fn segments_note(&self) -> &'static str {
        segments::NOTE
    }

    fn segment_remarks(&self, experiment: &ExperimentResult) -> Vec<String> {
        segments::remarks(experiment)
    }

    fn mirrored(&self, mirror: &MirrorResult) -> Vec<String> {
        mirror::sentences(mirror)
    }

    fn mirrored_paths(&self, mirror: &MirrorResult) -> Vec<MirrorRow> {
        mirror::rows(mirror)
    }

    fn is_empty(&self, experiment: &ExperimentResult) -> bool {
        experiment.groups.iter().all(|group| group.users == 0)
    }

    fn chart(&self, experiment: &ExperimentResult, metric: &MetricResult) -> Option<Chart> {
        Chart::of(metric, Curve::Rate, &self.marks(experiment))
    }

    fn lift_chart(&self, experiment: &ExperimentResult, metric: &MetricResult) -> Option<Chart> {
        Chart::of(metric, Curve::Lift, &self.marks(experiment))
    }

    fn count(&self, count: &u64) -> String {
        thousands(*count)
    }

    fn sum(&self, sum: &f64) -> String {
        self.typeset(&format::sum(*sum))
    }

    fn errors(&self, group: &GroupResult) -> String {
        let failed = group.responses.get("5xx").copied().unwrap_or(0);
        format::part(failed, group.requests)
    }

    fn latency(&self, ms: &Option<f64>) -> String {
        format::latency(*ms)
    }

    fn second(&self, at: &str) -> String {
        format::second(at)
    }

    fn minute(&self, at: &str) -> String {
        format::minute(at)
    }
}

/// The page.
pub(crate) fn render(
    results: &Results,
    viewer: &Viewer<'_>,
    shown: &PageContent<'_>,
) -> Result<String, askama::Error> {
    let page = Page {
        results,
        viewer,
        shown,
    };
    page.render()
}
