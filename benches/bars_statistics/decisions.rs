//! Bars of part two, through the judge that gives verdicts: ends without an effect, harm, and values
//! of which few are large.

use crate::dice::Dice;
use crate::engines::DETECT;
use crate::report::{Effort, Report, gather, percent, within};
use crate::whole::{LOOKS, fixed_users, play, question_of};
use watershed_core::stats::{
    Finding, Goal, GroupInput, Kind, Question, Role, State, Totals, judge,
};

/// Experiments end: without the planned lift soon, and seldom where it is there.
pub fn endings(report: &mut Report, effort: Effort) {
    let runs = effort.runs(1000, 100);
    report.section(
        "Part two, 4. Experiments end, rate 5 %, at most 2 N",
        " true lift | winner | no planned lift | loser | an end by 1.1 N | mean users, of N ",
    );
    let users = fixed_users(0.05, DETECT, 0.5);
    for (cell, times) in [0.0, 0.5, 1.0, 1.5].into_iter().enumerate() {
        let ends = gather(runs, |run| {
            let mut state = State::Collecting;
            let end = play(
                Dice::new("endings", cell, run),
                (2.0 * users, 2 * LOOKS),
                (0.5, DETECT),
                |_| [0.05, 0.05 * (1.0 + times * DETECT)],
                |_, judged| {
                    state = judged.verdict.state;
                    state != State::Collecting
                },
            );
            (state, end)
        });
        let of = |state: State| ends.iter().filter(|(it, _)| *it == state).count();
        let soon = ends
            .iter()
            .filter(|(_, end)| end.is_some_and(|end| end as f64 <= 1.1 * users))
            .count();
        let spent = ends
            .iter()
            .map(|(_, end)| end.map_or(2.0 * users, |end| end as f64));
        let (winner, hopeless) = (of(State::Winner), of(State::NoPlannedLift));
        report.row(&[
            format!("{times}×"),
            percent(winner, runs),
            percent(hopeless, runs),
            percent(of(State::Loser), runs),
            percent(soon, runs),
            format!("{:.2}", spent.sum::<f64>() / runs as f64 / users),
        ]);
        if times == 0.0 {
            report.bar(
                "no effect: a final word by 1.1 N in at least 70 %",
                within(runs - soon, runs, 0.3),
            );
        }
        if times == 1.0 {
            report.bar(
                "no planned lift where it is there: at most 10 %",
                within(hopeless, runs, 0.1),
            );
        }
    }
}

/// Guardrails where both groups have as many bad answers, the hard stop among them.
pub fn harmless(report: &mut Report, effort: Effort) {
    let runs = effort.runs(1000, 100);
    report.section(
        "Part two, 2. Guardrails where both groups are alike, looks every 25 to 3,000",
        " share of B | harmed | breached ",
    );
    let mut kept = true;
    for (place, share) in [0.5, 0.1].into_iter().enumerate() {
        for (row, rate) in [0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.49]
            .into_iter()
            .enumerate()
        {
            let hits = harmed(runs, ("harmless", 10 * place + row), share, [rate, rate]);
            let hits = hits.iter().flatten().count();
            kept &= within(hits, runs, 0.01);
            report.row(&[share.to_string(), rate.to_string(), percent(hits, runs)]);
        }
    }
    report.bar("at most 1 % and two standard errors", kept);
    let found = harmed(runs, ("dead", 0), 0.5, [0.01, 1.0]);
    let mut found: Vec<u64> = found
        .into_iter()
        .map(|end| end.unwrap_or(u64::MAX))
        .collect();
    found.sort_unstable();
    report.bar(
        &format!(
            "a dead group found by a median of {} users",
            found[runs / 2]
        ),
        found[runs / 2] <= 120,
    );
}

/// For each run, the users until a guardrail was breached.
fn harmed(
    runs: usize,
    (bar, cell): (&str, usize),
    share: f64,
    rates: [f64; 2],
) -> Vec<Option<u64>> {
    gather(runs, |run| {
        let mut dice = Dice::new(bar, cell, run);
        let mut totals = [Totals::default(); 2];
        (1..=120).map(|look| look * 25).find(|_| {
            let own = dice.binomial(25, share);
            for (group, came) in [25 - own, own].into_iter().enumerate() {
                totals[group].users += came;
                totals[group].converted += dice.binomial(came, rates[group]);
            }
            let mut question = question_of(Kind::Conversion, totals, share, DETECT);
            question.metrics[0].goal = Goal::Decrease;
            question.metrics[0].role = Role::Guardrail { max_increase: 0.0 };
            let judged = judge(&question);
            judged.metrics[0].groups[1]
                .guardrail
                .is_some_and(|guardrail| guardrail.breached)
        })
    })
}

