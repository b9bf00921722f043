//! What was measured, against what was asked.

use std::fmt::Write;

/// How much is simulated.
#[derive(Clone, Copy)]
pub struct Effort {
    pub full: bool,
}

impl Effort {
    /// Runs of a cell: all of them, or a part that takes a minute for everything together.
    pub fn runs(self, all: usize, part: usize) -> usize {
        if self.full { all } else { part }
    }
}

#[derive(Default)]
pub struct Report {
    text: String,
    missed: Vec<String>,
}

impl Report {
    pub fn section(&mut self, title: &str, columns: &str) {
        let dashes = columns.split('|').map(|_| "---|").collect::<String>();
        let text = format!("\n## {title}\n\n|{columns}|\n|{dashes}\n");
        print!("{text}");
        self.text.push_str(&text);
    }

    pub fn row(&mut self, cells: &[String]) {
        let row = format!("| {} |\n", cells.join(" | "));
        print!("{row}");
        self.text.push_str(&row);
    }

    /// A bar: kept, or missed and remembered.
    pub fn bar(&mut self, what: &str, kept: bool) {
        let word = if kept { "met" } else { "**missed**" };
        let line = format!("\n{what}: {word}\n");
        print!("{line}");
        self.text.push_str(&line);
        if !kept {
            self.missed.push(what.to_owned());
        }
    }

    pub fn note(&mut self, text: &str) {
        println!("\n{text}");
        let _ = writeln!(self.text, "\n{text}");
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn missed(&self) -> &[String] {
        &self.missed
    }
}

pub fn percent(part: usize, all: usize) -> String {
    format!("{:.2} %", 100.0 * part as f64 / all as f64)
}

/// At most `rate` and two standard errors of it.
pub fn within(part: usize, all: usize, rate: f64) -> bool {
    let error = (rate * (1.0 - rate) / all as f64).sqrt();
    part as f64 / all as f64 <= rate + 2.0 * error + 1e-12
}

/// Counts the runs that hit, on two threads.
pub fn count(runs: usize, hit: impl Fn(usize) -> bool + Sync) -> usize {
    gather(runs, hit).into_iter().filter(|&hit| hit).count()
}

/// One answer for each run, in order.
pub fn gather<T: Send>(runs: usize, one: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let middle = runs / 2;
    std::thread::scope(|scope| {
        let one = &one;
        let rest = scope.spawn(move || (middle..runs).map(one).collect::<Vec<T>>());
        let mut all: Vec<T> = (0..middle).map(one).collect();
        all.extend(rest.join().expect("a simulation panicked"));
        all
    })
}

pub fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}
