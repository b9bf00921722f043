//! `watershed healthcheck`: asks a running watershed whether it is ready, for containers without curl.

use super::admin_client::fetch;
use crate::config;
use crate::config::plan::Admin;
use crate::server::ErrorWithHint;
use anyhow::Context;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The time to the whole response.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The arguments of `healthcheck`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit 0: ready; 1: not ready, or no response; 2: the file is invalid")]
pub struct Arguments {
    /// The routes file, which has the address to ask
    #[arg(short, long, value_name = "FILE", default_value = "config/routes.yaml")]
    config: PathBuf,
    /// The address to ask [default: admin.health of the file, or else admin.listen]
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    url: Option<String>,
}

/// Prints what `/admin/readyz` responds; fails unless the process is ready.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let url = match &arguments.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => {
            let plan = config::load(&arguments.config)?;
            format!("http://{}", to_ask(&plan.admin)?)
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let response = runtime.block_on(async {
        let ready = format!("{url}/admin/readyz");
        tokio::time::timeout(TIMEOUT, fetch(&ready, None)).await
    });
    let late = || format!("no response from {url} within {} s", TIMEOUT.as_secs());
    print!("{}", response.with_context(late)??);
    Ok(())
}

/// Returns the address of the listener that answers without a token, as this machine reaches it.
fn to_ask(admin: &Admin) -> Result<SocketAddr, ErrorWithHint> {
    let mut address = admin.health.unwrap_or(admin.listen);
    if address.port() == 0 {
        let what = "the file has port 0, which stands for any port";
        return Err(ErrorWithHint::new(what, "give the address with --url"));
    }
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(address)
}
