//! `watershed export`: writes users, their values or hourly totals to a file.

use crate::admin::export::rows::Table;
use crate::admin::export::sheet::Format;
use crate::admin::export::write;
use crate::config;
use crate::config::declaration::declaration;
use crate::features::Feature;
use crate::server::{self, ErrorWithHint};
use crate::store::phases;
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeSet;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The arguments of `export`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The experiment [default: the only one]
    experiment: Option<String>,
    /// The table
    #[arg(long, value_enum, default_value = "assignments")]
    table: Table,
    /// The format
    #[arg(long, value_enum, default_value = "csv")]
    format: Format,
    /// Write exact texts into CSV, including those that a spreadsheet would run as formulas
    #[arg(long)]
    raw: bool,
    /// The file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The routes file, which names the store
    #[arg(short, long, value_name = "FILE", default_value = "config/routes.yaml")]
    config: PathBuf,
}

/// Writes the table. A file gets its name only once it is complete.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Err(missing) = arguments.format.check(Feature::is_built) {
        let text = format!("{missing}\n\nhint: {}\n", missing.hint());
        clap::Error::raw(clap::error::ErrorKind::InvalidValue, text).exit();
    }
    let plan = Arc::new(config::load(&arguments.config)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = server::open_store(&plan.store).await?;
        let declaration = declaration(&plan);
        let keys = store.experiments().await?;
        let names: BTreeSet<&str> = keys.iter().map(|key| phases::of_key(key).0).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let wanted = match (&arguments.experiment, &names[..]) {
            (Some(named), _) => Some(&**named),
            (None, [only]) => Some(*only),
            (None, _) => None,
        };
        let key = match wanted {
            Some(name) => phases::named(&*store, &declaration, name).await?,
            None => None,
        };
        let experiment = match (key, &names[..]) {
            (Some(key), _) => key,
            (_, known) => {
                let hint = match known {
                    [] => "the store has no records yet".to_owned(),
                    known => format!("name one of: {}", known.join(", ")),
                };
                let what = match &arguments.experiment {
                    Some(named) => format!("the store has no experiment {named:?}"),
                    None => "the store has several experiments".to_owned(),
                };
                return Err(ErrorWithHint::new(what, hint).into());
            }
        };
        let totals = store.totals(&experiment).await?;
        let groups = totals.epochs.iter().flat_map(|epoch| epoch.groups.values());
        let bar = bar(arguments.table, groups.map(|group| group.users).sum());
        let shown = bar.clone();
        let told = move |rows: usize| shown.inc(rows as u64);
        let how = (arguments.table, arguments.format, arguments.raw);
        let counted = Arc::clone(&store);
        let written = match &arguments.output {
            None => {
                let to = BufWriter::new(std::io::stdout());
                write(store, plan, experiment, how, to, told)
                    .await
                    .context("the export broke off")
            }
            Some(path) => {
                let folder = path.parent().filter(|folder| *folder != Path::new(""));
                let file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
                    .with_context(|| format!("cannot write beside {}", path.display()))?;
                let to = BufWriter::new(file.reopen()?);
                write(store, plan, experiment, how, to, told)
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
        written
    })
}

/// Shows progress on standard error, if that is a terminal.
fn bar(table: Table, users: u64) -> ProgressBar {
    let style = "{bar:40} {human_pos} of {human_len} users, {eta} left";
    match (table, ProgressStyle::with_template(style)) {
        (Table::Assignments, Ok(style)) => ProgressBar::new(users).with_style(style),
        _ => ProgressBar::new_spinner().with_message("exporting"),
    }
}
