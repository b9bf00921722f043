//! Rows as Parquet, and back.

use super::error::ArchiveError;
use arrow_array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

/// Writes a file, compressed with Snappy.
pub(super) fn encode(rows: &RecordBatch) -> Result<Bytes, ArchiveError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by(concat!("watershed ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties))?;
    writer.write(rows)?;
    Ok(writer.into_inner()?.into())
}

/// Reads a file.
pub(super) fn decode(path: &str, bytes: Bytes) -> Result<Vec<RecordBatch>, ArchiveError> {
    let unreadable = |why: String| ArchiveError::Unreadable {
        path: path.to_owned(),
        why,
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|error| unreadable(error.to_string()))?;
    let batches: Result<Vec<_>, _> = reader.collect();
    batches.map_err(|error| unreadable(error.to_string()))
}
