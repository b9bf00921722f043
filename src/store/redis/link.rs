//! The way to Redis: made when needed, given up when broken, made anew on the next call. Who calls
//! decides whether and when to try again.

use super::address::{Address, RedisServer};
use super::cluster::cluster;
use super::connector::Connector;
use super::error::{FORMAT, LinkError, Unusable};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, ServerErrorKind, Value};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Mutex;

/// The way to one Redis, shared by all who ask it.
#[derive(Debug)]
pub struct Link {
    address: Address,
    /// The key that holds the version of all keys.
    format: String,
    connection: Mutex<Option<Connection>>,
    /// How many attempts to connect have found it away.
    away: AtomicU64,
    /// What the last of them met.
    last_away: std::sync::Mutex<Option<RedisError>>,
    warned: AtomicBool,
}

/// A connection that is open; clones share it.
#[derive(Clone)]
pub enum Connection {
    /// To one server: alone, or the master that Sentinels named.
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
    /// A way that is not yet tried.
    pub fn new(address: Address, format: String) -> Link {
        Link {
            address,
            format,
            connection: Mutex::new(None),
            away: AtomicU64::new(0),
            last_away: std::sync::Mutex::default(),
            warned: AtomicBool::new(false),
        }
    }

    /// The open connection, or a new one.
    pub async fn connection(&self) -> Result<Connection, LinkError> {
        let away_before = self.away.load(Ordering::SeqCst);
        let mut kept = self.connection.lock().await;
        if let Some(connection) = &*kept {
            return Ok(connection.clone());
        }
        // Callers that wait for one attempt share its failure: one after the other, each would wait
        // for as long again, and with them a stop.
        if self.away.load(Ordering::SeqCst) != away_before {
            let last = self
                .last_away
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let why = "the attempt to connect that this call waited for has failed";
            let last = last.clone().unwrap_or_else(|| (ErrorKind::Io, why).into());
            return Err(LinkError::Away(last));
        }
        let connection = self.connect_and_check().await.inspect_err(|none| {
            if let LinkError::Away(error) = none {
                let mut last = self
                    .last_away
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *last = Some(error.clone());
                self.away.fetch_add(1, Ordering::SeqCst);
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

    /// Looks whether the keys are of a version that this program knows. Called again now and then:
    /// a newer program may have come.
    pub async fn check_again(&self) -> Result<(), LinkError> {
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
            // Release 0.1.0 wrote the same keys and no version.
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

    /// Gives the connection up when this error says that it is of no more use: broken, too slow,
    /// or to a server that is not the master any more.
    pub async fn learn_from(&self, error: &RedisError) {
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
        // Any of them will do to begin with; what the last one says is reported.
        let mut last = None;
        for server in &self.address.servers {
            match self.connect_to(&connector, server).await {
                Ok(connection) => return Ok(connection),
                Err(unusable @ LinkError::Unusable(_)) => return Err(unusable),
                Err(away) => last = Some(away),
            }
        }
        // A place has at least one server, so that one was tried.
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

    /// What kind of server it is, and whether it will do.
    async fn look(&self, connection: &mut MultiplexedConnection) -> Result<Kind, LinkError> {
        let info: String = redis::cmd("INFO").query_async(connection).await?;
        let value = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        // Valkey says the version of Redis that it is compatible with here.
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
