//! The copy of the certificate on this machine, for starts without the store.

use super::entries::CertificateEntry;
use crate::{private_file, regular_file};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// The version of the file. Another one is not read, and not replaced.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Contents<Certificate> {
    version: u32,
    certificate: Certificate,
}

/// Reads the file; `None` without one. A damaged one is none: the store has the certificate, too.
pub(super) fn read(file: &Path) -> Result<Option<CertificateEntry>, String> {
    let bytes = match regular_file::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(format!(
                "{} cannot be read: {error}; make it a file that this user can read, or move it away",
                file.display()
            ));
        }
    };
    let any: Option<Contents<serde_json::Value>> = serde_json::from_slice(&bytes).ok();
    match any {
        Some(Contents {
            version: VERSION,
            certificate,
        }) => Ok(serde_json::from_value(certificate).ok()),
        Some(Contents { version, .. }) => Err(format!(
            "{} has version {version}, and this program reads {VERSION}: it is left unchanged",
            file.display()
        )),
        None => Ok(None),
    }
}

/// Writes the file, unless one of another version is there.
pub(super) fn write(file: &Path, certificate: &CertificateEntry) -> Result<(), String> {
    read(file)?;
    let contents = Contents {
        version: VERSION,
        certificate,
    };
    let written = serde_json::to_vec(&contents)
        .map_err(io::Error::from)
        .and_then(|bytes| private_file::write(file, &bytes));
    written.map_err(|error| {
        format!(
            "the certificate cannot be kept at {}: {error}; make its folder writable for this user. While the store is unavailable, a restart has no certificate",
            file.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn file_is_private_and_one_of_another_version_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("acme.json");
        let entry = CertificateEntry {
            chain: "a".to_owned(),
            key: "b".to_owned(),
            obtained_ms: 1,
            renewal: None,
        };
        assert_eq!(read(&file), Ok(None));
        for _ in 0..2 {
            write(&file, &entry).unwrap();
            assert_eq!(read(&file), Ok(Some(entry.clone())));
            let mode = fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        for damaged in ["", "{", "[]", r#"{"version":1,"certificate":{"chain":1}}"#] {
            fs::write(&file, damaged).unwrap();
            assert_eq!(read(&file), Ok(None), "{damaged}");
            write(&file, &entry).unwrap();
        }
        let newer = r#"{"version":2,"certificate":null}"#;
        fs::write(&file, newer).unwrap();
        assert!(write(&file, &entry).unwrap_err().contains("has version 2"));
        assert_eq!(fs::read_to_string(&file).unwrap(), newer);
    }
}
