//! `watershed simulate`: simulates the file's experiments with and without an effect. Shows how often
//! their verdicts are wrong, and how long they take.

mod play;

use super::config_file::ConfigFile;
use super::output::Output;
use crate::admin::results::sample_size::usual_users;
use crate::config::plan::Plan;
use crate::experiment::{Experiment, Horizon};
use crate::server::ErrorWithHint;
use crate::stats::State;
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use indicatif::{ProgressBar, ProgressStyle};
use play::{End, Game, impossible_lift, play};
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};

/// The arguments of `simulate`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// The number of runs of each experiment without an effect, and with one
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// The seed: the same seed gives the same result
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// The share of users with an event of a metric, such as 5%
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = share)]
    rate: f64,
    /// Total users per run [default: those of the horizon, or else twice the fixed-horizon sample size]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    users: Option<u64>,
    /// The number of analyses of each run
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    looks: u64,
    /// New users per day, to show the duration in days
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    users_per_day: Option<u64>,
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').map(str::trim_end);
    let share = number.and_then(|number| number.parse::<f64>().ok());
    share
        .map(|percent| percent / 100.0)
        .filter(|share| *share > 0.0 && *share < 1.0)
        .ok_or_else(|| "a percentage above 0% and below 100%, with its sign".to_owned())
}

/// Runs the simulation, and prints its result.
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let plan = arguments.file.load()?;
    let running = || plan.experiments.iter().filter(|own| own.winner.is_none());
    let playable: Vec<(&Experiment, u64)> = running()
        .filter_map(|experiment| {
            let usual = usual_users(&plan, experiment, arguments.rate)?;
            let planned = match (experiment.horizon, arguments.users_per_day) {
                (Some(Horizon::Users(users)), _) => users,
                (Some(Horizon::Time(ms)), Some(per_day)) => {
                    (per_day as f64 * ms as f64 / 86_400_000.0).ceil() as u64
                }
                (Some(Horizon::Time(_)) | None, _) => usual,
            };
            Some((experiment, arguments.users.unwrap_or(planned)))
        })
        .collect();
    if playable.is_empty() {
        return Err(ErrorWithHint::new(
            "the file has no running experiment that a metric of events judges",
            "write `metrics:`, such as `purchase: POST /checkout -> 2xx`",
        )
        .into());
    }
    let experiments = playable.iter().map(|(experiment, _)| *experiment);
    let mut impossible = experiments.filter_map(|it| impossible_lift(&plan, it, arguments.rate));
    if let Some(fault) = impossible.next() {
        return Err(fault.into());
    }
    let bar = progress(playable.len() as u64 * 2 * arguments.runs)?;
    let mut answers = Vec::new();
    for (experiment, users) in playable {
        for with_effect in [false, true] {
            let game = Game {
                plan: &plan,
                experiment,
                rate: arguments.rate,
                with_effect,
                users,
                looks: arguments.looks,
                seed: arguments.seed,
            };
            let ends = all_runs(&game, arguments.runs, &bar);
            answers.push(Answer::of(&plan, &game, &ends, arguments));
        }
    }
    bar.finish_and_clear();
    if output.is_json() {
        println!("{}", serde_json::to_string_pretty(&answers)?);
    } else {
        print!("{}", table(&answers, arguments));
    }
    Ok(())
}

/// Shows progress on standard error, if that is a terminal.
fn progress(runs: u64) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template(
        "{msg} [{bar:40}] {human_pos}/{human_len} {per_sec}, {eta} left",
    )?;
    let bar = ProgressBar::new(runs).with_style(style.progress_chars("=> "));
    Ok(bar.with_message("runs"))
}

/// Runs all simulations in parallel. Returns their results in order.
fn all_runs(game: &Game<'_>, runs: u64, bar: &ProgressBar) -> Vec<End> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let mut ends: Vec<(u64, End)> = std::thread::scope(|scope| {
        let one = || {
            let mut ends = Vec::new();
            loop {
                let run = next.fetch_add(1, Ordering::Relaxed);
                if run >= runs {
                    return ends;
                }
                ends.push((run, play(game, run)));
                bar.inc(1);
            }
        };
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(one)).collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(ends) => ends,
            Err(panicked) => std::panic::resume_unwind(panicked),
        });
        joined.flatten().collect()
    });
    ends.sort_by_key(|(run, _)| *run);
    ends.into_iter().map(|(_, end)| end).collect()
}

