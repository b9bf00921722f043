//! JSON in stored records.

use super::error::StoreError;

pub(super) fn read_json<T: serde::de::DeserializeOwned>(
    place: &str,
    text: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Unreadable {
        place: place.to_owned(),
        found: text.to_owned(),
    })
}

pub(super) fn written<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unreadable {
        place: "a decision".to_owned(),
        found: error.to_string(),
    })
}
