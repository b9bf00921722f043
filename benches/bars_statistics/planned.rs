//! Bars of part two, item 8: experiments with a planned end.

use crate::dice::Dice;
use crate::engines::DETECT;
use crate::report::{Effort, Report, gather, percent, within};
use crate::whole::{fixed_users, question_of};
use watershed_core::stats::{
    ANALYSES, EndAfter, Judgement, Kind, PlannedEnd, Question, State, Totals, judge,
};

/// How a run with a planned end went.
struct Ended {
    state: State,
    /// Users until then, of the planned number.
    progress: f64,
}

/// Plays to the planned end, analyzed twice as often as the plan has analyses, and gives each analysis
/// back to the next one.
fn run(users: f64, mut question_at: impl FnMut(u64) -> Question) -> Ended {
    let looks = u64::from(2 * ANALYSES);
    let mut made = Vec::new();
    for look in 1..=looks {
        let until = (users * look as f64 / looks as f64).ceil() as u64;
        let mut question = question_at(until);
        question.horizon = Some(PlannedEnd {
            at: EndAfter::Users(users as u64),
            wait_ms: 0,
            made: std::mem::take(&mut made),
        });
        let Judgement {
            verdict, metrics, ..
        } = judge(&question);
        made = metrics[0]
            .groups
            .iter()
            .map(|it| it.analyses.clone())
            .collect();
        let is_word = matches!(
            verdict.state,
            State::Winner | State::Loser | State::Inconclusive
        );
        if is_word {
            return Ended {
                state: verdict.state,
                progress: look as f64 / looks as f64,
            };
        }
    }
    Ended {
        state: State::Collecting,
        progress: 1.0,
    }
}

fn conversions(bar: (&str, usize, usize), users: f64, share: f64, rates: [f64; 2]) -> Ended {
    let mut dice = Dice::new(bar.0, bar.1, bar.2);
    let mut totals = [Totals::default(); 2];
    run(users, |until| {
        let more = until - totals[0].users - totals[1].users;
        let own = dice.binomial(more, share);
        for (group, came) in [more - own, own].into_iter().enumerate() {
            totals[group].users += came;
            totals[group].converted += dice.binomial(came, rates[group]);
        }
        question_of(Kind::Conversion, totals, share, DETECT)
    })
}

/// Size, power and length with a planned end.
pub fn planned_end(report: &mut Report, effort: Effort) {
    let runs = effort.runs(2000, 100);
    report.section(
        "Part two, 8. A planned end: O'Brien-Fleming spending over 30 analyses, rate 5 %",
        " planned users, of N | true lift | winner | loser | mean users, of N ",
    );
    let n = fixed_users(0.05, DETECT, 0.5);
    let mut size = true;
    for (cell, (times, lift)) in [(1.08, 0.0), (1.08, DETECT), (1.37, DETECT)]
        .into_iter()
        .enumerate()
    {
        let ends = gather(runs, |run| {
            let rates = [0.05, 0.05 * (1.0 + lift)];
            conversions(("planned end", cell, run), times * n, 0.5, rates)
        });
        let of = |state: State| ends.iter().filter(|end| end.state == state).count();
        let (won, lost) = (of(State::Winner), of(State::Loser));
        let mean = times * ends.iter().map(|end| end.progress).sum::<f64>() / runs as f64;
        report.row(&[
            format!("{times}"),
            format!("{:.0} %", 100.0 * lift),
            percent(won, runs),
            percent(lost, runs),
            format!("{mean:.2}"),
        ]);
        match cell {
            0 => size &= within(won + lost, runs, 0.05) && won + lost > 0,
            1 => report.bar(
                "80 % power with at most 1.08 N users, by a mean of at most 0.85 N",
                within(runs - won, runs, 0.2) && mean <= 0.85,
            ),
            _ => report.bar(
                "89 % power with at most 1.37 N users, by a mean of at most 0.95 N",
                within(runs - won, runs, 0.11) && mean <= 0.95,
            ),
        }
    }
    for (cell, (rate, share)) in [(0.5, 0.5), (0.05, 0.1), (0.02, 0.01)]
        .into_iter()
        .enumerate()
    {
        let ends = gather(runs, |run| {
            conversions(("planned A/A", cell, run), n, share, [rate, rate])
        });
        let shown = ends
            .iter()
            .filter(|it| matches!(it.state, State::Winner | State::Loser));
        let hits = shown.count();
        size &= within(hits, runs, 0.05);
        let name = format!("1 (rate {rate}, share of B {share})");
        report.row(&[
            name,
            "0 %".to_owned(),
            percent(hits, runs),
            "-".to_owned(),
            "-".to_owned(),
        ]);
    }
    let ends = gather(runs, |at| {
        let mut dice = Dice::new("planned revenue", 0, at);
        let mut totals = [Totals::default(); 2];
        run(30_000.0, |until| {
            while totals[0].users + totals[1].users < until {
                let of = &mut totals[usize::from(dice.hits(0.1))];
                of.users += 1;
                if dice.hits(0.05) {
                    let spent = dice.cents();
                    of.converted += 1;
                    of.sum += spent;
                    of.sum_sq += spent * spent;
                }
            }
            question_of(Kind::Mean, totals, 0.1, DETECT)
        })
    });
    let shown = ends
        .iter()
        .filter(|it| matches!(it.state, State::Winner | State::Loser));
    let hits = shown.count();
    size &= within(hits, runs, 0.05);
    let name = "revenue, 30,000 users, share of B 0.1".to_owned();
    report.row(&[
        name,
        "0 %".to_owned(),
        percent(hits, runs),
        "-".to_owned(),
        "-".to_owned(),
    ]);
    report.bar(
        "winner or loser without an effect: at most 5 % and two standard errors in every cell",
        size,
    );
}
