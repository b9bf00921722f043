//! Connections to all masters of a cluster. The redis crate makes them and accepts no verifier of ours:
//! over TLS, a node must present a certificate with a chain to one of `ca`.

use super::error::{LinkError, Unusable};
use super::timeouts::{ANSWER_WITHIN, CONNECT_WITHIN};
use crate::redis_address::{Address, RedisServer, RedisTransport};
use crate::tls::{TlsFiles, TlsFilesError};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{
    ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError,
    TlsCertificates, TlsMode,
};
use std::path::PathBuf;

/// How often the crate sends a command again, for a master that has just moved. Ingestion tries again
/// besides.
const RETRIES: u32 = 3;

/// Connects to the cluster of these servers.
pub(super) async fn cluster(address: &Address) -> Result<ClusterConnection, LinkError> {
    let nodes = address.servers.iter().map(|server| node(address, server));
    let nodes = nodes.collect::<Result<Vec<ConnectionInfo>, RedisError>>()?;
    let mut builder = ClusterClientBuilder::new(nodes)
        .connection_timeout(CONNECT_WITHIN)
        .response_timeout(ANSWER_WITHIN)
        .retries(RETRIES);
    if let RedisTransport::Tls(files) = &address.transport {
        // An error means that a provider is installed already; any provider works.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificates = certificates(files);
        let certificates =
            certificates.map_err(|error| LinkError::Unusable(Unusable::Tls(error)))?;
        builder = builder.tls(TlsMode::Secure).certs(certificates);
    }
    Ok(builder.build()?.get_async_connection().await?)
}

fn node(address: &Address, server: &RedisServer) -> Result<ConnectionInfo, RedisError> {
    let (host, port) = (server.host.clone(), server.port);
    let place = match address.transport {
        RedisTransport::Plain => ConnectionAddr::Tcp(host, port),
        RedisTransport::Tls(_) => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        },
    };
    let info = place.into_connection_info()?;
    Ok(info.set_redis_settings(address.login.clone()))
}

/// Reads the files as they are now.
fn certificates(files: &TlsFiles) -> Result<TlsCertificates, TlsFilesError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| TlsFilesError::File(path.clone(), error))
    };
    let client_tls = match &files.identity {
        Some((certificate, key)) => Some(ClientTlsConfig {
            client_cert: read(certificate)?,
            client_key: read(key)?,
        }),
        None => None,
    };
    Ok(TlsCertificates {
        client_tls,
        root_cert: files.ca.as_ref().map(read).transpose()?,
    })
}
