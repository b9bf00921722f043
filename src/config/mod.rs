//! `routes.yaml`: the file's shape, its checks, its messages; yields an immutable [`plan::Plan`].

pub mod declare;
pub mod plan;
