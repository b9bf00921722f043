//! `watershed kubernetes`: writes a routes file from the `HTTPRoute`s of a cluster, and again when they change.

mod arguments;
#[cfg(feature = "kubernetes")]
mod cluster;
#[cfg(feature = "kubernetes")]
mod merged_file;

pub(super) use arguments::Arguments;

use super::output::Output;

/// Writes the file until the process is ended; or once, and prints what it has.
#[cfg(feature = "kubernetes")]
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    crate::server::logging::start("info", None)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let routes = runtime.block_on(cluster::follow(arguments))?;
    let file = arguments.write.display().to_string();
    let text = || format!("{file} has {routes} routes of the cluster\n");
    Ok(output.print(
        text,
        || serde_json::json!({ "file": file, "routes": routes }),
    )?)
}

/// Fails: the program was built without it.
#[cfg(not(feature = "kubernetes"))]
pub(super) fn run(_: &Arguments, _: Output) -> anyhow::Result<()> {
    use crate::features::{Feature, MissingFeature};
    use crate::server::ErrorWithHint;

    let missing = MissingFeature(Feature::Kubernetes);
    Err(ErrorWithHint::new(missing.to_string(), missing.hint()).into())
}
