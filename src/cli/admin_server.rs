//! Which running watershed a command asks: the one that its arguments name, or else that of the routes
//! file.

use super::config_file::ConfigFile;
use crate::config::plan::Plan;
use crate::config::{self, AdminAccess, InvalidConfig};
use crate::server::ErrorWithHint;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The address where neither an argument nor a file says another one.
const USUAL: &str = "http://127.0.0.1:9900";

/// The arguments that name a running watershed.
#[derive(Debug, clap::Args)]
pub struct AdminServer {
    /// The admin address of a running watershed [default: admin.listen of the routes file, or else
    /// http://127.0.0.1:9900]
    #[arg(long, visible_alias = "admin", value_name = "URL")]
    url: Option<String>,
    /// A token of admin.token or admin.tokens, if one is needed [default: that of the routes file]
    #[arg(long, env = "WATERSHED_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[command(flatten)]
    file: ConfigFile,
}

/// A server to ask.
#[derive(Debug)]
pub struct ServerAddress {
    /// The address, without a slash at its end.
    pub url: String,
    /// The token, if there is one.
    pub token: Option<String>,
}

impl AdminServer {
    /// Reads the plan of the routes file, if there is one.
    pub fn plan(&self) -> Result<Option<Plan>, InvalidConfig> {
        let path = self.file.find();
        path.map(|path| config::load(&path)).transpose()
    }

    /// Returns the argument that names the routes file.
    #[cfg(feature = "mcp")]
    pub fn file(&self) -> &ConfigFile {
        &self.file
    }

    /// Finds the server. The file is read unless `--url` is given without `-c`: the token of a file is for
    /// its own server.
    pub fn find(&self) -> anyhow::Result<ServerAddress> {
        let is_asked = self.url.is_none() || self.file.is_given();
        let access = match self.file.find().filter(|_| is_asked) {
            Some(path) => Some(config::admin_access(&path)?),
            None => None,
        };
        let url = match (&self.url, &access) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(access)) => format!("http://{}", reachable(access.listen)?),
            (None, None) => USUAL.to_owned(),
        };
        let of_file = || Some(access?.token?.reveal().to_owned());
        Ok(ServerAddress {
            url,
            token: self.token.clone().or_else(of_file),
        })
    }
}

/// Returns the address of the listener that answers health checks without a token, as this machine reaches
/// it.
pub fn health_address(access: &AdminAccess) -> Result<SocketAddr, ErrorWithHint> {
    reachable(access.health.unwrap_or(access.listen))
}

/// Returns the address of a listener as this machine reaches it.
fn reachable(mut address: SocketAddr) -> Result<SocketAddr, ErrorWithHint> {
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
