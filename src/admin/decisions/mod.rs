//! Decisions about experiments: pause, resume, promote, roll back.

pub(crate) mod api;
pub(crate) mod decide;
pub(crate) mod form;