/// How much a buyer spends, in cents.
type Purse = fn(&mut Dice, usize) -> i64;

fn whale(dice: &mut Dice, one_in: f64, times: f64) -> i64 {
    let factor = if dice.hits(1.0 / one_in) { times } else { 1.0 };
    (2000.0 * dice.log_normal(1.0) * factor).round() as i64
}

/// How purchases are drawn, in cents, how much of a user's sum counts, and the shares of B.
struct Buyers {
    name: &'static str,
    purse: Purse,
    cap: Option<i64>,
    shares: [f64; 2],
}

const BUYERS: [Buyers; 6] = [
    Buyers {
        name: "1 in 200 × 100",
        purse: |dice, _| whale(dice, 200.0, 100.0),
        cap: None,
        shares: [0.1, 0.01],
    },
    Buyers {
        name: "1 in 1000 × 300",
        purse: |dice, _| whale(dice, 1000.0, 300.0),
        cap: None,
        shares: [0.1, 0.01],
    },
    Buyers {
        name: "Pareto 1.5",
        purse: |dice, _| (2000.0 * (1.0 - dice.share()).powf(-1.0 / 1.5)).round() as i64,
        cap: None,
        shares: [0.1, 0.01],
    },
    // Equal means, unequal spreads.
    Buyers {
        name: "σ 1 and 1.6",
        purse: |dice, group| {
            let sigma: f64 = if group == 0 { 1.0 } else { 1.6 };
            let mean = (0.5 * sigma * sigma).exp();
            (2000.0 * dice.log_normal(sigma) / mean).round() as i64
        },
        cap: None,
        shares: [0.5, 0.1],
    },
    Buyers {
        name: "1 in 200 × 100, cap 200",
        purse: |dice, _| whale(dice, 200.0, 100.0),
        cap: Some(20_000),
        shares: [0.1, 0.01],
    },
    Buyers {
        name: "1 in 1000 × 300, cap 200",
        purse: |dice, _| whale(dice, 1000.0, 300.0),
        cap: Some(20_000),
        shares: [0.1, 0.01],
    },
];

impl Buyers {
    /// The verdict that ends a run of at most 60,000 users, of whom 5 % buy for `lift` more with B.
    fn run(&self, mut dice: Dice, share: f64, lift: f64) -> Option<State> {
        const USERS: usize = 60_000;
        let mut totals = [Totals::default(); 2];
        (0..LOOKS).find_map(|_| {
            for _ in 0..USERS / LOOKS as usize {
                let group = usize::from(dice.hits(share));
                totals[group].users += 1;
                if dice.hits(0.05) {
                    let factor = if group == 1 { 1.0 + lift } else { 1.0 };
                    let sum = ((self.purse)(&mut dice, group) as f64 * factor) as i64;
                    let counted = self.cap.map_or(sum, |cap| sum.clamp(-cap, cap));
                    let counted = i128::from(counted);
                    totals[group].converted += 1;
                    totals[group].sum += counted;
                    totals[group].sum_sq += counted * counted;
                }
            }
            let state = judge(&question_of(Kind::Mean, totals, share, DETECT))
                .verdict
                .state;
            matches!(state, State::Winner | State::Loser).then_some(state)
        })
    }
}

/// Revenue where few buyers are large: no difference, and what a cap finds of one.
pub fn rare_buyers(report: &mut Report, effort: Effort) {
    let runs = effort.runs(1000, 100);
    report.section(
        "Part two, 3. Revenue per user with rare large buyers, 5 % buy, no effect, to 60,000 users",
        " purchases | share of B | winner or loser ",
    );
    let mut kept = true;
    for (place, buyers) in BUYERS.iter().enumerate() {
        for (row, share) in buyers.shares.into_iter().enumerate() {
            let hits = gather(runs, |run| {
                buyers.run(Dice::new("rare buyers", 10 * place + row, run), share, 0.0)
            });
            let hits = hits.into_iter().flatten().count();
            kept &= within(hits, runs, 0.05);
            report.row(&[
                buyers.name.to_owned(),
                share.to_string(),
                percent(hits, runs),
            ]);
        }
    }
    report.bar("every cell at most 5 % and two standard errors", kept);
    report.section(
        "Part two, 3. The same with 40 % more spent with B, 50/50",
        " purchases | winner ",
    );
    let won = |place: usize| {
        let ends = gather(runs, |run| {
            BUYERS[place].run(Dice::new("large buyers", place, run), 0.5, 0.4)
        });
        let won = ends.into_iter().flatten();
        won.filter(|state| *state == State::Winner).count()
    };
    let (all, capped) = (won(0), won(4));
    for (place, won) in [(0, all), (4, capped)] {
        report.row(&[BUYERS[place].name.to_owned(), percent(won, runs)]);
    }
    report.bar(
        "a cap finds the difference where few buyers hide it: at least 80 %, and twice as often",
        within(runs - capped, runs, 0.2) && capped >= 2 * all,
    );
}

