//! Writes the head that the upstream gets, for whichever upstream that is.

use super::changes::{Changes, ServedBy};
use super::client::{ClientInfo, Protocol};
use super::error_response::ErrorCode;
use super::exchange::{Exchange, Extras};
use super::h1::framing::Bounds;
use super::h1::request_head::{self, Request};
use super::headers::believed_client;
use super::headers::forwarding::Forwarding;
use super::headers::isolated_cookies::{self, PlainCookies};
use super::headers::version_headers::VersionFields;
use super::observe::spans::SpanRecorder;
use super::open_page::OpenPage;
use super::snapshot::Snapshot;
use crate::experiment::identity::Visitor;
use crate::experiment::served_pages::VERSION_HEADER;
use crate::tls::CLIENT_CERTIFICATE_HEADERS;
use http::header::COOKIE;

/// A request that is forwarded.
pub(super) struct ForwardedRequest<'a, 'b> {
    /// The configuration.
    pub snapshot: &'a Snapshot,
    /// The client, and whether what it says of other clients is believed.
    pub client: (&'a ClientInfo, bool),
    /// Whether the user's browser uses TLS.
    pub over_tls: bool,
    /// The user, where known.
    pub visitor: Option<&'a Visitor<'b>>,
    /// What is logged, exported or correlated.
    pub extras: Option<&'a Extras<'b>>,
    /// What the file changes.
    pub changes: Option<&'a Changes<'b>>,
    /// The page that the response is.
    pub open_page: Option<&'a OpenPage>,
}

/// What is to be known of a head that was written.
#[derive(Debug, Default)]
pub(super) struct WrittenHead {
    /// Where `Host` is missing in it, if it is.
    pub host_at: Option<usize>,
    /// Names of isolated cookies that came without a mark.
    pub plain_cookies: PlainCookies,
}

/// Writes the head for whoever serves the request.
pub(super) fn write(
    of: &ForwardedRequest<'_, '_>,
    by: ServedBy<'_>,
    request: &mut Request<'_>,
    out: &mut Vec<u8>,
) -> WrittenHead {
    let parent = of.extras.and_then(|it| {
        // Each attempt writes its own span there.
        let spans = it.spans.as_deref().map(SpanRecorder::parent);
        it.correlation.begins.or(spans)
    });
    let plan = &*of.snapshot.plan;
    let changes = of.changes.map(|changes| changes.of_request(plan, by));
    let versions = &of.snapshot.plan_headers.versions;
    let mark = by.validator_mark(plan, versions);
    let (mut version_fields, mut plain_cookies) = (VersionFields::new(), PlainCookies::new());
    if let Some(upstream) = by
        .upstream
        .filter(|_| mark.is_some() || versions.isolates())
    {
        let of = (upstream, mark.as_deref());
        plain_cookies = request.for_version(versions, of, &mut version_fields);
    }
    let open_page = of.open_page;
    if let Some(token) = open_page.and_then(|page| page.token(of.snapshot, by)) {
        version_fields.push((VERSION_HEADER, token.into_bytes()));
    }
    let (client, trusted) = of.client;
    let with = Forwarding {
        client,
        trusted,
        over_tls: of.over_tls,
        prepared: &of.snapshot.plan_headers,
        correlation: of.extras.map(|it| &it.correlation),
        parent,
        visitor: of.visitor,
        assignment: by.assignment,
        changes: changes.as_ref(),
        version_fields: &version_fields,
    };
    let places = request.forward(out, &with);
    for (name, value) in version_fields {
        if name == COOKIE {
            isolated_cookies::give(value);
        }
    }
    if let Some(extras) = of.extras {
        extras.parent_at.set(places.parent);
    }
    WrittenHead {
        host_at: places.host,
        plain_cookies,
    }
}

/// Replaces the head in `forwarded` by that for another upstream, which was not known when the
/// request began. `input` begins with the request as it came.
pub(super) fn write_again(
    client: &ClientInfo,
    exchange: &Exchange<'_>,
    by: ServedBy<'_>,
    input: &[u8],
    forwarded: &mut Vec<u8>,
) {
    let snapshot = &exchange.snapshot;
    let are_apart =
        by.assignment.varies_by.marked_validators || snapshot.plan_headers.versions.isolates();
    if exchange.changes.is_none() && exchange.open_page.is_none() && !are_apart {
        return;
    }
    let trusted = believed_client::trusts(&snapshot.plan, client.address);
    let Ok(Some(mut request)) = read(snapshot, client, trusted, input) else {
        // It was read before.
        return;
    };
    let of = ForwardedRequest {
        snapshot,
        client: (client, trusted),
        over_tls: exchange.over_tls,
        visitor: exchange.visitor.as_ref(),
        extras: exchange.extras.as_deref(),
        changes: exchange.changes.as_deref(),
        open_page: exchange.open_page.as_deref(),
    };
    let mut again = Vec::new();
    let written = write(&of, by, &mut request, &mut again);
    exchange.host_at.set(written.host_at.map(|at| (at, at)));
    exchange.plain_cookies.replace(written.plain_cookies);
    let head_bytes = memchr::memmem::find(forwarded, b"\r\n\r\n").map_or(0, |end| end + 4);
    again.extend_from_slice(&forwarded[head_bytes..]);
    *forwarded = again;
}

/// Reads a request. What came over HTTP/2 has been measured before it was written as HTTP/1.
pub(super) fn read<'b>(
    snapshot: &Snapshot,
    client: &ClientInfo,
    trusted: bool,
    input: &'b [u8],
) -> Result<Option<Request<'b>>, ErrorCode> {
    let mut bounds = Bounds::from(&snapshot.plan.limits);
    if client.protocol == Protocol::Http2 {
        (bounds.head_bytes, bounds.headers) = (usize::MAX, usize::MAX);
    }
    let reserved = &snapshot.plan_headers.reserved;
    let mut read = request_head::read(input, &bounds, reserved, trusted);
    if (client.certificate.is_some() || reserved.tells_certificates())
        && let Ok(Some(request)) = &mut read
    {
        // Whoever is trusted as a proxy has no say in who was verified here.
        for name in &CLIENT_CERTIFICATE_HEADERS {
            request.lines.take_named(name);
        }
    }
    read
}
