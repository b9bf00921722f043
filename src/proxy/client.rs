//! What is known of a client. PURE.

use std::net::IpAddr;

/// The protocol that a client speaks. Each request tells HTTP/1.0 from HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What is known of a client, for one connection.
#[derive(Debug)]
pub struct ClientInfo {
    /// The peer's address, or the one that a trusted peer names with the PROXY protocol.
    pub address: IpAddr,
    /// The protocol that it speaks.
    pub protocol: Protocol,
    /// Whether it uses TLS.
    pub secure: bool,
    /// The address with the end of its line, as `X-Forwarded-For` has it.
    pub(in crate::proxy) line: Box<[u8]>,
    /// The header lines that tell upstreams of the certificate that it has presented.
    pub(in crate::proxy) certificate: Option<Box<[u8]>>,
}

impl ClientInfo {
    /// A client of this address.
    pub fn new(address: IpAddr, protocol: Protocol, secure: bool) -> ClientInfo {
        ClientInfo {
            address,
            protocol,
            secure,
            line: format!("{address}\r\n").into_bytes().into(),
            certificate: None,
        }
    }

    /// The same with a certificate that was verified, as these header lines tell.
    pub fn with_certificate(self, certificate: Option<Box<[u8]>>) -> ClientInfo {
        ClientInfo {
            certificate,
            ..self
        }
    }

    /// The address as logs write it.
    pub fn text(&self) -> &[u8] {
        &self.line[..self.line.len() - b"\r\n".len()]
    }
}