/// The result of all runs of one simulation. Shares are of runs, 0 to 1.
#[derive(Debug, Serialize)]
struct Answer {
    experiment: String,
    metric: String,
    /// The simulated lift: 0, or the planned one.
    lift: f64,
    rate: f64,
    runs: u64,
    looks: u64,
    users: u64,
    winner: f64,
    loser: f64,
    no_difference: f64,
    no_planned_lift: f64,
    inconclusive: f64,
    invalid: f64,
    no_verdict: f64,
    /// Wrong verdicts.
    wrong: f64,
    /// The standard error of `wrong`.
    wrong_error: f64,
    /// The median of runs with a verdict.
    median_users: Option<u64>,
    median_days: Option<f64>,
}

impl Answer {
    fn of(plan: &Plan, game: &Game<'_>, ends: &[End], arguments: &Arguments) -> Answer {
        let experiment = game.experiment;
        // Only experiments with a metric are simulated.
        let metric = plan.metric(experiment.metrics[0]);
        let runs = ends.len() as f64;
        let share = |is: &dyn Fn(State) -> bool| {
            ends.iter().filter(|end| is(end.state)).count() as f64 / runs
        };
        let wrong = share(&|state| match state {
            State::Loser | State::Invalid => true,
            State::Winner => !game.with_effect,
            State::NoDifference | State::NoPlannedLift => game.with_effect,
            State::Collecting | State::Inconclusive => false,
        });
        let decided = ends.iter().filter(|end| end.state != State::Collecting);
        let mut users: Vec<u64> = decided.map(|end| end.users).collect();
        users.sort_unstable();
        let median_users = users.get(users.len() / 2).copied();
        let shortest = experiment.min_duration_ms as f64 / 86_400_000.0;
        let days = |per_day: u64| Some((median_users? as f64 / per_day as f64).max(shortest));
        Answer {
            experiment: experiment.name.to_string(),
            metric: metric.name.to_string(),
            lift: if game.with_effect { metric.detect } else { 0.0 },
            rate: game.rate,
            runs: ends.len() as u64,
            looks: game.looks,
            users: game.users,
            winner: share(&|state| state == State::Winner),
            loser: share(&|state| state == State::Loser),
            no_difference: share(&|state| state == State::NoDifference),
            no_planned_lift: share(&|state| state == State::NoPlannedLift),
            inconclusive: share(&|state| state == State::Inconclusive),
            invalid: share(&|state| state == State::Invalid),
            no_verdict: share(&|state| state == State::Collecting),
            wrong,
            wrong_error: (wrong * (1.0 - wrong) / runs).sqrt(),
            median_users,
            median_days: arguments.users_per_day.and_then(days),
        }
    }
}

fn table(answers: &[Answer], arguments: &Arguments) -> String {
    let mut table = Table::new();
    // No lines between columns, and headers in two lines, to fit into 80 characters.
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─')));
    let mut head = vec![
        "experiment",
        "metric",
        "true lift",
        "winner",
        "loser",
        "no\ndiff.",
        "no pl.\nlift",
        "invalid",
        "no\nverdict",
        "wrong",
        "median\nusers",
    ];
    if arguments.users_per_day.is_some() {
        head.push("median\ndays");
    }
    table.set_header(head);
    for answer in answers {
        table.add_row(row(answer, arguments.users_per_day.is_some()));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    let table = lines.collect::<Vec<_>>().join("\n");
    let first = &answers[0];
    let users: Vec<String> = answers
        .iter()
        .step_by(2)
        .map(|answer| format!("{} for {}", answer.users, answer.experiment))
        .collect();
    format!(
        "{table}\n{} runs each, analyzed {} times, with at most {} users; {:.1} % of users have an event.\n\
         Without an effect, at most 5 % may be wrong (and 1 % by guardrails, if the file has some); a run ends with its first verdict.\n",
        first.runs,
        first.looks,
        users.join(", "),
        100.0 * first.rate
    )
}

fn row(answer: &Answer, with_days: bool) -> Vec<String> {
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    let wrong = format!(
        "{}±{:.1}",
        percent(answer.wrong),
        100.0 * answer.wrong_error
    );
    let mut row = vec![
        answer.experiment.clone(),
        answer.metric.clone(),
        percent(answer.lift),
        percent(answer.winner),
        percent(answer.loser),
        percent(answer.no_difference),
        percent(answer.no_planned_lift),
        percent(answer.invalid),
        percent(answer.no_verdict),
        wrong,
        answer
            .median_users
            .map_or("-".to_owned(), |users| users.to_string()),
    ];
    if with_days {
        row.push(
            answer
                .median_days
                .map_or("-".to_owned(), |days| format!("{days:.1}")),
        );
    }
    row
}
