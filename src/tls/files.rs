//! The files with which a client of the configuration speaks TLS.

use super::certificates::{self, NoIdentity};
use super::client;
use super::trust::{NoTrust, Trust};
use rustls::ClientConfig;
use std::io;
use std::path::{Path, PathBuf};

/// Files for TLS, all PEM. Without a `ca` the system's roots are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates to trust: of authorities, or the server's own.
    pub ca: Option<PathBuf>,
    /// The client certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why TLS is not possible.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    /// A file cannot be read.
    #[error("{} cannot be read", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// No server can be verified. Beside the reason, the key of the configuration that names what to trust.
    #[error("{}: {}", .0, .0.fix(.1))]
    Trust(NoTrust, &'static str),
    /// Certificate or key cannot be used.
    #[error("certificate and key cannot be used")]
    Identity(#[from] NoIdentity),
    /// The TLS library refuses the configuration.
    #[error("TLS is not possible")]
    Config(#[from] rustls::Error),
}

impl TlsFiles {
    /// Makes a client from the files as they are now. `ca` is the key of the configuration that names what to trust.
    pub fn client(&self, ca: &'static str) -> Result<ClientConfig, TlsFilesError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| TlsFilesError::File(path.to_owned(), error))
        };
        let trust = match &self.ca {
            Some(ca) => Trust::pem(&read(ca)?),
            None => Trust::system(),
        };
        let trust = trust.map_err(|none| TlsFilesError::Trust(none, ca))?;
        let identity = match &self.identity {
            Some((certificate, key)) => {
                Some(certificates::identity(&read(certificate)?, &read(key)?)?)
            }
            None => None,
        };
        Ok(client::client(trust, identity)?)
    }
}
