//! What an answer's head is completed by, however it is kept. PURE.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use smallvec::SmallVec;

/// A head that can be changed.
pub trait Edit {
    /// The values of all fields of this name, in order: those of the upstream, then those that were added.
    fn all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]>;
    /// Adds a field.
    fn append(&mut self, name: HeaderName, value: HeaderValue);
    /// Puts a field in the place of all of its name.
    fn insert(&mut self, name: HeaderName, value: HeaderValue);
    /// Takes out all fields of this name.
    fn take_out(&mut self, name: &HeaderName);
    /// Takes out all fields whose names, in small letters, are meant.
    fn discard(&mut self, is_meant: impl Fn(&str) -> bool);
}

/// Replaces the values of a field by what `map` makes of them. Where it makes nothing of any, nothing changes.
pub(crate) fn map_values(
    head: &mut impl Edit,
    name: &HeaderName,
    map: impl Fn(&[u8]) -> Option<String>,
) {
    let mut is_changed = false;
    let mut values: SmallVec<[HeaderValue; 4]> = SmallVec::new();
    for value in head.all(name) {
        let mapped = map(value);
        is_changed |= mapped.is_some();
        let value = match &mapped {
            Some(mapped) => mapped.as_bytes(),
            None => value,
        };
        values.extend(HeaderValue::from_bytes(value));
    }
    if is_changed {
        head.take_out(name);
        for value in values {
            head.append(name.clone(), value);
        }
    }
}

impl Edit for HeaderMap {
    fn all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        self.get_all(name).into_iter().map(HeaderValue::as_bytes)
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) {
        HeaderMap::append(self, name, value);
    }

    fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        HeaderMap::insert(self, name, value);
    }

    fn take_out(&mut self, name: &HeaderName) {
        self.remove(name);
    }

    fn discard(&mut self, is_meant: impl Fn(&str) -> bool) {
        let found = self.keys().filter(|name| is_meant(name.as_str()));
        let found: SmallVec<[HeaderName; 2]> = found.cloned().collect();
        for name in found {
            self.remove(name);
        }
    }
}
