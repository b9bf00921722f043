//! Reads hashes and lists of Redis. A field that cannot be decoded is skipped, counted and logged, so
//! that it hides nothing else.

use super::client::RedisStore;
use super::decode::{Fields, number, text};
use crate::store::StoreError;
use std::str::FromStr;

impl RedisStore {
    /// Reads the numbers in the fields of a hash.
    pub(super) async fn numbers<T: FromStr>(
        &self,
        key: &str,
    ) -> Result<Vec<(String, T)>, StoreError> {
        let fields: Fields = self.ask(redis::cmd("HGETALL").arg(key)).await?;
        let mut numbers = Vec::with_capacity(fields.len());
        for (field, value) in fields {
            let field = String::from_utf8_lossy(&field).into_owned();
            let number = self.damage.skip(number(key, &field, &value))?;
            numbers.extend(number.map(|number| (field, number)));
        }
        Ok(numbers)
    }

    /// Reads the number in one field of a hash; `None` also if it cannot be decoded.
    pub(super) async fn number<T: FromStr>(
        &self,
        key: &str,
        field: &str,
    ) -> Result<Option<T>, StoreError> {
        let mut get = redis::cmd("HGET");
        let value: Option<Vec<u8>> = self.ask(get.arg(key).arg(field)).await?;
        let read = value.map(|value| self.damage.skip(number(key, field, &value)));
        Ok(read.transpose()?.flatten())
    }

    /// Returns the sum of the numbers in the fields of a hash.
    pub(super) async fn sum(&self, key: &str) -> Result<u64, StoreError> {
        let counts = match self.numbers::<u64>(key).await {
            // Ingestion reports it; the sum lacks it, as it lacks all damage.
            Err(error) if error.is_of_one_experiment() => {
                self.damage.note(key, &error.with_advice());
                Vec::new()
            }
            counts => counts?,
        };
        let counts = counts.into_iter().map(|(_, count)| count);
        Ok(counts.fold(0, u64::saturating_add))
    }

    /// Reads the texts in the fields of a hash.
    pub(super) async fn texts(&self, key: &str) -> Result<Vec<(String, String)>, StoreError> {
        let fields: Fields = self.ask(redis::cmd("HGETALL").arg(key)).await?;
        let mut texts = Vec::with_capacity(fields.len());
        for (field, value) in fields {
            let field = self.damage.skip(text(key, field))?;
            let value = self.damage.skip(text(key, value))?;
            texts.extend(field.zip(value));
        }
        Ok(texts)
    }

    /// Decodes the texts of a list that a command returned.
    pub(super) fn readable(&self, key: &str, all: Vec<Vec<u8>>) -> Result<Vec<String>, StoreError> {
        let mut texts = Vec::with_capacity(all.len());
        for bytes in all {
            texts.extend(self.damage.skip(text(key, bytes))?);
        }
        Ok(texts)
    }
}
