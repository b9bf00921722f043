//! The results as a page for a browser. The template escapes what it is given.

use super::plot::{Plot, ROW, WIDTH};
use super::said;
use super::shape::{
    ExperimentResult, GuardrailGroup, GuardrailResult, MetricGroup, MetricResult, PlanningResult,
    Results,
};
use super::text;
use askama::Template;

#[derive(Template)]
#[template(path = "results.html")]
struct Page<'a> {
    results: &'a Results,
}

impl Page<'_> {
    fn rate(&self, metric: &MetricResult, group: &MetricGroup) -> String {
        text::rate(metric, group)
    }

    fn lift(&self, group: &MetricGroup) -> String {
        text::lift(group)
    }

    fn alarms(&self, experiment: &ExperimentResult) -> Vec<String> {
        said::alarms(experiment)
    }

    fn planning(&self, planning: &PlanningResult) -> String {
        said::planning(planning)
    }

    fn bound(&self, guardrail: &GuardrailResult) -> String {
        said::bound(guardrail)
    }

    fn harm(&self, group: &GuardrailGroup) -> String {
        said::harm(group)
    }

    fn fixed(&self, group: &MetricGroup) -> String {
        said::fixed(group.fixed.as_ref())
    }

    fn bayesian(&self, metric: &MetricResult) -> Vec<String> {
        said::bayesian(metric)
    }

    fn plot(&self, metric: &MetricResult) -> Option<Plot> {
        Plot::of(metric)
    }

    fn milliseconds(&self, ms: &Option<f64>) -> String {
        ms.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"))
    }
}

/// The page.
pub fn render(results: &Results) -> Result<String, askama::Error> {
    Page { results }.render()
}