/// What is read off at stopping, against the truth.
pub fn at_stopping(report: &mut Report, effort: Effort) {
    let runs = effort.runs(1000, 100);
    report.section(
        "Part two, 13. The lift at stopping as a winner, of the true one; planned lift 10 %, rate 5 %",
        " true lift | mean of the lift | mean of the shrunken lift ",
    );
    let users = fixed_users(0.05, DETECT, 0.5);
    for (cell, times) in [0.5, 1.0, 2.0, 4.0].into_iter().enumerate() {
        let found = gather(runs, |run| {
            let mut lift = None;
            play(
                Dice::new("at stopping", cell, run),
                (2.0 * users, 4 * LOOKS),
                (0.5, DETECT),
                |_| [0.05, 0.05 * (1.0 + times * DETECT)],
                |_, judged| {
                    let found = judged.metrics[0].groups[1].lift.unwrap_or_default();
                    lift = found
                        .relative
                        .zip(found.shrunken)
                        .filter(|_| judged.verdict.state == State::Winner);
                    judged.verdict.state != State::Collecting
                },
            );
            lift
        });
        let found: Vec<(f64, f64)> = found.into_iter().flatten().collect();
        let mean = |of: fn(&(f64, f64)) -> f64| {
            let sum: f64 = found.iter().map(of).sum();
            sum / found.len() as f64 / (times * DETECT)
        };
        let (raw, shrunken) = (mean(|it| it.0), mean(|it| it.1));
        report.row(&[
            format!("{times}×"),
            format!("{raw:.2} ×"),
            format!("{shrunken:.2} ×"),
        ]);
        if times == 1.0 {
            report.bar(
                "the shrunken lift is nearer to the planned one",
                (shrunken - 1.0).abs() < (raw - 1.0).abs() && (0.85..1.15).contains(&shrunken),
            );
        }
    }
}

/// Of several better groups the best one, or those from which it cannot be told.
pub fn several(report: &mut Report, effort: Effort) {
    let runs = effort.runs(500, 60);
    report.section(
        "Part two, 12. Control and four groups with lifts of 8, 10, 12 and 14 %, rate 10 %, 60,000 users each",
        " a winner | not the best | and not named as tied ",
    );
    const LIFTS: [f64; 5] = [0.0, 0.08, 0.1, 0.12, 0.14];
    let ends = gather(runs, |run| {
        let mut dice = Dice::new("several", 0, run);
        let mut totals = [Totals::default(); 5];
        (0..LOOKS).find_map(|_| {
            for (of, lift) in totals.iter_mut().zip(LIFTS) {
                of.users += 2000;
                of.converted += dice.binomial(2000, 0.1 * (1.0 + lift));
            }
            let question = of_groups(&totals);
            let verdict = judge(&question).verdict;
            let group = verdict.group.filter(|_| verdict.state == State::Winner)?;
            let is_tied = matches!(&verdict.finding, Finding::Effect { tied } if !tied.is_empty());
            Some((group, is_tied))
        })
    });
    let won = ends.iter().flatten().count();
    let not_best = ends.iter().flatten().filter(|(group, _)| *group != 4);
    let unnamed = not_best.clone().filter(|(_, is_tied)| !is_tied).count();
    report.row(&[
        percent(won, runs),
        percent(not_best.count(), runs),
        percent(unnamed, runs),
    ]);
    report.bar(
        "a winner that is not the best and not tied: at most 5 %",
        within(unnamed, runs, 0.05),
    );
}

/// Groups of equal weights, the first one control.
fn of_groups(totals: &[Totals; 5]) -> Question {
    let pair = [totals[0], totals[1]];
    let mut question = question_of(Kind::Conversion, pair, 0.5, DETECT);
    question.groups = (0..totals.len())
        .map(|place| GroupInput {
            name: format!("g{place}"),
            is_control: place == 0,
        })
        .collect();
    question.epochs[0].shares = vec![0.2; 5];
    question.epochs[0].users = totals.iter().map(|totals| totals.users).collect();
    question.metrics[0].totals = vec![totals.to_vec()];
    question
}
