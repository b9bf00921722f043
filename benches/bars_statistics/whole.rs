//! Bars of part two, through the judge that gives verdicts.

use crate::dice::Dice;
use crate::engines::{Counts, DETECT};
use crate::report::{Effort, Report, gather, percent, within};
use watershed_core::stats::planning::{SampleSizePlan, sample_size};
use watershed_core::stats::{
    Epoch, Goal, GroupInput, History, Judgement, Kind, MetricInput, Question, Role, State, Totals,
    judge,
};

/// Looks of most runs.
pub const LOOKS: u64 = 30;

/// Two groups and these totals of one metric; the shortest duration is over.
pub fn question_of(kind: Kind, totals: [Totals; 2], share: f64, detect: f64) -> Question {
    let group = |name: &str, is_control| GroupInput {
        name: name.to_owned(),
        is_control,
    };
    Question {
        groups: vec![group("control", true), group("experiment", false)],
        epochs: vec![Epoch {
            shares: vec![1.0 - share, share],
            users: totals.map(|totals| totals.users).to_vec(),
        }],
        metrics: vec![MetricInput {
            name: "purchase".to_owned(),
            kind,
            goal: Goal::Increase,
            role: Role::Primary,
            baseline: None,
            detect,
            margin: 0.01,
            scale: 0,
            totals: vec![totals.to_vec()],
            samples: None,
            history: Vec::new(),
        }],
        started_at_ms: Some(0),
        now_ms: 7 * 24 * 3_600_000,
        ..Question::default()
    }
}

/// The same of a share of users.
pub fn question(counts: &Counts, share: f64, detect: f64) -> Question {
    let totals = [0, 1].map(|group| Totals {
        users: counts.n[group],
        converted: counts.x[group],
        ..Totals::default()
    });
    question_of(Kind::Conversion, totals, share, detect)
}

/// Adds users at these rates of control and of the group.
fn add(dice: &mut Dice, counts: &mut Counts, users: u64, share: f64, rates: [f64; 2]) {
    let own = dice.binomial(users, share);
    for (group, came) in [users - own, own].into_iter().enumerate() {
        counts.n[group] += came;
        counts.x[group] += dice.binomial(came, rates[group]);
    }
}

/// Users of both groups that the fixed test needs.
pub fn fixed_users(rate: f64, detect: f64, share: f64) -> f64 {
    let ratio = share / (1.0 - share);
    let size = sample_size(&SampleSizePlan {
        share: rate,
        lift: detect,
        alpha: 0.05,
        power: 0.8,
        ratio,
    });
    size.unpooled * (1.0 + ratio)
}

/// Runs to `users` in so many looks, of a share and a planned lift; what `ends` says ends it, with the users until then.
pub fn play(
    mut dice: Dice,
    (users, looks): (f64, u64),
    (share, detect): (f64, f64),
    rates: impl Fn(u64) -> [f64; 2],
    mut ends: impl FnMut(&Counts, &Judgement) -> bool,
) -> Option<u64> {
    let (mut counts, mut history) = (Counts::default(), History::default());
    for look in 1..=looks {
        let until = (users * look as f64 / looks as f64) as u64;
        let more = until - counts.n[0] - counts.n[1];
        add(&mut dice, &mut counts, more, share, rates(look));
        let mut question = question(&counts, share, detect);
        question.metrics[0].history = vec![History::default(), history];
        let judged = judge(&question);
        if ends(&counts, &judged) {
            return Some(until);
        }
        history = judged.metrics[0].groups[1].history;
    }
    None
}

