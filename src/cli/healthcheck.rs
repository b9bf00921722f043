//! `watershed healthcheck`: asks a running watershed whether it is ready, for containers without curl.

use super::admin_client::{Credentials, fetch};
use super::admin_server::{health_url, server_trust};
use super::config_file::ConfigFile;
use super::output::Output;
use crate::config;
use anyhow::Context;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// The time to the whole response.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The arguments of `healthcheck`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit 0: ready; 1: not ready, or no response; 2: the file is invalid")]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// The address to ask [default: admin.health of the file, or else admin.listen]
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    url: Option<String>,
    /// A PEM file with the certificates to trust of a server at https:// [default: the certificate of
    /// admin.tls of the file, or with --url the roots of this machine]
    #[arg(
        long,
        value_name = "FILE",
        env = "WATERSHED_CA",
        hide_env_values = true
    )]
    ca: Option<PathBuf>,
}

/// Prints what `/admin/readyz` responds; fails unless the process is ready.
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let (url, access) = match &arguments.url {
        Some(url) => (url.trim_end_matches('/').to_owned(), None),
        None => {
            let access = config::admin_access(&arguments.file.path()?)?;
            (health_url(&access)?, Some(access))
        }
    };
    let credentials = Credentials {
        token: None,
        trust: server_trust(arguments.ca.as_ref(), access.as_ref()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let response = runtime.block_on(async {
        let ready = format!("{url}/admin/readyz");
        tokio::time::timeout(TIMEOUT, fetch(&ready, &credentials)).await
    });
    let late = || format!("no response from {url} within {} s", TIMEOUT.as_secs());
    let response = response.with_context(late)??;
    let document = || json!({ "ready": true, "response": response.trim_end(), "url": url });
    Ok(output.print(|| response.clone(), document)?)
}
