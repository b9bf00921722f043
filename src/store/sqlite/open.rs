//! Opens the file: a new one, or one of watershed that is not newer than this program.

use super::migrations::{STEPS, VERSION};
use crate::regular_file;
use crate::store::StoreError;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::fs::{OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The `application_id` of this program: "WTRS".
const APPLICATION_ID: i64 = 0x5754_5253;
/// Tables of a file of every version. Release 0.1.0 wrote no `application_id`.
const TABLES_FIRST: [&str; 5] = ["applied", "epochs", "hours", "totals", "users"];
const HEADER_BYTES: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A connection that is opened when it is needed, and opened again after an error of the file or when
/// another file has replaced it. So a repaired file is used without a restart.
#[derive(Debug)]
pub(super) struct LazyConnection {
    path: PathBuf,
    open: Mutex<Option<Opened>>,
}

#[derive(Debug)]
struct Opened {
    connection: Connection,
    /// Device and inode.
    file: (u64, u64),
}

impl LazyConnection {
    pub(super) fn new(path: &Path) -> LazyConnection {
        LazyConnection {
            path: path.to_owned(),
            open: Mutex::new(None),
        }
    }

    /// Runs blocking work on a thread for such work.
    pub(super) async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let slot = Arc::clone(self);
        match tokio::task::spawn_blocking(move || slot.now(work)).await {
            Ok(done) => done,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Runs blocking work on this thread.
    pub(super) fn now<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // A transaction that a panic interrupted was rolled back, so the connection is usable.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let file = identity(&self.path);
        if open.as_ref().is_some_and(|open| Some(open.file) != file) {
            *open = None;
        }
        let opened = match &mut *open {
            Some(opened) => opened,
            None => open.insert(Opened::new(&self.path)?),
        };
        let done = work(&mut opened.connection);
        if done.as_ref().is_err_and(is_of_the_file) {
            *open = None;
        }
        done
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Whether opening the file again may help.
fn is_of_the_file(error: &StoreError) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    let StoreError::Sqlite(error) = error else {
        return false;
    };
    let code = error.sqlite_error_code();
    code.is_some_and(|code| !matches!(code, DatabaseBusy | DatabaseLocked))
}

impl Opened {
    fn new(path: &Path) -> Result<Opened, StoreError> {
        let on_disk = |source| StoreError::File {
            path: path.to_owned(),
            source,
        };
        look(path)?;
        // SQLite gives its other files the permissions of this one.
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(on_disk)?;
        make_private(path);
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        // The version is written before the file gets a write-ahead log, so that the file can be
        // identified if the process is killed in between.
        migrate(&mut connection, path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A power failure may lose the last commits; ingestion repeats them from the journals.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.set_prepared_statement_cache_capacity(32);
        let file = identity(path).ok_or_else(|| on_disk(io::ErrorKind::NotFound.into()))?;
        Ok(Opened { connection, file })
    }
}

/// Restricts the permissions of files of release 0.1.0, which others could read.
fn make_private(path: &Path) {
    for end in ["", "-wal", "-shm"] {
        let path = with_end(path, end);
        let mode = std::fs::metadata(&path).map_or(0o600, |found| found.mode());
        if mode & 0o077 != 0
            && let Err(error) = std::fs::set_permissions(&path, Permissions::from_mode(0o600))
        {
            tracing::warn!(
                "{} can be read by others: {error}; run `chmod 600`",
                path.display()
            );
        }
    }
}

/// Returns the name of a file that SQLite keeps beside this one.
fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    // Without a migration, nothing is locked.
    let is_done = |connection: &Connection| -> Result<bool, StoreError> {
        let (id, version) = (
            pragma(connection, "application_id")?,
            pragma(connection, "user_version")?,
        );
        Ok(id == APPLICATION_ID && version == VERSION)
    };
    if is_done(connection)? {
        return Ok(());
    }
    let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (id, version) = (
        pragma(&begun, "application_id")?,
        pragma(&begun, "user_version")?,
    );
    let steps = usize::try_from(version).ok().and_then(|at| STEPS.get(at..));
    let steps = steps.ok_or_else(|| newer(path, version))?;
    if steps.is_empty() && id == APPLICATION_ID {
        return Ok(());
    }
    for step in steps {
        begun.execute_batch(step)?;
    }
    begun.pragma_update(None, "user_version", VERSION)?;
    begun.pragma_update(None, "application_id", APPLICATION_ID)?;
    Ok(begun.commit()?)
}

fn pragma(connection: &Connection, name: &str) -> Result<i64, StoreError> {
    Ok(connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?)
}

fn newer(path: &Path, found: i64) -> StoreError {
    StoreError::Newer {
        place: path.display().to_string(),
        found: found.to_string(),
        known: VERSION,
    }
}

/// Checks whether the file may be opened, without SQLite's locks and logs: another program's file stays
/// unchanged.
fn look(path: &Path) -> Result<(), StoreError> {
    let on_disk = |source| StoreError::File {
        path: path.to_owned(),
        source,
    };
    let mut header = Vec::new();
    match regular_file::open(path) {
        Ok(file) => file
            .take(HEADER_BYTES as u64)
            .read_to_end(&mut header)
            .map_err(on_disk)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(on_disk(error)),
    };
    if header.is_empty() {
        return Ok(());
    }
    if header.len() < HEADER_BYTES || !header.starts_with(MAGIC) {
        return Err(StoreError::NotDatabase {
            place: path.display().to_string(),
        });
    }
    let number = |at: usize| {
        let bytes = header[at..at + 4].try_into();
        i64::from(bytes.map_or(0, i32::from_be_bytes))
    };
    let (version, id) = (number(60), number(68));
    match id {
        APPLICATION_ID if version > VERSION => Err(newer(path, version)),
        APPLICATION_ID => Ok(()),
        0 if version > VERSION => Err(newer(path, version)),
        0 => look_at_tables(path),
        _ => Err(foreign(path, format!("application_id {id}"))),
    }
}

fn foreign(path: &Path, found: String) -> StoreError {
    StoreError::Foreign {
        place: path.display().to_string(),
        found,
    }
}

/// Identifies a file without an `application_id` by its tables: it is of release 0.1.0 or of another
/// program.
fn look_at_tables(path: &Path) -> Result<(), StoreError> {
    let mut tables = tables_of(path)?;
    let wal = with_end(path, "-wal");
    if tables.is_empty() && std::fs::metadata(&wal).is_ok_and(|wal| wal.len() > 0) {
        // All its tables are in its log, which SQLite reads only if it may write.
        let on_disk = |source| StoreError::File {
            path: path.to_owned(),
            source,
        };
        let copies = tempfile::tempdir().map_err(on_disk)?;
        let copy = copies.path().join("copy.db");
        std::fs::copy(path, &copy).map_err(on_disk)?;
        std::fs::copy(&wal, copies.path().join("copy.db-wal")).map_err(on_disk)?;
        let connection = Connection::open(&copy)?;
        tables = list_tables(&connection)?;
    }
    let is_ours = TABLES_FIRST
        .iter()
        .all(|table| tables.iter().any(|it| it == table));
    match tables.first() {
        Some(table) if !is_ours => Err(foreign(path, format!("the table {table:?}"))),
        _ => Ok(()),
    }
}

fn tables_of(path: &Path) -> Result<Vec<String>, StoreError> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    list_tables(&Connection::open_with_flags(uri, flags)?)
}

fn list_tables(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
    let mut statement = connection.prepare(sql)?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}
