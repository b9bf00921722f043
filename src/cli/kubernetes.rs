//! `watershed kubernetes`: writes a routes file from the `HTTPRoute`s of a cluster, and again when they change.

mod arguments;
#[cfg(feature = "kubernetes")]
mod cluster;
#[cfg(feature = "kubernetes")]
mod merged_file;

pub(super) use arguments::Arguments;

/// Writes the file until the process is ended.
#[cfg(feature = "kubernetes")]
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    crate::server::logging::start("info", None)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(cluster::follow(arguments))
}

/// Fails: the program was built without it.
#[cfg(not(feature = "kubernetes"))]
pub(super) fn run(_: &Arguments) -> anyhow::Result<()> {
    use crate::features::{Feature, MissingFeature};
    use crate::server::ErrorWithHint;

    let missing = MissingFeature(Feature::Kubernetes);
    Err(ErrorWithHint::new(missing.to_string(), missing.hint()).into())
}
