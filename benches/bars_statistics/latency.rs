//! Quantiles of latencies, through the judge that gives verdicts.

use crate::dice::Dice;
use crate::report::{Effort, Report, gather, percent, within};
use crate::whole::{LOOKS, question_of};
use watershed_core::experiment::latency_bucket;
use watershed_core::stats::quantile::SampleCounts;
use watershed_core::stats::{Goal, Kind, Question, Role, Samples, Side, Totals, judge};

/// Users of both groups in all.
const USERS: u64 = 20_000;

/// How long responses take.
#[derive(Clone, Copy)]
enum Site {
    /// Log-normal around 100 ms, σ = 0.8.
    Plain,
    /// The same, but one in fifty takes ten times as long.
    Tail,
    /// Three in five come from a cache within 1 ms.
    Cache,
}

impl Site {
    fn latency_us(self, dice: &mut Dice, factor: f64) -> u64 {
        let plain = 100_000.0 * dice.log_normal(0.8);
        let us = match self {
            Site::Plain => plain,
            Site::Tail if dice.hits(0.02) => 10.0 * plain,
            Site::Tail => plain,
            Site::Cache if dice.hits(0.6) => 900.0,
            Site::Cache => plain,
        };
        (us * factor) as u64
    }
}

const SITES: [(Site, &str); 3] = [
    (Site::Plain, "log-normal"),
    (Site::Tail, "1 in 50 ten times as slow"),
    (Site::Cache, "3 in 5 from a cache"),
];

/// Whether a run ever shows the group to be slower or faster, and whether its interval ever misses.
fn run(mut dice: Dice, site: Site, share: f64, of_all: f64, factor: f64) -> (bool, bool) {
    let mut counts = [SampleCounts::new(), SampleCounts::new()];
    let (mut is_shown, mut is_missed) = (false, false);
    for look in 1..=LOOKS {
        let users = USERS * look / LOOKS - USERS * (look - 1) / LOOKS;
        for _ in 0..users {
            let own = dice.hits(share);
            let us = site.latency_us(&mut dice, if own { factor } else { 1.0 });
            *counts[usize::from(own)]
                .entry(latency_bucket::of(us))
                .or_default() += 1;
        }
        let question = question(&counts, share, of_all);
        let judged = judge(&question);
        let metric = &question.metrics[0];
        let group = &judged.metrics[0].groups[1];
        is_shown |= group
            .shown(metric)
            .is_some_and(|side| factor == 1.0 || side == Side::Worse);
        let interval = group.lift.unwrap_or_default().relative_interval;
        let lift = factor - 1.0;
        is_missed |= interval.low.is_some_and(|low| low > lift + 1e-9);
        is_missed |= interval.high.is_some_and(|high| high < lift - 1e-9);
    }
    (is_shown, is_missed)
}

fn question(counts: &[SampleCounts; 2], share: f64, of_all: f64) -> Question {
    let totals = [0, 1].map(|group| Totals {
        users: counts[group].values().sum(),
        ..Totals::default()
    });
    let mut question = question_of(Kind::Quantile, totals, share, 0.1);
    let metric = &mut question.metrics[0];
    (metric.goal, metric.role) = (Goal::Decrease, Role::Primary);
    metric.samples = Some(Samples {
        share: of_all,
        first: latency_bucket::FIRST_US / 1000.0,
        step: latency_bucket::step(),
        counts: vec![counts.to_vec()],
    });
    question
}

/// No effect is shown where there is none, and one of 20 % is found.
pub fn quantiles(report: &mut Report, effort: Effort) {
    let runs = effort.runs(1000, 16);
    report.section(
        "Part two, additional 10. Quantiles of latencies, one sample per user, 20,000 users in 30 looks",
        " latencies | quantile | share of the group | slower by | an effect shown | interval ever missing ",
    );
    let mut cell = 0;
    let (mut is_quiet, mut is_covered, mut is_found) = (true, true, true);
    for (site, name) in SITES {
        let all = [("p95", 0.95), ("p50", 0.5), ("p99", 0.99)];
        let asked = if effort.full || matches!(site, Site::Plain) {
            3
        } else {
            1
        };
        for (quantile, of_all) in all.into_iter().take(asked) {
            for (share, factor) in [(0.5, 1.0), (0.1, 1.0), (0.5, 1.2)] {
                cell += 1;
                let found = gather(runs, |number| {
                    run(
                        Dice::new("latency", cell, number),
                        site,
                        share,
                        of_all,
                        factor,
                    )
                });
                let shown = found.iter().filter(|(shown, _)| *shown).count();
                let missed = found.iter().filter(|(_, missed)| *missed).count();
                is_covered &= within(missed, runs, 0.05);
                if factor == 1.0 {
                    is_quiet &= within(shown, runs, 0.05);
                } else if quantile == "p95" && matches!(site, Site::Plain) {
                    is_found &= shown * 10 >= runs * 9;
                }
                report.row(&[
                    name.to_owned(),
                    quantile.to_owned(),
                    format!("{:.0} %", 100.0 * share),
                    format!("{:.0} %", 100.0 * (factor - 1.0)),
                    percent(shown, runs),
                    percent(missed, runs),
                ]);
            }
        }
    }
    report.bar(
        "without an effect, one is shown in at most 5 % and two standard errors",
        is_quiet,
    );
    report.bar(
        "intervals ever miss in at most 5 % and two standard errors",
        is_covered,
    );
    report.bar(
        "20 % in p95 of log-normal latencies is found by 20,000 users in 90 %",
        is_found,
    );
}
