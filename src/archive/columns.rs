//! Rows as columns of Arrow.

use super::tables::{RecordTable, VALUE_PRECISION, VALUE_SCALE};
use crate::experiment::record::Served;
use crate::experiment::user_id::readable;
use crate::journal::rows::{EventRow, ExposureRow, JournaledRecord, TIME_MAX_MS, served};
use arrow_array::{
    ArrayRef, BooleanArray, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow_schema::ArrowError;
use std::sync::Arc;

/// The rows of exposures.
pub(super) fn exposures(rows: &[ExposureRow<'_>]) -> Result<RecordBatch, ArrowError> {
    let all = || rows.iter();
    // The user of such a record means nothing.
    let is_somebody =
        |row: &&ExposureRow<'_>| !matches!(row.exposure.served, Served::NotCounted(_));
    let user = |row| Some(row).filter(is_somebody).map(|row| row.of.user());
    let epoch = |row: &ExposureRow<'_>| row.exposure.epoch.unwrap_or(row.experiment.epoch);
    let columns: Vec<ArrayRef> = vec![
        times(all().map(|row| row.of.record.at_ms)),
        texts(all().map(user)),
        texts(all().map(|row| Some(&*row.experiment.name))),
        texts(all().map(|row| Some(row.group()))),
        ints(all().map(|row| Some(row.phase as i32))),
        texts(all().map(|row| Some(served(row.exposure).0))),
        texts(all().map(|row| served(row.exposure).1)),
        ints(all().map(|row| Some(row.of.record.status.into()))),
        longs(all().map(|row| Some(row.of.record.latency_us as i64))),
        texts(all().map(|row| Some(&*row.of.record.segments))),
        texts(all().map(|row| Some(epoch(row).to_string()))),
    ];
    table(
        RecordTable::Exposures,
        columns,
        rows.iter().map(|row| row.of),
    )
}

/// The rows of events.
pub(super) fn events(rows: &[EventRow<'_>]) -> Result<RecordBatch, ArrowError> {
    let all = || rows.iter();
    let columns: Vec<ArrayRef> = vec![
        times(all().map(EventRow::at_ms)),
        times(all().map(|row| row.of.record.at_ms)),
        texts(all().map(|row| Some(row.of.user()))),
        texts(all().map(|row| Some(&*row.metric.name))),
        values(all().map(value))?,
        longs(all().map(|row| Some(row.observation.count.into()))),
        longs(all().map(|row| Some(row.observation.base))),
        texts(all().map(|row| Some(event_id(row)))),
        ints(all().map(|row| Some(row.of.record.status.into()))),
        longs(all().map(|row| Some(row.of.record.latency_us as i64))),
        ints(all().map(|row| Some(row.ordinal as i32))),
    ];
    table(RecordTable::Events, columns, rows.iter().map(|row| row.of))
}

/// The rows of identities.
pub(super) fn identities(rows: &[JournaledRecord<'_>]) -> Result<RecordBatch, ArrowError> {
    let all = || rows.iter();
    let columns: Vec<ArrayRef> = vec![
        times(all().map(|row| row.record.at_ms)),
        texts(all().map(|row| Some(row.user()))),
        texts(all().map(|row| row.record.minted.as_deref().map(readable))),
    ];
    table(RecordTable::Identities, columns, rows.iter().copied())
}

/// Adds the columns that every record has.
fn table<'a>(
    table: RecordTable,
    mut columns: Vec<ArrayRef>,
    records: impl Iterator<Item = JournaledRecord<'a>> + Clone,
) -> Result<RecordBatch, ArrowError> {
    let all = || records.clone();
    let is_new = all().map(|of| Some(of.record.is_new));
    columns.push(Arc::new(BooleanArray::from_iter(is_new)));
    columns.push(texts(all().map(|of| of.unit().map(str::to_owned))));
    columns.push(texts(all().map(|of| Some(hex(of.record.declaration)))));
    columns.push(texts(all().map(|of| Some(of.journal))));
    columns.push(longs(all().map(|of| Some(of.seq as i64))));
    RecordBatch::try_new(table.schema(), columns)
}

/// The value of an event in whole units; `None` for an event without one.
fn value(row: &EventRow<'_>) -> Option<i128> {
    let sum = row.value()?;
    Some(in_value_scale(sum, row.metric.scale))
}

/// Units of 10^-scale in units of 10^-[`VALUE_SCALE`].
pub(super) fn in_value_scale(units: i64, scale: u8) -> i128 {
    i128::from(units) * 10i128.pow(VALUE_SCALE.saturating_sub(scale).into())
}

/// The ID that the reporter gave the event, or its place in the journal.
fn event_id(row: &EventRow<'_>) -> String {
    match row.observation.event_id {
        Some(id) => hex(id.get()),
        None => format!("{}-{}-{}", row.of.journal, row.of.seq, row.ordinal),
    }
}

/// A digest in hexadecimal.
pub(super) fn hex(digest: u64) -> String {
    format!("{digest:016x}")
}

/// A column of times, from Unix milliseconds.
pub(super) fn times(ms: impl Iterator<Item = u64>) -> ArrayRef {
    let us = ms.map(|ms| 1000 * ms.min(TIME_MAX_MS) as i64);
    Arc::new(TimestampMicrosecondArray::from_iter_values(us).with_timezone("UTC"))
}

/// A column of texts.
pub(super) fn texts(all: impl Iterator<Item = Option<impl AsRef<str>>>) -> ArrayRef {
    Arc::new(StringArray::from_iter(all))
}

/// A column of small numbers.
pub(super) fn ints(all: impl Iterator<Item = Option<i32>>) -> ArrayRef {
    Arc::new(Int32Array::from_iter(all))
}

/// A column of numbers.
pub(super) fn longs(all: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from_iter(all))
}

/// A column of values, in units of 10^-[`VALUE_SCALE`].
pub(super) fn values(all: impl Iterator<Item = Option<i128>>) -> Result<ArrayRef, ArrowError> {
    let values = Decimal128Array::from_iter(all);
    let values = values.with_precision_and_scale(VALUE_PRECISION, VALUE_SCALE as i8)?;
    Ok(Arc::new(values))
}
