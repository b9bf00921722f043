//! Bars 4 and 5: sample ratio and guardrails. Bar 6: the judgement as a whole.

use crate::dice::Dice;
use crate::report::{Effort, Report, count, gather, median, percent};
use watershed_core::stats::guardrail::{Data, ln_e};
use watershed_core::stats::logistic::Term;
use watershed_core::stats::srm::sample_ratio;
use watershed_core::stats::{
    Epoch, Goal, GroupInput, History, Kind, MetricInput, Question, Role, Totals, judge,
};

fn sizes_alarm(users: [u64; 2]) -> bool {
    let epoch = Epoch {
        shares: vec![0.5, 0.5],
        users: users.to_vec(),
    };
    sample_ratio(&[epoch], None).mismatch
}

pub fn sample_ratios(report: &mut Report, effort: Effort) {
    let runs = effort.runs(4000, 400);
    report.section(
        "4. Sample ratio at α = 0.1 %, looks every 100",
        " true shares | alarms to 100,000 | median users to the alarm ",
    );
    let run = |mut dice: Dice, share: f64, looks: u64| {
        let mut users = [0, 0];
        (1..=looks)
            .find(|_| {
                let own = dice.binomial(100, share);
                users = [users[0] + 100 - own, users[1] + own];
                sizes_alarm(users)
            })
            .map(|look| 100 * look)
    };
    let alarms = count(runs, |place| {
        run(Dice::new("sizes", 0, place), 0.5, 1000).is_some()
    });
    report.row(&["50/50".to_owned(), percent(alarms, runs), "–".to_owned()]);
    let mut found = 0;
    for (cell, (share, name)) in [(0.49, "51/49"), (0.495, "50.5/49.5"), (0.45, "55/45")]
        .into_iter()
        .enumerate()
    {
        let some = effort.runs(1000, 60);
        let when = gather(some, |place| {
            run(Dice::new("sizes", cell + 1, place), share, 20_000).unwrap_or(u64::MAX)
        });
        let middle = median(when);
        report.row(&[name.to_owned(), "–".to_owned(), middle.to_string()]);
        if cell == 0 {
            found = middle;
        }
    }
    report.bar(
        "at most 0.3 % false alarms",
        alarms as f64 <= 0.003 * runs as f64,
    );
    report.bar(
        "51/49 found by a median of at most 60,000 users",
        found <= 60_000,
    );
}

/// Bad events of control and of the group, at α = 1 %, nothing tolerated.
fn harm(counts: [u64; 2], share: f64) -> bool {
    let terms = [Term {
        share,
        control: counts[0] as f64,
        own: counts[1] as f64,
    }];
    ln_e(&Data::Users(&terms), 0.0) >= 100.0_f64.ln()
}

pub fn guardrails(report: &mut Report, effort: Effort) {
    let runs = effort.runs(2000, 200);
    report.section(
        "5. Guardrail at α = 1 %, users with an error",
        " share of B | rate of control | errors of B | rolled back within 600 looks of 100 users | median users of B until then ",
    );
    let mut worst = 0;
    for (cell, (share, rate)) in [
        (0.1, 0.005),
        (0.5, 0.005),
        (0.01, 0.005),
        (0.1, 0.05),
        (0.5, 0.05),
    ]
    .into_iter()
    .enumerate()
    {
        let hits = count(runs, |run| {
            let mut dice = Dice::new("harm", cell, run);
            let mut bad = [0, 0];
            (0..600).any(|_| {
                let own = dice.binomial(100, share);
                let more = [dice.binomial(100 - own, rate), dice.binomial(own, rate)];
                bad = [bad[0] + more[0], bad[1] + more[1]];
                more != [0, 0] && harm(bad, share)
            })
        });
        worst = worst.max(hits);
        report.row(&[
            share.to_string(),
            rate.to_string(),
            "1×".to_owned(),
            percent(hits, runs),
            "–".to_owned(),
        ]);
    }
    let mut medians = Vec::new();
    for (cell, times) in [2.0, 5.0, 20.0].into_iter().enumerate() {
        let when = gather(runs, |run| {
            let mut dice = Dice::new("harm found", cell, run);
            let (mut bad, mut seen) = ([0, 0], 0);
            for _ in 0..200_000 {
                let own = dice.hits(0.1);
                seen += u64::from(own);
                let rate = if own { 0.005 * times } else { 0.005 };
                if dice.hits(rate) {
                    bad[usize::from(own)] += 1;
                    if harm(bad, 0.1) {
                        return seen;
                    }
                }
            }
            u64::MAX
        });
        let middle = median(when);
        medians.push(middle);
        report.row(&[
            "0.1".to_owned(),
            "0.005".to_owned(),
            format!("{times}×"),
            "–".to_owned(),
            middle.to_string(),
        ]);
    }
    report.bar(
        "at most 1.5 % false alarms",
        worst as f64 <= 0.015 * runs as f64,
    );
    report.bar(
        "5× found by a median of at most 600 users of B",
        medians[1] <= 600,
    );
    report.bar(
        "20× found by a median of at most 120 users of B",
        medians[2] <= 120,
    );
}

/// Whole judgements: the same question twice, and history kept over a restart at every look.
pub fn whole(report: &mut Report, effort: Effort) {
    let runs = effort.runs(200, 20);
    let sound = count(runs, |run| {
        let mut dice = Dice::new("whole", 0, run);
        let mut users = [0, 0];
        let mut converted = [0, 0];
        let mut previous = History::default();
        (0..100).all(|look| {
            let own = dice.binomial(500, 0.5);
            users = [users[0] + 500 - own, users[1] + own];
            converted[0] += dice.binomial(500 - own, 0.05);
            converted[1] += dice.binomial(own, 0.06);
            let question = question(users, converted, previous, look);
            let judged = judge(&question);
            // As a restart would: only what was kept is given back.
            let lowest = |history: History| history.lowest.map_or(1.0, |lowest| lowest.p);
            let now = judged.metrics[0].groups[1].history;
            let falls = lowest(now) <= lowest(previous);
            previous = now;
            falls && judged == judge(&question.clone())
        })
    });
    report.section(
        "6. Whole judgements",
        " runs | same answer, and the lowest p never rose ",
    );
    report.row(&[runs.to_string(), sound.to_string()]);
    report.bar(
        "the same question has the same answer, and the lowest p never rises",
        sound == runs,
    );
}

fn question(users: [u64; 2], converted: [u64; 2], previous: History, look: u64) -> Question {
    let totals = |group: usize| Totals {
        users: users[group],
        converted: converted[group],
        ..Totals::default()
    };
    let group = |name: &str, is_control| GroupInput {
        name: name.to_owned(),
        is_control,
    };
    Question {
        groups: vec![group("control", true), group("experiment", false)],
        epochs: vec![Epoch {
            shares: vec![0.5, 0.5],
            users: users.to_vec(),
        }],
        metrics: vec![MetricInput {
            name: "purchase".to_owned(),
            kind: Kind::Conversion,
            goal: Goal::Increase,
            role: Role::Primary,
            baseline: None,
            detect: 0.1,
            margin: 0.01,
            scale: 0,
            totals: vec![vec![totals(0), totals(1)]],
            samples: None,
            history: vec![History::default(), previous],
        }],
        started_at_ms: Some(0),
        now_ms: look * 3_600_000,
        ..Question::default()
    }
}
