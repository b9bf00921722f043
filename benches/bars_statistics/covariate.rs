//! Adjustment by what users did before their exposure, through the judge that gives verdicts.

use crate::dice::Dice;
use crate::engines::DETECT;
use crate::report::{Effort, Report, gather, percent, within};
use crate::whole::question_of;
use watershed_core::stats::{Kind, Side, Totals, judge};

/// Users of both groups to which a run goes: about three times those of the fixed test.
const USERS: u64 = 24_000;
/// How often they are looked at.
const LOOKS: u64 = 60;
/// The correlation of a known user's value with the value from before.
const CORRELATION: f64 = 0.6;

/// What one run found: with the covariate, and without.
struct Run {
    /// Users until the difference was first shown; all of them where it never was.
    users: [u64; 2],
    is_shown: [bool; 2],
    is_missed: bool,
}

/// Half of all users are known. Values spread widely: their standard deviation is 1.5 times the mean.
fn add_user(dice: &mut Dice, totals: &mut [Totals; 2], share: f64, lift: f64) {
    let group = usize::from(dice.hits(share));
    let (before, own) = (dice.normal(), dice.normal());
    let is_known = dice.hits(0.5);
    let along = CORRELATION * before + (1.0 - CORRELATION * CORRELATION).sqrt() * own;
    let factor = if group == 1 { 1.0 + lift } else { 1.0 };
    let value = ((1000.0 + 1500.0 * along) * factor) as i128;
    let of = &mut totals[group];
    of.users += 1;
    of.converted += 1;
    of.sum += value;
    of.sum_sq += value * value;
    if is_known {
        let before = (1000.0 + 1500.0 * before) as i128;
        of.known += 1;
        of.known_sum += value;
        of.before += before;
        of.before_sq += before * before;
        of.before_cross += before * value;
    }
}

fn run(mut dice: Dice, share: f64, lift: f64) -> Run {
    let mut totals = [Totals::default(); 2];
    let mut run = Run {
        users: [USERS; 2],
        is_shown: [false; 2],
        is_missed: false,
    };
    for look in 1..=LOOKS {
        for _ in 0..USERS / LOOKS {
            add_user(&mut dice, &mut totals, share, lift);
        }
        let without = totals.map(|totals| Totals { known: 0, ..totals });
        for (place, totals) in [totals, without].into_iter().enumerate() {
            let question = question_of(Kind::Mean, totals, share, DETECT);
            let judged = judge(&question);
            let group = &judged.metrics[0].groups[1];
            let side = group.shown(&question.metrics[0]);
            if place == 0 {
                let interval = group.lift.unwrap_or_default().relative_interval;
                run.is_missed |= interval.low.is_some_and(|low| low > lift);
                run.is_missed |= interval.high.is_some_and(|high| high < lift);
            }
            let is_found = side.is_some_and(|side| lift == 0.0 || side == Side::Better);
            if is_found && !run.is_shown[place] {
                run.is_shown[place] = true;
                run.users[place] = USERS * look / LOOKS;
            }
        }
    }
    run
}

/// A covariate with a correlation of 0.6 for half of the users.
pub fn covariates(report: &mut Report, effort: Effort) {
    let runs = effort.runs(1000, 60);
    report.section(
        "Part two, additional 9. A covariate that goes along with the values of half of the users (0.6), 60 looks to 24,000 users",
        " share of the group | lift | an effect shown | without the covariate | interval ever missing | users needed, of those without ",
    );
    let (mut is_quiet, mut is_covered, mut is_faster) = (true, true, true);
    for (cell, (share, lift)) in [(0.5, 0.0), (0.1, 0.0), (0.5, DETECT)]
        .into_iter()
        .enumerate()
    {
        let found = gather(runs, |number| {
            run(Dice::new("covariate", cell, number), share, lift)
        });
        let shown = [0, 1].map(|place| found.iter().filter(|run| run.is_shown[place]).count());
        let missed = found.iter().filter(|run| run.is_missed).count();
        let users = [0, 1].map(|place| found.iter().map(|run| run.users[place]).sum::<u64>());
        let ratio = users[0] as f64 / users[1] as f64;
        is_covered &= within(missed, runs, 0.05);
        if lift == 0.0 {
            is_quiet &= within(shown[0], runs, 0.05);
        } else {
            is_faster &= ratio <= 0.85;
        }
        report.row(&[
            format!("{:.0} %", 100.0 * share),
            format!("{:.0} %", 100.0 * lift),
            percent(shown[0], runs),
            percent(shown[1], runs),
            percent(missed, runs),
            if lift == 0.0 {
                "-".to_owned()
            } else {
                format!("{ratio:.2}")
            },
        ]);
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
        "the planned lift needs at most 0.85 of the users that it needs without the covariate",
        is_faster,
    );
}
