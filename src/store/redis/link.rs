//! The connection to Redis. It is made when it is needed, closed when it is broken, and made again by the
//! next call. Callers decide whether and when to try again.

use super::cluster::cluster;
use super::connector::Connector;
use super::error::{FORMAT, LinkError, Unusable};
use crate::redis_address::{Address, RedisServer};
use crate::store::shared_failure::SharedFailure;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, ServerErrorKind, Value};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Mutex;

/// The connection to one Redis, shared by all callers.
#[derive(Debug)]
pub(super) struct Link {
    address: Address,
    /// The key that holds the version of all keys.
    format: String,
    connection: Mutex<Option<Connection>>,
    failures: SharedFailure<RedisError>,
    warned: AtomicBool,
}

/// An open connection. Clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    /// To one server, or to the master that Sentinels named.
    One(MultiplexedConnection),
    /// To all masters of a cluster.
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Connection::One(_) => "One",
            Connection::Cluster(_) => "Cluster",
        })
    }
}

impl Link {
    /// Makes a link without connecting.
    pub(super) fn new(address: Address, format: String) -> Link {
        Link {
            address,
            format,
            connection: Mutex::new(None),
            failures: SharedFailure::default(),
            warned: AtomicBool::new(false),
        }
    }

    /// Returns the open connection, or a new one.
    pub(super) async fn connection(&self) -> Result<Connection, LinkError> {
        let failed_before = self.failures.count();
        let mut kept = self.connection.lock().await;
        if let Some(connection) = &*kept {
            return Ok(connection.clone());
        }
        if let Some(failure) = self.failures.since(failed_before) {
            return Err(LinkError::Away(failure));
        }
        let connection = self.connect_and_check().await.inspect_err(|none| {
            if let LinkError::Away(error) = none {
                self.failures.note(error.clone());
            }
        })?;
        *kept = Some(connection.clone());
        Ok(connection)
    }

    async fn connect_and_check(&self) -> Result<Connection, LinkError> {
        let mut connection = self.connect().await?;
        self.check(&mut connection).await?;
        Ok(connection)
    }

    /// Checks that the keys have a version that this program knows. It is repeated, because a newer program
    /// may have started since.
    pub(super) async fn check_again(&self) -> Result<(), LinkError> {
        let mut connection = self.connection().await?;
        let checked = self.check(&mut connection).await;
        if checked.is_err() {
            *self.connection.lock().await = None;
        }
        checked
    }

    async fn check(&self, connection: &mut Connection) -> Result<(), LinkError> {
        let mut get = redis::cmd("HGET");
        get.arg(&self.format).arg("version");
        let version: Result<Option<String>, RedisError> = get.query_async(connection).await;
        let version = version.map_err(|error| match error.code() {
            Some("WRONGTYPE") => LinkError::Unusable(Unusable::Foreign(error)),
            _ => error.into(),
        })?;
        match version {
            // Release 0.1.0 wrote the same keys without a version.
            None => {
                let mut set = redis::cmd("HSETNX");
                set.arg(&self.format).arg("version").arg(FORMAT);
                Ok(set.query_async(connection).await?)
            }
            Some(version) => match version.parse() {
                Ok(number) if (1..=FORMAT).contains(&number) => Ok(()),
                _ => Err(LinkError::Unusable(Unusable::Newer(version))),
            },
        }
    }

    /// Closes the connection after an error that makes it useless: it is broken, too slow, or its server is
    /// no longer the master.
    pub(super) async fn learn_from(&self, error: &RedisError) {
        let of_use = match error.kind() {
            ErrorKind::Server(kind) => !matches!(
                kind,
                ServerErrorKind::ReadOnly
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::Moved
                    | ServerErrorKind::Ask
            ),
            ErrorKind::Extension | ErrorKind::UnexpectedReturnType => true,
            _ => false,
        };
        if !of_use {
            *self.connection.lock().await = None;
        }
    }

    async fn connect(&self) -> Result<Connection, LinkError> {
        let connector = Connector::new(&self.address);
        let connector = connector.map_err(|error| LinkError::Unusable(Unusable::Tls(error)))?;
        if let Some((master, db)) = &self.address.master {
            let connection = connector.dial_master(&self.address.servers, master, *db);
            let mut connection = connection.await?;
            self.look(&mut connection).await?;
            return Ok(Connection::One(connection));
        }
        // Any server will do; the error of the last one is reported.
        let mut last = None;
        for server in &self.address.servers {
            match self.connect_to(&connector, server).await {
                Ok(connection) => return Ok(connection),
                Err(unusable @ LinkError::Unusable(_)) => return Err(unusable),
                Err(away) => last = Some(away),
            }
        }
        // An address has at least one server, so one was tried.
        Err(last.unwrap_or_else(|| {
            LinkError::Away((ErrorKind::Client, "no server is named in the address").into())
        }))
    }

    async fn connect_to(
        &self,
        connector: &Connector<'_>,
        server: &RedisServer,
    ) -> Result<Connection, LinkError> {
        let mut connection = connector.dial(server).await?;
        match self.look(&mut connection).await? {
            Kind::Alone => Ok(Connection::One(connection)),
            Kind::NodeOfCluster => Ok(Connection::Cluster(cluster(&self.address).await?)),
        }
    }

    /// Checks the server, and returns its kind.
    async fn look(&self, connection: &mut MultiplexedConnection) -> Result<Kind, LinkError> {
        let info: String = redis::cmd("INFO").query_async(connection).await?;
        let value = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        // Valkey reports the version of Redis that it is compatible with.
        let version = value("redis_version").unwrap_or("0");
        let mut numbers = version
            .split('.')
            .map(|delta| delta.parse::<u32>().unwrap_or(0));
        if (numbers.next(), numbers.next()) < (Some(6), Some(2)) {
            return Err(LinkError::Unusable(Unusable::TooOld(version.to_owned())));
        }
        if let Some(policy) = value("maxmemory_policy").filter(|policy| *policy != "noeviction")
            && value("maxmemory").is_some_and(|bytes| bytes != "0")
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "Redis may evict counts when its memory is full (maxmemory-policy {policy}): set it to noeviction"
            );
        }
        Ok(match value("cluster_enabled") {
            Some("1") => Kind::NodeOfCluster,
            _ => Kind::Alone,
        })
    }
}

#[derive(PartialEq, Eq)]
enum Kind {
    Alone,
    NodeOfCluster,
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Connection::One(one) => one.req_packed_command(command),
            Connection::Cluster(cluster) => cluster.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Connection::One(one) => one.req_packed_commands(pipeline, offset, count),
            Connection::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Connection::One(one) => one.get_db(),
            Connection::Cluster(cluster) => cluster.get_db(),
        }
    }
}
