//! What logs and spans read of a request. PURE.

use crate::experiment::http_view::HeaderView;
use crate::proxy::client::ClientInfo;
use crate::proxy::observe::trace_context;
use crate::telemetry::HttpProtocol;
use http::Method;
use http::header::{HOST, USER_AGENT};
use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;

/// The longest text of a client's that is logged, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 1024;

/// A request, as it arrived.
#[derive(Debug)]
pub(crate) struct LoggedRequest<'a, F> {
    /// The client's address, as it is believed.
    pub client: IpAddr,
    /// Whether the client uses TLS, here or at a trusted peer.
    pub secure: bool,
    /// The method.
    pub method: Method,
    /// The authority of the target, where it has one.
    pub authority: Option<&'a str>,
    /// The path of the target.
    pub path: &'a str,
    /// The same with the query.
    pub target: &'a str,
    /// The client's HTTP.
    pub protocol: HttpProtocol,
    /// The fields of the head, as they came.
    pub fields: F,
}

impl<'a, F: HeaderView<'a>> LoggedRequest<'a, F> {
    /// The host that the request is for.
    pub(crate) fn host(&self) -> Option<&'a [u8]> {
        let authority = self.authority.map(str::as_bytes);
        authority.or_else(|| self.fields.first(&HOST))
    }

    /// What the client says it is.
    pub(crate) fn user_agent(&self) -> Option<&'a [u8]> {
        self.fields.first(&USER_AGENT)
    }
}

/// What is logged of a request's head. It borrows from the client's bytes.
#[derive(Debug)]
pub(crate) struct LoggedHead<'b> {
    /// The client's address, where a trusted peer names another one than its own.
    client: Option<IpAddr>,
    peer: Rc<ClientInfo>,
    /// The host that it is for.
    pub host: Option<&'b [u8]>,
    /// The path of the target.
    pub path: &'b str,
    /// The same with the query.
    pub target: &'b str,
    /// What the client says it is.
    pub user_agent: Option<&'b [u8]>,
    /// The ID that the client brought.
    pub id: Option<&'b str>,
    /// The trace that the client brought.
    pub trace: Option<&'b str>,
}

impl<'b> LoggedHead<'b> {
    /// What is logged of this request.
    pub(crate) fn new<F: HeaderView<'b>>(
        peer: &Rc<ClientInfo>,
        request: &LoggedRequest<'b, F>,
    ) -> LoggedHead<'b> {
        LoggedHead {
            client: Some(request.client).filter(|client| *client != peer.address),
            peer: Rc::clone(peer),
            host: request.host(),
            path: request.path,
            target: request.target,
            user_agent: request.user_agent(),
            id: trace_context::request_id(request.fields),
            trace: trace_context::trace_id(request.fields),
        }
    }

    /// The client's address.
    pub(crate) fn client(&self) -> Cow<'_, [u8]> {
        match self.client {
            None => Cow::Borrowed(self.peer.text()),
            Some(client) => Cow::Owned(client.to_string().into_bytes()),
        }
    }
}

/// A text of the client's, cut at `TEXT_BYTES_MAX`.
pub(crate) fn bounded(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    String::from_utf8_lossy(bytes).into_owned()
}
