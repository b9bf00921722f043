//! What remains of an exchange when it ends: the counts, a line of the access log, and spans.

use crate::experiment::ExperimentIndex;
use crate::proxy::exchange::Exchange;
use crate::proxy::observe::access_log;
use crate::proxy::observe::logged_request::bounded;
use crate::proxy::observe::progress::Summary;
use crate::proxy::observe::spans::SpanRecorder;

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.progress.count(&self.snapshot);
        if let Some(mirrored) = self.mirrored.get() {
            mirrored.end(self.progress.is_complete());
        }
        let Some(extras) = &mut self.extras else {
            return;
        };
        let spans = extras.spans.take();
        if extras.logged.is_none() && spans.is_none() {
            return;
        }
        let summary = self.progress.summary();
        access_log::log(self, &summary);
        if let Some(spans) = spans {
            export(self, spans, &summary);
        }
    }
}

/// Gives the spans to the exporter.
fn export(exchange: &Exchange<'_>, mut spans: Box<SpanRecorder>, summary: &Summary) {
    let snapshot = &exchange.snapshot;
    let plan = &*snapshot.plan;
    let deciding = exchange.assignment.deciding();
    let group = deciding.map(|inside| {
        let experiment = plan.experiment(inside.experiment);
        let group = &experiment.groups[inside.group.0].name;
        (experiment.name.to_string(), group.to_string())
    });
    let inside = exchange.assignment.inside.iter();
    let groups = inside.map(|inside| {
        let words = &snapshot.plan_headers;
        bounded(words.group(inside.experiment, inside.group).as_bytes())
    });
    let groups = groups.collect::<Vec<_>>().join(",");
    let request = &mut spans.exchange;
    request.experiments = Some(bounded(groups.as_bytes())).filter(|groups| !groups.is_empty());
    request.group = group;
    request.assigned_by = deciding.map(|inside| inside.by.word());
    request.took = summary.took;
    request.status = summary.status;
    request.error = summary.error.map(str::to_owned);
    request.end = summary.end.word();
    let name = |experiment: ExperimentIndex| plan.experiment(experiment).name.to_string();
    request.fallback = summary.fallback.map(name);
    let upstream = summary
        .upstream
        .map(|it| plan.upstream(it).name.to_string());
    request.upstream = upstream;
    spans.give();
}
