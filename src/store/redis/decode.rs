//! Decodes the values that Redis returns. A value that cannot be decoded is an error that names its
//! key.

use crate::store::StoreError;
use std::str::FromStr;

/// Some fields of a hash, with their values.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Decodes the number in a field.
pub(super) fn number<T: FromStr>(key: &str, field: &str, value: &[u8]) -> Result<T, StoreError> {
    let value = String::from_utf8_lossy(value);
    value.parse().map_err(|_| StoreError::Unreadable {
        place: key.to_owned(),
        found: format!("{field}: {value}"),
    })
}

/// Decodes a text.
pub(super) fn text(key: &str, bytes: Vec<u8>) -> Result<String, StoreError> {
    String::from_utf8(bytes).map_err(|error| StoreError::Unreadable {
        place: key.to_owned(),
        found: String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}
