//! `GET /admin/export/{experiment}`: streams a table of an experiment.

use crate::admin::export::rows::{ColumnNames, Table};
use crate::admin::export::sheet::{self, ExportLayout, Format};
use crate::admin::export::write;
use crate::admin::http::error::{Failure, Path, Query, Refused};
use crate::admin::state::AdminState;
use crate::config::declaration::declaration;
use crate::features::Feature;
use crate::store::phases;
use crate::tasks;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use serde::Deserialize;
use std::io::{self, Write};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::mpsc;
use utoipa::IntoParams;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportQuery {
    /// The table; `assignments` by default.
    #[param(inline)]
    table: Option<Table>,
    /// The format; `csv` by default.
    #[param(inline)]
    format: Option<Format>,
    /// Whether CSV contains texts unchanged, even if a spreadsheet would read them as formulas.
    #[serde(default)]
    raw: bool,
    /// How columns are named; `v2` by default. `v1` keeps the names of version 0.1 (`user`, `group`).
    #[param(inline)]
    columns: Option<ColumnNames>,
    /// The IANA time zone of times in CSV and JSON Lines, such as `Europe/Berlin`; UTC by default.
    #[param(nullable = false)]
    timezone: Option<String>,
}

/// Export users, their values or hourly totals of an experiment
///
/// If the export fails midway, the connection is closed before the end of the body.
#[utoipa::path(
    get,
    path = "/admin/export/{experiment}",
    operation_id = "export",
    tag = "results",
    params(("experiment" = String, Path, description = "The name of the experiment"), ExportQuery),
    responses(
        (
            status = 200,
            description = "The table",
            content(
                (String = "text/csv"),
                (String = "application/jsonl"),
                (Vec<u8> = "application/vnd.apache.parquet"),
            ),
            headers(("content-disposition" = String, description = "A file name")),
        ),
        (status = 400, description = "The table, format or time zone does not exist, or the program was built without the format", body = Refused),
        (status = 404, description = "The store has no data of this experiment", body = Refused),
        (status = 503, description = "The store is unavailable", body = Refused),
    )
)]
pub(crate) async fn export(
    State(state): State<AdminState>,
    Path(experiment): Path<String>,
    Query(query): Query<ExportQuery>,
) -> Result<Response, Failure> {
    let (table, format) = (
        query.table.unwrap_or(Table::Assignments),
        query.format.unwrap_or(Format::Csv),
    );
    if let Err(missing) = format.check(Feature::is_built) {
        let error = format!("{missing}; {}", missing.hint());
        return Err(Failure::new(StatusCode::BAD_REQUEST, error));
    }
    let zone = sheet::zone(query.timezone.as_deref().unwrap_or("UTC"));
    let zone = zone.map_err(|error| Failure::new(StatusCode::BAD_REQUEST, error))?;
    let declaration = declaration(&state.plan());
    let Some(key) = phases::named(&*state.store, &declaration, &experiment).await? else {
        let error = format!("the store has no data of an experiment {experiment:?}");
        return Err(Failure::new(StatusCode::NOT_FOUND, error));
    };
    let layout = ExportLayout {
        table,
        format,
        raw: query.raw,
        names: query.columns.unwrap_or_default(),
        zone,
    };
    let (bytes, stream) = mpsc::channel::<io::Result<Bytes>>(4);
    let (store, plan) = (Arc::clone(&state.store), state.plan());
    tasks::spawn("export", async move {
        let to = Pipe(bytes.clone());
        let writing = write(store, plan, key, layout, to, |_| ());
        let written = AssertUnwindSafe(writing).catch_unwind().await;
        let written = written.unwrap_or_else(|_| Err(io::Error::other("the export panicked")));
        if let Err(error) = written {
            // Closes the connection, so that the client does not take the body for a complete one.
            let _ = bytes.send(Err(error)).await;
        }
    });
    let body = stream::unfold(stream, async |mut stream| {
        Some((stream.recv().await?, stream))
    });
    let disposition = format!(
        "attachment; filename=\"{experiment}.{}\"",
        format.extension()
    );
    Ok((
        [
            (CACHE_CONTROL, "no-store".to_owned()),
            (CONTENT_TYPE, format.content_type().to_owned()),
            (CONTENT_DISPOSITION, disposition),
        ],
        Body::from_stream(body),
    )
        .into_response())
}

/// Writes to the body of a response, at the pace of the client.
struct Pipe(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        // The client has closed the connection.
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
