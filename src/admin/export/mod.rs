//! Exports users, their values and hourly totals for other analysis tools. Rows are read from the
//! store page by page, so that memory does not grow with the number of users.

#[cfg(feature = "parquet")]
mod parquet_sheet;
pub(crate) mod rows;
pub(crate) mod sheet;

use crate::config::plan::Plan;
use crate::store::{Store, StoreError};
use crate::tasks;
use rows::ExportRow;
use sheet::{ExportLayout, Sheet};
use std::io::{self, Write};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Writes a table of an experiment to `to`. Calls `on_page` with the number of rows of each page.
pub(crate) async fn write<W: Write + Send + 'static>(
    store: Arc<dyn Store>,
    plan: Arc<Plan>,
    experiment: String,
    layout: ExportLayout,
    to: W,
    on_page: impl Fn(usize) + Send + 'static,
) -> io::Result<()> {
    let (pages, received) = mpsc::channel(4);
    let table = layout.table;
    let reading = async move { rows::read(&*store, &plan, &experiment, table, &pages).await };
    let writing = tokio::task::spawn_blocking(move || {
        let sheet = Sheet::begin(layout, to)?;
        fill(sheet, received, on_page)
    });
    let ((), written) = tokio::join!(reading, writing);
    written.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
}

fn fill(
    mut sheet: Sheet<impl Write + Send>,
    mut pages: mpsc::Receiver<Result<Vec<ExportRow>, StoreError>>,
    on_page: impl Fn(usize),
) -> io::Result<()> {
    while let Some(page) = pages.blocking_recv() {
        tasks::failpoint("export-page");
        let rows = page.map_err(|error| io::Error::other(crate::store::chain(&error)))?;
        on_page(rows.len());
        sheet.add(rows)?;
    }
    sheet.end()
}
