//! Decisions about experiments: pause, resume, promote, roll back.

pub(crate) mod act_on;
pub(crate) mod action;
pub(crate) mod allocate;
pub(crate) mod api;
pub(crate) mod apply;
pub(crate) mod audit;
pub(crate) mod decide;
pub(crate) mod form;
pub(crate) mod ramp;
pub(crate) mod record;
