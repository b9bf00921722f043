//! Where a Redis is, as the file says it: one server, the nodes of a cluster, or the Sentinels
//! that know who is master.

use redis::{
    ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError,
    TlsCertificates,
};
use std::io;
use std::path::PathBuf;

/// A Redis, and what is needed to be let in.
#[derive(Clone, Debug)]
pub struct Address {
    /// Every server named, in order; at least one.
    servers: Vec<ConnectionInfo>,
    /// For Sentinels: the master's name, and its database.
    pub(super) master: Option<(String, i64)>,
    tls: TlsFiles,
}

/// Files for TLS, all PEM. Without a `ca` the system's roots are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who signed the server's certificate.
    pub ca: Option<PathBuf>,
    /// The certificate and key that this side shows.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Address {
    /// Reads `redis://[user:password@]host:port[,host:port …][/db]`, with `rediss` for TLS, or
    /// `redis+sentinel://[user:password@]host:port[,…]/master[/db]`, with `rediss+sentinel` for
    /// TLS. `valkey` stands for `redis`. User and password are those of Redis and of Sentinel.
    pub fn read(url: &str, tls: TlsFiles) -> Result<Address, RedisError> {
        let unreadable =
            |what: &'static str| RedisError::from((ErrorKind::InvalidClientConfig, what));
        let (scheme, rest) = url.split_once("://").ok_or(unreadable("no scheme"))?;
        let scheme = scheme.replacen("valkey", "redis", 1);
        let scheme = scheme.as_str();
        let (sentinel, scheme) = match scheme.strip_suffix("+sentinel") {
            Some(scheme) => (true, scheme),
            None => (false, scheme),
        };
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, Some(path)),
            None => (rest, None),
        };
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let mut master = None;
        let mut database = path.map_or(String::new(), |path| format!("/{path}"));
        if sentinel {
            let path = path.unwrap_or_default();
            let (name, db) = path.split_once('/').unwrap_or((path, "0"));
            if name.is_empty() {
                return Err(unreadable("a Sentinel's address ends in /master-name"));
            }
            let db = db.parse();
            let db = db.map_err(|_| unreadable("the database after the master's name is a number"));
            master = Some((name.to_owned(), db?));
            database.clear();
        }
        let port = if sentinel { ":26379" } else { "" };
        let server = |host: &str| {
            let port = match host.rsplit_once(':') {
                Some((_, after)) if !after.contains(']') => "",
                _ => port,
            };
            format!("{scheme}://{user}{host}{port}{database}").into_connection_info()
        };
        let servers = hosts
            .split(',')
            .map(server)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Address {
            servers,
            master,
            tls,
        })
    }

    /// Every server named, in order.
    pub fn servers(&self) -> &[ConnectionInfo] {
        &self.servers
    }

    /// Whether it is spoken to by TLS.
    pub fn over_tls(&self) -> bool {
        let tls = |server: &ConnectionInfo| matches!(server.addr(), ConnectionAddr::TcpTls { .. });
        self.servers.iter().any(tls)
    }

    /// The TLS files as they are now; `None` without TLS.
    pub fn certificates(&self) -> io::Result<Option<TlsCertificates>> {
        if !self.over_tls() {
            return Ok(None);
        }
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })
        };
        let client_tls = match &self.tls.identity {
            Some((certificate, key)) => Some(ClientTlsConfig {
                client_cert: read(certificate)?,
                client_key: read(key)?,
            }),
            None => None,
        };
        Ok(Some(TlsCertificates {
            client_tls,
            root_cert: self.tls.ca.as_ref().map(read).transpose()?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = (Vec<String>, Option<(String, i64)>);

    fn read(url: &str) -> Result<Read, String> {
        let address = Address::read(url, TlsFiles::default()).map_err(|error| error.to_string())?;
        let server = |server: &ConnectionInfo| {
            let redis = server.redis_settings();
            let user = redis.username().unwrap_or("");
            format!("{user}@{}/{}", server.addr(), redis.db())
        };
        Ok((
            address.servers().iter().map(server).collect(),
            address.master,
        ))
    }

    #[test]
    fn addresses_are_read() {
        let one = |text: &str| Ok((vec![text.to_owned()], None));
        assert_eq!(read("redis://h:1"), one("@h:1/0"));
        assert_eq!(read("valkey://h"), one("@h:6379/0"));
        assert_eq!(read("rediss://u:p@h:1/2"), one("u@h:1/2"));
        assert_eq!(read("redis://[::1]:7"), one("@::1:7/0"));
        let nodes = read("redis://a:1,b:2").unwrap();
        assert_eq!(nodes, (vec!["@a:1/0".into(), "@b:2/0".into()], None));
        let sentinels = read("redis+sentinel://u:p@a,b:2/mine/3").unwrap();
        let servers = vec!["u@a:26379/0".into(), "u@b:2/0".into()];
        assert_eq!(sentinels, (servers, Some(("mine".into(), 3))));
        for wrong in [
            "redis://",
            "redis+sentinel://a:1",
            "redis+sentinel://a:1/m/x",
            "http://a",
            "a:1",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
