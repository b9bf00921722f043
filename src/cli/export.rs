//! `watershed export`: writes users, their values or hourly totals to a file.

use super::config_file::ConfigFile;
use super::exit_with::ExitWith;
use super::output::Output;
use crate::admin::export::rows::{ColumnNames, Table};
use crate::admin::export::sheet::{self, ExportLayout, Format};
use crate::admin::export::write;
use crate::config::declaration::declaration;
use crate::config::plan::Plan;
use crate::features::Feature;
use crate::server::{self, ErrorWithHint};
use crate::store::{Store, phases};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::tz::TimeZone;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The arguments of `export`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The experiment [default: the only one]
    experiment: Option<String>,
    /// The table
    #[arg(long, value_enum, default_value = "assignments")]
    table: Table,
    /// The format; with --json and without --output, rows are a JSON list
    #[arg(long, value_enum, default_value = "csv")]
    format: Format,
    /// Write exact texts into CSV, including those that a spreadsheet would run as formulas
    #[arg(long)]
    raw: bool,
    /// How columns are named: v1 as in version 0.1 (`user` and `group`)
    #[arg(long, value_enum, default_value = "v2")]
    columns: ColumnNames,
    /// The time zone of times in CSV and JSON Lines, such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC", value_parser = sheet::zone)]
    timezone: TimeZone,
    /// The file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
}

/// Writes the table. A file gets its name only once it is complete.
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    if let Err(missing) = arguments.format.check(Feature::is_built) {
        // The format is an argument.
        return Err(ExitWith {
            code: 2,
            message: format!("{missing}\n\nhint: {}", missing.hint()),
            details: json!({}),
        }
        .into());
    }
    let plan = Arc::new(arguments.file.load()?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = server::open_store(&plan.store).await?;
        let experiment = key_of(&*store, &plan, arguments.experiment.as_deref()).await?;
        let totals = store.totals(&experiment).await?;
        let groups = totals.epochs.iter().flat_map(|epoch| epoch.groups.values());
        let bar = bar(arguments.table, groups.map(|group| group.users).sum());
        let shown = bar.clone();
        let layout = ExportLayout {
            table: arguments.table,
            format: arguments.format,
            raw: arguments.raw,
            names: arguments.columns,
            zone: arguments.timezone.clone(),
        };
        let rows = Arc::new(AtomicU64::new(0));
        let sum = Arc::clone(&rows);
        let told = move |rows: usize| {
            sum.fetch_add(rows as u64, Ordering::Relaxed);
            shown.inc(rows as u64);
        };
        let counted = Arc::clone(&store);
        let written = match &arguments.output {
            None if output.is_json() => print_list(store, plan, experiment, layout, told).await,
            None => {
                let to = BufWriter::new(std::io::stdout());
                write(store, plan, experiment, layout, to, told)
                    .await
                    .context("the export broke off")
            }
            Some(path) => {
                let folder = path.parent().filter(|folder| *folder != Path::new(""));
                let file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
                    .with_context(|| format!("cannot write beside {}", path.display()))?;
                let to = BufWriter::new(file.reopen()?);
                write(store, plan, experiment, layout, to, told)
                    .await
                    .context("the export broke off; no file was written")?;
                file.persist(path)
                    .map(drop)
                    .with_context(|| format!("cannot write {}", path.display()))
            }
        };
        bar.finish_and_clear();
        let damaged = counted.damaged_records();
        if damaged > 0 {
            eprintln!("warning: {damaged} records of the store are damaged and left out");
        }
        written?;
        if let (Some(path), true) = (&arguments.output, output.is_json()) {
            let rows = rows.load(Ordering::Relaxed);
            let document = || json!({ "file": path, "rows": rows, "damaged_records": damaged });
            output.print(String::new, document)?;
        }
        Ok(())
    })
}

/// Prints the rows as one list. Nothing is printed before all of them are known: an error is a document of
/// its own.
async fn print_list(
    store: Arc<dyn Store>,
    plan: Arc<Plan>,
    experiment: String,
    layout: ExportLayout,
    told: impl Fn(usize) + Send + 'static,
) -> anyhow::Result<()> {
    let mut file = tempfile::tempfile().context("cannot write a temporary file")?;
    let to = BufWriter::new(file.try_clone()?);
    let layout = ExportLayout {
        format: Format::Jsonl,
        ..layout
    };
    let written = write(store, plan, experiment, layout, to, told).await;
    written.context("the export broke off")?;
    file.rewind()?;
    let mut out = std::io::stdout().lock();
    let mut separator = "[\n";
    for line in BufReader::new(file).lines() {
        write!(out, "{separator}{}", line?)?;
        separator = ",\n";
    }
    let is_empty = separator == "[\n";
    out.write_all(if is_empty { b"[]\n" } else { b"\n]\n" })?;
    Ok(out.flush()?)
}

/// Returns the key in the store of the experiment with this name, or of the only one.
async fn key_of(store: &dyn Store, plan: &Plan, name: Option<&str>) -> anyhow::Result<String> {
    let keys = store.experiments().await?;
    let known: BTreeSet<&str> = keys.iter().map(|key| phases::of_key(key).0).collect();
    let known: Vec<&str> = known.into_iter().collect();
    let wanted = match (name, &known[..]) {
        (None, [only]) => Some(*only),
        (name, _) => name,
    };
    if let Some(wanted) = wanted
        && let Some(key) = phases::named(store, &declaration(plan), wanted).await?
    {
        return Ok(key);
    }
    let hint = match &known[..] {
        [] => "the store has no records yet".to_owned(),
        known => format!("name one of: {}", known.join(", ")),
    };
    let what = match name {
        Some(name) => format!("the store has no experiment {name:?}"),
        None => "the store has several experiments".to_owned(),
    };
    Err(ErrorWithHint::new(what, hint).into())
}

/// Shows progress on standard error, if that is a terminal.
fn bar(table: Table, users: u64) -> ProgressBar {
    let style = "{bar:40} {human_pos} of {human_len} users, {eta} left";
    match (table, ProgressStyle::with_template(style)) {
        (Table::Assignments, Ok(style)) => ProgressBar::new(users).with_style(style),
        _ => ProgressBar::new_spinner().with_message("exporting"),
    }
}
