//! What an answer's head is completed by, however it is kept. PURE.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use smallvec::SmallVec;

/// A head that can be changed.
pub trait Edit {
    /// The values of all fields of this name, as the upstream gave them, in order.
    fn all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]>;
    /// Adds a field.
    fn append(&mut self, name: HeaderName, value: HeaderValue);
    /// Puts a field in the place of all of its name.
    fn insert(&mut self, name: HeaderName, value: HeaderValue);
    /// Takes out all fields whose names, in small letters, are meant.
    fn discard(&mut self, is_meant: impl Fn(&str) -> bool);
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

    fn discard(&mut self, is_meant: impl Fn(&str) -> bool) {
        let found = self.keys().filter(|name| is_meant(name.as_str()));
        let found: SmallVec<[HeaderName; 2]> = found.cloned().collect();
        for name in found {
            self.remove(name);
        }
    }
}
