//! Claims of batches: see [`super`].

use super::error::ArchiveError;
use super::location::Location;
use super::tables::RecordTable;
use bytes::Bytes;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A batch of a journal: its first and its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    /// The first sequence number.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

#[derive(Serialize, Deserialize)]
struct ClaimFile {
    last: u64,
}

impl Claim {
    /// Returns the name of a file of this batch.
    pub(super) fn file_name(self, journal: &str) -> String {
        let Claim { first, last } = self;
        format!("{journal}-{first:020}-{last:020}.parquet")
    }

    /// Reads the name of a file, if it is of this journal.
    fn of_file_name(name: &str, journal: &str) -> Option<Claim> {
        let numbers = name.strip_prefix(journal)?.strip_prefix('-')?;
        let (first, last) = numbers.strip_suffix(".parquet")?.split_once('-')?;
        Some(Claim {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
        })
    }
}

/// Claims the batch from `first` to `last`. Returns the batch that begins there: an earlier one, if there is one.
pub(super) async fn claim(
    location: &Location,
    journal: &str,
    claim: Claim,
) -> Result<Claim, ArchiveError> {
    let name = name(journal, claim.first);
    let file = ClaimFile { last: claim.last };
    // A number has a JSON form.
    let json = serde_json::to_vec(&file).unwrap_or_default();
    match location.create(&name, Bytes::from(json)).await? {
        true => Ok(claim),
        false => read(location, journal, claim.first).await,
    }
}

/// Returns the last batch that was claimed of a journal, whose records up to `released` are deleted.
pub(super) async fn last(
    location: &Location,
    journal: &str,
    released: u64,
) -> Result<Option<Claim>, ArchiveError> {
    let folder = format!("_batches/{journal}");
    let mut first: Option<u64> = None;
    // There may be very many, but few after what is deleted.
    for after in [Some(name(journal, released)), None] {
        let mut names = location.list(&folder, after.as_deref())?;
        while let Some(name) = names.try_next().await? {
            let number = name
                .rsplit('/')
                .next()
                .and_then(|it| it.strip_suffix(".json"));
            first = first.max(number.and_then(|it| it.parse().ok()));
        }
        if first.is_some() {
            break;
        }
    }
    match first {
        Some(first) => Ok(Some(read(location, journal, first).await?)),
        None => of_files(location, journal).await,
    }
}

/// Finds the last batch of a journal by the names of its files, in case the claims were lost.
async fn of_files(location: &Location, journal: &str) -> Result<Option<Claim>, ArchiveError> {
    let mut last: Option<Claim> = None;
    for table in RecordTable::ALL {
        let name = table.name();
        // A journal has no exposures from before it was made.
        let after = day_before(journal).map(|day| format!("{name}/{day}"));
        let mut names = location.list(name, after.as_deref())?;
        while let Some(name) = names.try_next().await? {
            let file = name.rsplit('/').next().unwrap_or_default();
            last = last.max(Claim::of_file_name(file, journal));
        }
    }
    Ok(last)
}

/// The folder of the day before a journal was made, by its name, which begins with a time.
fn day_before(journal: &str) -> Option<String> {
    const DAY_S: i64 = 86_400;
    let (seconds, _) = Uuid::try_parse(journal).ok()?.get_timestamp()?.to_unix();
    let time = jiff::Timestamp::from_second(i64::try_from(seconds).ok()? - DAY_S).ok()?;
    Some(time.strftime("dt=%Y-%m-%d").to_string())
}

fn name(journal: &str, first: u64) -> String {
    format!("_batches/{journal}/{first:020}.json")
}

async fn read(location: &Location, journal: &str, first: u64) -> Result<Claim, ArchiveError> {
    let path = name(journal, first);
    let found = location.read(&path).await?;
    let file: Option<ClaimFile> = found.and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok());
    match file {
        Some(ClaimFile { last }) if last >= first => Ok(Claim { first, last }),
        _ => {
            let why = "it does not name the last record of a batch".to_owned();
            Err(ArchiveError::Unreadable { path, why })
        }
    }
}
