//! What is known of a request when it has ended. PURE.

use std::net::IpAddr;
use std::time::Duration;

/// A request and its answer, as the proxy knew them.
#[derive(Debug)]
pub struct SampledRequest {
    /// Which trace it belongs to.
    pub trace: Trace,
    /// The span of the whole.
    pub span: u64,
    /// When it began, since the Unix epoch.
    pub began: Duration,
    /// From then to the last byte of the answer.
    pub took: Duration,
    /// Whether the client came over TLS.
    pub secure: bool,
    /// Who asked.
    pub client: IpAddr,
    /// The method.
    pub method: String,
    /// The host, perhaps with its port.
    pub host: Option<String>,
    /// The path; with its query, where that may be told.
    pub path: String,
    /// Of the client's HTTP: `2`, `1.1` or `1.0`.
    pub version: &'static str,
    /// What the client calls itself.
    pub user_agent: Option<String>,
    /// The groups that the user is in: `new-site=control`, in file order, parted by commas.
    pub experiments: Option<String>,
    /// Which of them, as an experiment and a group, decided where the request went; or else the
    /// first.
    pub group: Option<(String, String)>,
    /// What decided the group.
    pub assigned_by: Option<&'static str>,
    /// The experiment in whose group's place control answered.
    pub fallback: Option<String>,
    /// The upstream that answered, or should have.
    pub upstream: Option<String>,
    /// The answer's status.
    pub status: Option<u16>,
    /// The token of `Watershed-Error`.
    pub error: Option<String>,
    /// How it ended: `complete`, `upstream_broke_off` or `client_left`.
    pub end: &'static str,
    /// The times that it was sent.
    pub attempts: Vec<Attempt>,
}

impl SampledRequest {
    /// How many spans it is.
    pub fn spans(&self) -> u64 {
        1 + self.attempts.len() as u64
    }
}

/// What came, or was begun, as the W3C's trace context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub id: u128,
    /// The span that asked; `None` where the trace begins here.
    pub parent: Option<u64>,
    /// The flags, as they came.
    pub flags: u8,
    /// What `tracestate` says.
    pub state: Option<String>,
}

/// One time that a request was sent, or should have been.
#[derive(Debug)]
pub struct Attempt {
    /// Its span, which the upstream knows as its parent.
    pub span: u64,
    /// From the beginning of the request.
    pub after: Duration,
    /// To its end; `None` where it lasted as long as the request.
    pub took: Option<Duration>,
    /// To which version of the site.
    pub upstream: String,
    /// Where that runs: scheme, host and port.
    pub endpoint: Option<(&'static str, String, u16)>,
    /// Of the upstream's HTTP: `2` or `1.1`.
    pub version: Option<&'static str>,
    /// The answer's status.
    pub status: Option<u16>,
    /// Why there was none.
    pub error: Option<&'static str>,
}
