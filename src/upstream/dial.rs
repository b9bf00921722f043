//! Connects to an endpoint, before any protocol is spoken.

use crate::config::plan::EndpointAddress;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::{TcpStream, UnixStream};

/// A connection without a protocol.
#[derive(Debug)]
pub enum RawConnection {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix domain socket.
    Unix(UnixStream),
}

impl RawConnection {
    /// Connects to the first of these addresses that accepts.
    pub async fn tcp(addresses: &[SocketAddr]) -> io::Result<RawConnection> {
        let stream = TcpStream::connect(addresses).await?;
        stream.set_nodelay(true)?;
        Ok(RawConnection::Tcp(stream))
    }

    /// Connects to a Unix domain socket.
    pub async fn unix(socket: &Path) -> io::Result<RawConnection> {
        UnixStream::connect(socket).await.map(RawConnection::Unix)
    }

    /// Connects to an endpoint by the system's resolver.
    pub async fn to(endpoint: &EndpointAddress) -> io::Result<RawConnection> {
        match &endpoint.socket {
            Some(socket) => RawConnection::unix(socket).await,
            None => {
                if let Some(ip) = endpoint.ip {
                    return RawConnection::tcp(&[SocketAddr::new(ip, endpoint.port)]).await;
                }
                let target = (&*endpoint.host, endpoint.port);
                let found: Vec<SocketAddr> = tokio::net::lookup_host(target).await?.collect();
                RawConnection::tcp(&found).await
            }
        }
    }

    /// Returns the address that it leads to, over TCP.
    pub fn peer(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            RawConnection::Tcp(stream) => stream.peer_addr().map(Some),
            RawConnection::Unix(_) => Ok(None),
        }
    }
}
