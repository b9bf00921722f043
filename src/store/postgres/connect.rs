//! Connects to the first server that can be written.

use super::connection::{PostgresConnection, WITHIN};
use super::error::{OLDEST, PostgresError, PostgresFailure};
use super::migrations;
use super::tls_stream::Tls;
use crate::postgres_address::{PostgresAddress, PostgresServer};
use crate::store::StoreError;
use crate::tasks;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::{NoTls, TlsConnect, TlsStream};
use tokio_postgres::{Client, SimpleQueryMessage};
use tokio_rustls::TlsConnector;

/// The longest time for a new connection to one server.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Returns a connection whose schema has the tables of this version.
pub(super) async fn connect(
    address: &PostgresAddress,
    schema: &str,
) -> Result<PostgresConnection, StoreError> {
    let mut connection = PostgresConnection::new(open(address).await?, Arc::clone(&address.place));
    // A replica that stops in the middle of a transaction holds up no other for long.
    let limit = WITHIN.as_millis();
    let schema_name = migrations::quoted(schema);
    let settings = format!(
        "SET search_path TO {schema_name}; SET statement_timeout TO {limit};
         SET lock_timeout TO {limit}; SET idle_in_transaction_session_timeout TO {limit};"
    );
    connection.batch(&settings).await?;
    migrations::migrate(&mut connection, schema).await?;
    Ok(connection)
}

async fn open(address: &PostgresAddress) -> Result<Client, PostgresError> {
    let tls = match &address.tls {
        Some(files) => {
            let client = files.client("store.ca");
            let client =
                client.map_err(|error| PostgresFailure::Tls(Arc::new(error)).at(&address.place))?;
            Some(TlsConnector::from(Arc::new(client)))
        }
        None => None,
    };
    // The error of the last one is reported.
    let mut last = None;
    for server in &address.servers {
        let opening = tokio::time::timeout(CONNECT_WITHIN, open_one(address, server, tls.as_ref()));
        match opening
            .await
            .unwrap_or(Err(PostgresFailure::Slow(CONNECT_WITHIN)))
        {
            Ok(client) => return Ok(client),
            Err(failure) => last = Some(failure),
        }
    }
    // An address has at least one server, so one was tried.
    let none = || PostgresFailure::Dial(Arc::new(io::ErrorKind::NotFound.into()));
    Err(last.unwrap_or_else(none).at(&address.place))
}

async fn open_one(
    address: &PostgresAddress,
    server: &PostgresServer,
    tls: Option<&TlsConnector>,
) -> Result<Client, PostgresFailure> {
    let of_dial = |error| PostgresFailure::Dial(Arc::new(error));
    let client = match server {
        PostgresServer::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(of_dial)?;
            begin(address, stream, NoTls).await?
        }
        PostgresServer::Tcp(host, port) => {
            let stream = TcpStream::connect((&**host, *port)).await;
            let stream = stream.map_err(of_dial)?;
            stream.set_nodelay(true).map_err(of_dial)?;
            match tls {
                None => begin(address, stream, NoTls).await?,
                Some(connector) => {
                    let name = ServerName::try_from(host.clone());
                    let name = name.map_err(|error| of_dial(io::Error::other(error)))?;
                    let connector = connector.clone();
                    begin(address, stream, Tls { connector, name }).await?
                }
            }
        }
    };
    look(&client).await?;
    Ok(client)
}

async fn begin<S, T>(
    address: &PostgresAddress,
    stream: S,
    tls: T,
) -> Result<Client, PostgresFailure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: TlsConnect<S>,
    T::Stream: TlsStream + Unpin + Send + 'static,
{
    let (client, connection) = address.login.connect_raw(stream, tls).await?;
    // Ends when the client is dropped. Errors reach whoever waits for a reply.
    tasks::spawn("postgres-connection", async move {
        let _ = connection.await;
    });
    Ok(client)
}

/// Checks that the server is new enough, and can be written.
async fn look(client: &Client) -> Result<(), PostgresFailure> {
    let sql =
        "SELECT current_setting('server_version_num'), current_setting('transaction_read_only')";
    for message in client.simple_query(sql).await? {
        let SimpleQueryMessage::Row(row) = message else {
            continue;
        };
        let number = row.get(0).and_then(|number| number.parse::<u32>().ok());
        let version = number.unwrap_or(0) / 10_000;
        if version < OLDEST {
            return Err(PostgresFailure::TooOld { found: version });
        }
        if row.get(1) == Some("on") {
            return Err(PostgresFailure::ReadOnly);
        }
    }
    Ok(())
}
