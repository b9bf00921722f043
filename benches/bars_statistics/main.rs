//! Simulates experiments through the project's own statistics and holds what it measures against
//! the bars. Without arguments a part is run, in a minute or two, with fixed seeds: the same code
//! measures the same figures. `--full` runs everything and writes docs/statistics-bars.md.
//! `--fresh` draws new seeds, and `--seed N` repeats them. `--only WORD` runs the sections whose name
//! holds the word, and writes nothing.

#![allow(unreachable_pub, reason = "everything in a bench is for this bench")]

mod alarms;
mod covariate;
mod decisions;
mod dice;
mod engines;
mod grid;
mod latency;
mod planned;
mod report;
mod traffic;
mod whole;

use report::{Effort, Report, within};
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let value = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1).cloned()
    };
    let effort = Effort {
        full: has("--full"),
    };
    let seed = value("--seed").map(|seed| seed.parse().expect("--seed is a number"));
    let seed = seed.or(has("--fresh").then(|| fastrand::u64(..)));
    if let Some(seed) = seed {
        println!("seed {seed}");
    }
    dice::seed(seed.unwrap_or(0));
    let only = value("--only");
    let wants = |name: &str| only.as_ref().is_none_or(|only| name.contains(only));
    let mut report = Report::default();
    let mut cells = Vec::new();
    let of_cells: [(&str, OfCells); 5] = [
        ("grid", grid::false_positives),
        ("delayed", grid::delayed),
        ("revenue", traffic::revenue),
        ("ramp", traffic::ramp),
        ("bandit", traffic::bandit),
    ];
    for (name, section) in of_cells.iter().filter(|(name, _)| wants(name)) {
        timed(name, || cells.extend(section(&mut report, effort)));
    }
    if !cells.is_empty() {
        verdict_bar(&mut report, &cells);
    }
    let sections: [(&str, Section); 15] = [
        ("coverage", grid::coverage),
        ("power", grid::power),
        ("sizes", alarms::sample_ratios),
        ("guardrails", alarms::guardrails),
        ("whole", alarms::whole),
        ("present", whole::present_evidence),
        ("rates", whole::any_rate),
        ("endings", decisions::endings),
        ("harmless", decisions::harmless),
        ("rare buyers", decisions::rare_buyers),
        ("at stopping", decisions::at_stopping),
        ("several", decisions::several),
        ("planned end", planned::planned_end),
        ("latency", latency::quantiles),
        ("covariate", covariate::covariates),
    ];
    // What they cost in CI is not measured yet.
    let is_late = |name: &str| ["latency", "covariate"].contains(&name);
    let runs = |name: &str| effort.full || only.is_some() || !is_late(name);
    for (name, section) in sections
        .iter()
        .filter(|(name, _)| wants(name) && runs(name))
    {
        timed(name, || section(&mut report, effort));
    }
    if effort.full && only.is_none() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/statistics-bars.md");
        let seed = seed.map_or("Seeds are fixed".to_owned(), |seed| {
            format!("Seeds were drawn afresh; `--seed {seed}` repeats them")
        });
        let text = format!("{HEAD}{seed}.\n{}", report.text());
        std::fs::write(path, text).expect("docs/statistics-bars.md can be written");
        println!("\nwritten to {path}");
    }
    if !report.missed().is_empty() {
        eprintln!("error: bars missed: {}", report.missed().join("; "));
        std::process::exit(1);
    }
}

/// Runs a section, and prints how long it took.
fn timed(name: &str, section: impl FnOnce()) {
    let start = Instant::now();
    section();
    eprintln!("section {name}: {:.1} s", start.elapsed().as_secs_f64());
}

/// Names of cells, with hits and runs.
type Cells = Vec<(String, usize, usize)>;
type OfCells = fn(&mut Report, Effort) -> Cells;
type Section = fn(&mut Report, Effort);

/// Every cell at most 5 % and two standard errors; all cells together at most 5 %.
fn verdict_bar(report: &mut Report, cells: &[(String, usize, usize)]) {
    let share = |(_, hits, runs): &(String, usize, usize)| *hits as f64 / *runs as f64;
    let broken: Vec<&str> = cells
        .iter()
        .filter(|(_, hits, runs)| !within(*hits, *runs, 0.05))
        .map(|(name, ..)| name.as_str())
        .collect();
    let mean = cells.iter().map(share).sum::<f64>() / cells.len() as f64;
    let worst = cells.iter().max_by(|a, b| share(a).total_cmp(&share(b)));
    if let Some(worst) = worst {
        report.note(&format!(
            "Worst of {} cells: {:.2} % ({}). Mean of all cells: {:.2} %.",
            cells.len(),
            100.0 * share(worst),
            worst.0,
            100.0 * mean
        ));
    }
    report.bar(
        &format!("every cell at most 5 % and two standard errors {broken:?}"),
        broken.is_empty(),
    );
    report.bar("the mean of all cells at most 5 %", mean <= 0.05);
}

const HEAD: &str = "# What the statistics were measured to do

Written by `scripts/bars-statistics --full`: simulated experiments, judged by the functions that
judge yours. A false positive is a run in which there is no effect and *any* look says that there is one, at
α = 5 %. Engine C is the exact conversions-only mixture, engine L the log-lift on the information clock,
and a verdict rests on the mean of both (docs/statistics.md); all are planned for a lift of 10 % unless
said otherwise. N is the number of users of a test that is looked at once and finds the planned lift with
a chance of 80 %. Sections of part two go through whole judgements. Standard error at 5 % and 2,000 runs:
0.49 points; at 1,000 runs 0.69.
";
