//! The address of Redis: one server, the nodes of a cluster, or Sentinels.

use crate::tls::TlsFiles;
use redis::{
    ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError,
};

/// The address and login of Redis.
#[derive(Clone, Debug)]
pub struct Address {
    /// The named servers, in order; at least one.
    pub servers: Vec<RedisServer>,
    /// User, password and database of every server.
    pub login: RedisConnectionInfo,
    /// For Sentinels: the name of the master, and its database.
    pub master: Option<(String, i64)>,
    /// The transport to its servers.
    pub transport: RedisTransport,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisServer {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The transport to all servers, including those that Sentinels or a cluster name.
#[derive(Clone, Debug)]
pub enum RedisTransport {
    /// In cleartext.
    Plain,
    /// Over TLS, with these files.
    Tls(TlsFiles),
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
                return Err(unreadable(
                    "the address of Sentinels must end in /master-name",
                ));
            }
            let db = db.parse();
            let db =
                db.map_err(|_| unreadable("the database after the master's name must be a number"));
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
        let infos = hosts.split(',').map(server);
        let infos = infos.collect::<Result<Vec<ConnectionInfo>, _>>()?;
        // Splitting returns at least one.
        let login = infos.first().map(|info| info.redis_settings().clone());
        let servers = infos.iter().map(|info| match info.addr() {
            ConnectionAddr::Tcp(host, port) => Ok((RedisServer::new(host, *port), false)),
            ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                ..
            } => Ok((RedisServer::new(host, *port), true)),
            _ => Err(unreadable("#insecure and socket paths are not supported")),
        });
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        let secure = servers.iter().any(|(_, secure)| *secure);
        Ok(Address {
            servers: servers.into_iter().map(|(server, _)| server).collect(),
            login: login.unwrap_or_default(),
            master,
            transport: match secure {
                true => RedisTransport::Tls(tls),
                false => RedisTransport::Plain,
            },
        })
    }
}

impl RedisServer {
    fn new(host: &str, port: u16) -> RedisServer {
        RedisServer {
            host: host.to_owned(),
            port,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = (Vec<String>, Option<(String, i64)>);

    fn read(url: &str) -> Result<Read, String> {
        let address = Address::read(url, TlsFiles::default()).map_err(|error| error.to_string())?;
        let user = address.login.username().unwrap_or("");
        let db = address.login.db();
        let server = |it: &RedisServer| format!("{user}@{}:{}/{db}", it.host, it.port);
        Ok((
            address.servers.iter().map(server).collect(),
            address.master.clone(),
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
    #[test]
    fn tls_holds_for_every_server_of_an_address() {
        for (url, secure) in [
            ("redis://a:1,b:2", false),
            ("rediss://a:1,b:2", true),
            ("REDISS://a", true),
            ("valkeys://a", true),
            ("valkey://a", false),
            ("redis+sentinel://a,b/m", false),
            ("rediss+sentinel://a,b/m", true),
            ("valkeys+sentinel://a/m", true),
        ] {
            let address = Address::read(url, TlsFiles::default()).unwrap();
            let found = matches!(address.transport, RedisTransport::Tls(_));
            assert_eq!(found, secure, "{url}");
        }
        for wrong in ["rediss://a/0#insecure", "redis+unix:///a"] {
            assert!(
                Address::read(wrong, TlsFiles::default()).is_err(),
                "{wrong}"
            );
        }
    }
}
