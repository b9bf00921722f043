//! The arguments of `kubernetes`.

use std::path::PathBuf;

/// The arguments of `kubernetes`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It runs beside `watershed run`, which reads the file that is written and reloads it:\n  watershed kubernetes --gateway shop/public --base /etc/watershed/base.yaml --write /run/watershed/routes.yaml\n  watershed run -c /run/watershed/routes.yaml"
)]
pub(in crate::cli) struct Arguments {
    /// The gateway whose routes count
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    pub(super) gateway: String,
    /// The routes file with everything else: listeners, identity, store, metrics
    #[arg(long, value_name = "FILE")]
    pub(super) base: PathBuf,
    /// The routes file to write; relative paths of the base are relative to this one
    #[arg(long, value_name = "FILE")]
    pub(super) write: PathBuf,
    /// Below which name the cluster has its services
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    pub(super) cluster_domain: String,
    /// Also routes of other namespaces than the gateway's, as its listeners must allow
    #[arg(long)]
    pub(super) all_namespaces: bool,
    /// Write the file once, and end
    #[arg(long)]
    pub(super) once: bool,
    /// Tell the cluster nothing about routes
    #[arg(long)]
    pub(super) no_status: bool,
}
