//! What experiments divide that do not divide users: accounts, teams or devices, by a header, cookie or
//! claim that names them (`bucket_by`). PURE.

use super::UserId;
use super::http_view::RequestView;
use super::identity::{self, IdSource};
use std::borrow::Cow;

/// The place of a unit in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitIndex(pub usize);

/// One kind of thing that experiments divide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Where requests name it.
    pub source: IdSource,
    /// Its name in records, such as `header:x-account`.
    pub name: Box<str>,
}

impl Unit {
    /// A unit by its source.
    pub fn new(source: IdSource) -> Unit {
        let name = match &source {
            IdSource::Header(name) => format!("header:{name}"),
            IdSource::Cookie(name) => format!("cookie:{name}"),
            IdSource::Query(name) => format!("query:{name}"),
            IdSource::Jwt { claim, .. } => format!("jwt:{claim}"),
        };
        Unit {
            source,
            name: name.into(),
        }
    }
}

/// The units that one request names, in the order of the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units<'a>(Box<[Option<Cow<'a, [u8]>>]>);

impl<'a> Units<'a> {
    /// Reads them from a request. An ID of more than `id_bytes_max` bytes is none.
    pub fn of(units: &[Unit], id_bytes_max: usize, request: impl RequestView<'a>) -> Units<'a> {
        let usable = |id: &[u8]| !identity::is_no_id(id) && id.len() <= id_bytes_max;
        let read = |unit: &Unit| identity::read(&unit.source, request, usable);
        Units(units.iter().map(read).collect())
    }

    /// The same ID for each of `count` units.
    pub fn all(count: usize, id: &'a [u8]) -> Units<'a> {
        Units(vec![Some(Cow::Borrowed(id)); count].into())
    }

    /// One ID for each unit, in the order of the plan; `None` where it is not named.
    pub fn named(ids: impl Iterator<Item = Option<Cow<'a, [u8]>>>) -> Units<'a> {
        Units(ids.collect())
    }

    /// The units with IDs of their own, for keeping past the request.
    pub fn into_owned(self) -> Units<'static> {
        let ids = self.0.into_vec().into_iter();
        Units(
            ids.map(|id| id.map(|id| Cow::Owned(id.into_owned())))
                .collect(),
        )
    }

    /// The ID of a unit.
    pub fn id(&self, unit: UnitIndex) -> Option<UserId<'_>> {
        UserId::new(self.0.get(unit.0)?.as_deref()?)
    }
}
