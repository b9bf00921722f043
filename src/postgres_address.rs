//! The address of PostgreSQL: one server, or several of which one can be written.

use crate::tls::TlsFiles;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// The address and login of PostgreSQL.
#[derive(Clone, Debug)]
pub struct PostgresAddress {
    /// The named servers, in order; at least one.
    pub servers: Vec<PostgresServer>,
    /// User, password and database of every server. Its debug output hides the password.
    pub login: Config,
    /// The files for TLS; `None` for an address without TLS.
    pub tls: Option<TlsFiles>,
    /// Servers and database, as errors name them.
    pub place: Arc<str>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostgresServer {
    /// A DNS name or an IP address without brackets, and the port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why an address is invalid. It never shows a part of the address, where a password may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// It does not begin with the scheme.
    #[error("it does not begin with postgres://")]
    Scheme,
    /// Only `sslmode` is read.
    #[error("it has another option than sslmode")]
    Option,
    /// Whether TLS is used must not depend on the server.
    #[error("its sslmode is neither disable, require, verify-ca nor verify-full")]
    SslMode,
    /// The driver cannot read it.
    #[error("its user, password, hosts or ports cannot be read")]
    Unreadable,
    /// A default would be the name of the system's user.
    #[error("it names no user")]
    NoUser,
    /// A default would be the name of the user.
    #[error("it names no database")]
    NoDatabase,
}

impl PostgresAddress {
    /// Reads `postgres://user[:password]@host[:port][,host:port …]/database[?sslmode=require]`. Without `sslmode`,
    /// or with `disable`, connections are in cleartext. Each other mode is TLS with a verified server.
    pub fn read(url: &str, files: TlsFiles) -> Result<PostgresAddress, InvalidAddress> {
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme))
            .ok_or(InvalidAddress::Scheme)?;
        // A question mark before the last @ is a part of the password.
        let authority_end = rest.rfind('@').unwrap_or(0);
        let (address, options) = match rest[authority_end..].split_once('?') {
            Some((_, options)) => (&rest[..rest.len() - options.len() - 1], options),
            None => (rest, ""),
        };
        let is_secure = is_secure(options)?;
        let read: Result<Config, _> = format!("postgres://{address}").parse();
        let mut login = read.map_err(|_| InvalidAddress::Unreadable)?;
        if login.get_user().is_none_or(str::is_empty) {
            return Err(InvalidAddress::NoUser);
        }
        let database = login.get_dbname().filter(|name| !name.is_empty());
        let database = database.ok_or(InvalidAddress::NoDatabase)?.to_owned();
        let servers = servers(&login)?;
        let names: Vec<String> = servers.iter().map(PostgresServer::to_string).collect();
        let place = format!("PostgreSQL at {}, database {database}", names.join(","));
        login.application_name("watershed");
        login.ssl_mode(match is_secure {
            true => SslMode::Require,
            false => SslMode::Disable,
        });
        Ok(PostgresAddress {
            servers,
            login,
            tls: is_secure.then_some(files),
            place: place.into(),
        })
    }
}

fn is_secure(options: &str) -> Result<bool, InvalidAddress> {
    let mut is_secure = false;
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let mode = option.strip_prefix("sslmode=");
        is_secure = match mode.ok_or(InvalidAddress::Option)? {
            "disable" => false,
            "require" | "verify-ca" | "verify-full" => true,
            _ => return Err(InvalidAddress::SslMode),
        };
    }
    Ok(is_secure)
}

fn servers(login: &Config) -> Result<Vec<PostgresServer>, InvalidAddress> {
    let (hosts, ports) = (login.get_hosts(), login.get_ports());
    let server = |(index, host): (usize, &Host)| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(host) => PostgresServer::Tcp(host.clone(), port),
            Host::Unix(folder) => PostgresServer::Unix(folder.join(format!(".s.PGSQL.{port}"))),
        }
    };
    let servers: Vec<PostgresServer> = hosts.iter().enumerate().map(server).collect();
    match servers.is_empty() {
        true => Err(InvalidAddress::Unreadable),
        false => Ok(servers),
    }
}

impl std::fmt::Display for PostgresServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PostgresServer::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            PostgresServer::Tcp(host, port) => write!(f, "{host}:{port}"),
            PostgresServer::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: Result<(&str, bool), InvalidAddress>) {
        let read = PostgresAddress::read(url, TlsFiles::default());
        let read = read.map(|address| (address.place.to_string(), address.tls.is_some()));
        let expected = expected.map(|(place, tls)| (format!("PostgreSQL at {place}"), tls));
        assert_eq!(read, expected, "{url}");
    }

    #[test]
    fn addresses_are_read() {
        check("postgres://u@h/d", Ok(("h:5432, database d", false)));
        check("postgresql://u:p@h:1/d", Ok(("h:1, database d", false)));
        check(
            "postgres://u@a,b:2/d?sslmode=verify-full",
            Ok(("a:5432,b:2, database d", true)),
        );
        check("postgres://u@[::1]:7/d", Ok(("[::1]:7, database d", false)));
        check(
            "postgres://u@%2Frun%2Fpg/d?sslmode=disable",
            Ok(("/run/pg/.s.PGSQL.5432, database d", false)),
        );
        check(
            "postgres://u@h/d?sslmode=require",
            Ok(("h:5432, database d", true)),
        );
        check("redis://u@h/d", Err(InvalidAddress::Scheme));
        check("postgres://h/d", Err(InvalidAddress::NoUser));
        check("postgres://u@h", Err(InvalidAddress::NoDatabase));
        check("postgres://u@h:x/d", Err(InvalidAddress::Unreadable));
        check(
            "postgres://u@h/d?sslmode=prefer",
            Err(InvalidAddress::SslMode),
        );
        check("postgres://u@h/d?options=x", Err(InvalidAddress::Option));
    }

    #[test]
    fn password_is_not_shown() {
        for password in ["sesame", "p%20sesame", "p?sesame=x"] {
            let url = format!("postgres://u:{password}@h/d");
            let shown = match PostgresAddress::read(&url, TlsFiles::default()) {
                Ok(address) => format!("{address:?} {}", address.place),
                Err(error) => format!("{error:?} {error}"),
            };
            assert!(!shown.contains("sesame"), "{shown}");
        }
    }
}
