//! Which running watershed a command asks: the one that its arguments name, or else that of the routes
//! file.

use super::admin_client::{Credentials, ServerTrust};
use super::config_file::ConfigFile;
use crate::config::plan::Plan;
use crate::config::{self, AdminAccess, InvalidConfig};
use crate::server::ErrorWithHint;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// The address where neither an argument nor a file says another one.
const USUAL: &str = "http://127.0.0.1:9900";

/// The arguments that name a running watershed.
#[derive(Debug, clap::Args)]
pub(super) struct AdminServer {
    /// The admin address of a running watershed [default: admin.listen of the routes file, or else
    /// http://127.0.0.1:9900]
    #[arg(long, visible_alias = "admin", value_name = "URL")]
    url: Option<String>,
    /// A token of admin.token or admin.tokens, if one is needed [default: that of the routes file]
    #[arg(long, env = "WATERSHED_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A PEM file with the certificates to trust of a server at https:// [default: the certificate of
    /// admin.tls of the routes file, or with --url the roots of this machine]
    #[arg(
        long,
        value_name = "FILE",
        env = "WATERSHED_CA",
        hide_env_values = true
    )]
    ca: Option<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
}

/// A server to ask.
#[derive(Debug)]
pub(super) struct ServerAddress {
    /// The address, without a slash at its end.
    pub url: String,
    /// How the command and the server know each other.
    pub credentials: Credentials,
}

impl AdminServer {
    /// Reads the plan of the routes file, if there is one.
    pub(super) fn plan(&self) -> Result<Option<Plan>, InvalidConfig> {
        let path = self.file.find();
        path.map(|path| config::load(&path)).transpose()
    }

    /// Returns the argument that names the routes file.
    #[cfg(feature = "mcp")]
    pub(super) fn file(&self) -> &ConfigFile {
        &self.file
    }

    /// Finds the server. The file is read unless `--url` is given without `-c`: the token of a file is for
    /// its own server.
    pub(super) fn find(&self) -> anyhow::Result<ServerAddress> {
        let is_asked = self.url.is_none() || self.file.is_given();
        let access = match self.file.find().filter(|_| is_asked) {
            Some(path) => Some(config::admin_access(&path)?),
            None => None,
        };
        let url = match (&self.url, &access) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(access)) => admin_url(access)?,
            (None, None) => USUAL.to_owned(),
        };
        let is_of_file = self.url.is_none();
        let file = access.as_ref().filter(|_| is_of_file);
        let trust = server_trust(self.ca.as_ref(), file);
        let of_file = || Some(access?.token?.reveal().to_owned());
        let token = self.token.clone().or_else(of_file);
        Ok(ServerAddress {
            url,
            credentials: Credentials { token, trust },
        })
    }
}

/// Returns whom a command trusts that was given these certificates, or else asks the server of this file.
pub(super) fn server_trust(ca: Option<&PathBuf>, file: Option<&AdminAccess>) -> ServerTrust {
    let own = file.and_then(|access| access.certificate.clone());
    match (ca, own) {
        (Some(ca), _) => ServerTrust::Authorities(ca.clone()),
        // The file's address is rarely the name in its certificate, such as 127.0.0.1.
        (None, Some(certificate)) => ServerTrust::Exactly(certificate),
        (None, None) => ServerTrust::System,
    }
}

/// Returns the URL of the listener that answers health checks without a token, as this machine reaches it.
pub(super) fn health_url(access: &AdminAccess) -> Result<String, ErrorWithHint> {
    match access.health {
        // It has no TLS.
        Some(health) => Ok(format!("http://{}", reachable(health)?)),
        None => admin_url(access),
    }
}

/// Returns the URL of the admin API, as this machine reaches it.
fn admin_url(access: &AdminAccess) -> Result<String, ErrorWithHint> {
    let scheme = match access.certificate {
        Some(_) => "https",
        None => "http",
    };
    Ok(format!("{scheme}://{}", reachable(access.listen)?))
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
