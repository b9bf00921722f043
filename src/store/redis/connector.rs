//! Makes connections to single servers, with or without TLS, and asks Sentinels for the master.

use super::timeouts::{ANSWER_WITHIN, CONNECT_WITHIN};
use crate::redis_address::{Address, RedisServer, RedisTransport};
use crate::tasks;
use crate::tls::TlsFilesError;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError};
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Makes connections.
pub(super) struct Connector<'a> {
    login: &'a RedisConnectionInfo,
    /// `None` for an address without TLS.
    tls: Option<TlsConnector>,
}

impl Connector<'_> {
    /// Makes a connector for the servers of an address, from its files as they are now.
    pub(super) fn new(address: &Address) -> Result<Connector<'_>, TlsFilesError> {
        Ok(Connector {
            login: &address.login,
            tls: match &address.transport {
                RedisTransport::Plain => None,
                RedisTransport::Tls(files) => {
                    Some(TlsConnector::from(Arc::new(files.client("store.ca")?)))
                }
            },
        })
    }

    /// Connects to a server.
    pub(super) async fn dial(
        &self,
        server: &RedisServer,
    ) -> Result<MultiplexedConnection, RedisError> {
        self.connect(server, self.login).await
    }

    /// Connects to the master of this name, as one of the Sentinels knows it.
    pub(super) async fn dial_master(
        &self,
        sentinels: &[RedisServer],
        name: &str,
        db: i64,
    ) -> Result<MultiplexedConnection, RedisError> {
        let asked = self.ask_sentinels(sentinels, name, db);
        // Without a limit, several Sentinels that do not reply would add up.
        let asked = tokio::time::timeout(ANSWER_WITHIN, asked).await;
        asked
            .unwrap_or_else(|_| Err((ErrorKind::Io, "no Sentinel names the master in time").into()))
    }

    /// Follows <https://redis.io/docs/latest/develop/reference/sentinel-clients/>.
    async fn ask_sentinels(
        &self,
        sentinels: &[RedisServer],
        name: &str,
        db: i64,
    ) -> Result<MultiplexedConnection, RedisError> {
        let mut last = (ErrorKind::Client, "no Sentinel is named in the address").into();
        for sentinel in sentinels {
            match self.by_sentinel(sentinel, name, db).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn by_sentinel(
        &self,
        sentinel: &RedisServer,
        name: &str,
        db: i64,
    ) -> Result<MultiplexedConnection, RedisError> {
        let mut sentinel = self.dial(sentinel).await?;
        let mut ask = redis::cmd("SENTINEL");
        let ask = ask.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let named: Option<(String, u16)> = ask.query_async(&mut sentinel).await?;
        let (host, port) = named.ok_or_else(|| {
            let what = "the Sentinels know no master of that name";
            RedisError::from((
                ErrorKind::MasterNameNotFoundBySentinel,
                what,
                name.to_owned(),
            ))
        })?;
        let login = self.login.clone().set_db(db);
        let mut master = self.connect(&RedisServer { host, port }, &login).await?;
        // The Sentinel's information may be old.
        let info = redis::cmd("INFO").arg("replication").to_owned();
        let info: String = info.query_async(&mut master).await?;
        match info.lines().any(|line| line.trim() == "role:master") {
            true => Ok(master),
            false => Err((ErrorKind::Io, "a Sentinel names a server that is no master").into()),
        }
    }

    async fn connect(
        &self,
        server: &RedisServer,
        login: &RedisConnectionInfo,
    ) -> Result<MultiplexedConnection, RedisError> {
        let connected = async {
            let stream = TcpStream::connect((&*server.host, server.port)).await?;
            stream.set_nodelay(true)?;
            match &self.tls {
                None => begin(stream, login).await,
                Some(tls) => {
                    let name = ServerName::try_from(server.host.clone());
                    let name = name.map_err(io::Error::other)?;
                    begin(tls.connect(name, stream).await?, login).await
                }
            }
        };
        let connected = tokio::time::timeout(CONNECT_WITHIN, connected).await;
        connected.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }
}

async fn begin(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    login: &RedisConnectionInfo,
) -> Result<MultiplexedConnection, RedisError> {
    let patience = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER_WITHIN));
    let begun = MultiplexedConnection::new_with_config(login, stream, patience).await;
    let (connection, driver) = begun?;
    // Ends when the last clone of the connection is dropped.
    tasks::spawn("redis-connection", driver);
    Ok(connection)
}