/// What was once shown decides nothing: a version that lost and was repaired is no winner, and a
/// novelty that wore off neither. The evidence of the first days must be gone for that.
pub fn present_evidence(report: &mut Report, effort: Effort) {
    let runs = effort.runs(500, 100);
    report.section(
        "Part two, 1. What was shown at first and is not true any more, to 3 N",
        " first 2 of 30 days | then | winner after them without evidence (z < 1.96) | winner at all ",
    );
    let mut kept = true;
    for (cell, (first, then)) in [(0.7, 1.05), (1.4, 0.97)].into_iter().enumerate() {
        let found = gather(runs, |run| {
            let dice = Dice::new("present", cell, run);
            let rates = |look| [0.05, 0.05 * if look <= 2 { first } else { then }];
            let users = 3.0 * fixed_users(0.05, DETECT, 0.5);
            let (mut look, mut unfounded, mut won) = (0, false, false);
            play(
                dice,
                (users, LOOKS),
                (0.5, DETECT),
                rates,
                |counts, judged| {
                    look += 1;
                    let is_winner = look > 2 && judged.verdict.state == State::Winner;
                    unfounded |= is_winner && z(counts) < 1.96;
                    won |= is_winner;
                    false
                },
            );
            (unfounded, won)
        });
        let unfounded = found.iter().filter(|(unfounded, _)| *unfounded).count();
        let won = found.iter().filter(|(_, won)| *won).count();
        kept &= unfounded as f64 <= 0.03 * runs as f64;
        let change = |factor: f64| format!("{:+.0} %", 100.0 * (factor - 1.0));
        let (first, then) = (change(first), change(then));
        report.row(&[first, then, percent(unfounded, runs), percent(won, runs)]);
    }
    report.bar("no winner without present evidence: at most 3 %", kept);
}

/// The fixed test's statistic of the counts of now.
fn z(counts: &Counts) -> f64 {
    let share = |group: usize| counts.x[group] as f64 / counts.n[group] as f64;
    let variance = |group: usize| share(group) * (1.0 - share(group)) / counts.n[group] as f64;
    (share(1) - share(0)) / (variance(0) + variance(1)).sqrt()
}

/// Nothing is chosen: one judge for every rate, and large effects found at small sites.
pub fn any_rate(report: &mut Report, effort: Effort) {
    let runs = effort.runs(1000, 60);
    report.section(
        "Part two, 5 and 6. One judge for every rate",
        " rate | planned lift | true lift | winner by 2 N | mean users, of the fixed test's | wrong side at stopping ",
    );
    let (mut power, mut large, mut wrong_max) = (true, true, 0.0_f64);
    let cells = [
        (0.5, 0.05, 1.0),
        (0.95, 0.01, 1.0),
        (0.05, 0.1, 1.0),
        (0.05, 0.1, 4.0),
        (0.002, 0.1, 4.0),
        (0.05, 0.1, 0.0),
        (0.5, 0.05, 0.0),
        (0.95, 0.01, 0.0),
    ];
    for (cell, (rate, detect, times)) in cells.into_iter().enumerate() {
        let users = fixed_users(rate, detect, 0.5);
        // What is found soon is looked at more often.
        let (until, looks) = match times > 1.0 {
            true => (0.25 * users, 150),
            false => (2.0 * users, LOOKS),
        };
        let lifted = rate * (1.0 + times * detect);
        let ends = gather(runs, |run| {
            let mut wrong = false;
            let end = play(
                Dice::new("any rate", cell, run),
                (until, looks),
                (0.5, detect),
                |_| [rate, lifted],
                |_, judged| {
                    let state = judged.verdict.state;
                    wrong = state == State::Loser || times == 0.0 && state == State::Winner;
                    matches!(state, State::Winner | State::Loser)
                },
            );
            (end, wrong)
        });
        let found = ends
            .iter()
            .filter(|(end, wrong)| end.is_some() && !wrong)
            .count();
        let wrong = ends.iter().filter(|(_, wrong)| *wrong).count();
        let spent = ends
            .iter()
            .map(|(end, _)| end.map_or(until, |end| end as f64));
        let mean = spent.sum::<f64>() / runs as f64 / users;
        if times == 1.0 {
            power &= within(runs - found, runs, 0.2);
        }
        if times > 1.0 {
            large &= mean <= 0.1;
        }
        if times == 0.0 {
            wrong_max = wrong_max.max(wrong as f64 / runs as f64);
        }
        report.row(&[
            rate.to_string(),
            format!("{:.0} %", 100.0 * detect),
            format!("{times}×"),
            percent(found, runs),
            format!("{mean:.3}"),
            percent(wrong, runs),
        ]);
    }
    report.bar(
        "at least 80 % power at 2 N at every rate, no baseline",
        power,
    );
    report.bar(
        "4 × the planned lift found by a mean of at most 0.10 N",
        large,
    );
    report.bar(
        "winner or loser without an effect: at most 5 % and two standard errors",
        within((wrong_max * runs as f64).round() as usize, runs, 0.05),
    );
}
