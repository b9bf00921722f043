//! The reader of requests: how the bytes are cut changes nothing; whatever it accepts, another
//! parser reads the same; what it writes for the upstream is exactly
//! one request, with nothing of the client's that only the proxy may say.

use super::super::http1::{self, Field, Message, values};
use super::super::plan::{self, PEER};
use super::super::split;
use watershed::config::plan::Plan;
use watershed::experiment::UserId;
use watershed::experiment::identity;
use watershed::experiment::resolve::{self, Subject};
use watershed::proxy::fuzzing::believed_client;
use watershed::proxy::fuzzing::headers::PlanHeaders;
use watershed::proxy::fuzzing::{
    Body, ClientInfo, Forwarding, PartialHead, Protocol, Request, read_request,
};
use watershed::proxy::fuzzing::{Bounds, Correlation, ErrorCode};

const BOUNDS: Bounds = Bounds {
    head_bytes: 2048,
    headers: 20,
    target_bytes: 200,
};

/// What belongs to the connection, or is written anew for the next one.
const OF_THE_CONNECTION: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "upgrade",
    "forwarded",
    "max-forwards",
];

#[derive(Debug, PartialEq)]
enum Outcome {
    More,
    Unsound(ErrorCode),
    Request(usize, Body, bool),
}

fn outcome(read: &Result<Option<Request<'_>>, ErrorCode>) -> Outcome {
    match read {
        Ok(None) => Outcome::More,
        Err(reason) => Outcome::Unsound(*reason),
        Ok(Some(request)) => Outcome::Request(request.head_bytes, request.body, request.closes),
    }
}

/// How long a body with a length is, as far as it is made here.
fn length(request: &Request<'_>) -> usize {
    match request.body {
        Body::Length(length) => length.min(64 << 10) as usize,
        Body::None | Body::Chunks => 0,
    }
}

/// What traces and logs go by.
const TAGS: &[&str] = &["x-request-id", "traceparent", "tracestate"];

/// The name that CGI, Rack and PHP make of this one, if it is another.
fn disguised(name: &str) -> Option<String> {
    let plain = name.replace(|char: char| !char.is_ascii_alphanumeric(), "-");
    (plain != name).then_some(plain)
}

/// What the proxy may drop or say itself.
fn is_ours(name: &str) -> bool {
    OF_THE_CONNECTION.contains(&name)
        || TAGS.contains(&name)
        || ["watershed-", "x-forwarded-"]
            .iter()
            .any(|it| name.starts_with(it))
        || disguised(name).is_some()
}

fn others(fields: &[Field]) -> Vec<&Field> {
    fields.iter().filter(|(name, _)| !is_ours(name)).collect()
}

/// The client's request as another parser reads it.
fn other_reader(bytes: &[u8], request: &Request<'_>) -> Message {
    let head = &bytes[..request.head_bytes];
    let body = match request.body {
        Body::Chunks => b"0\r\n\r\n".to_vec(),
        _ => vec![b'x'; length(request)],
    };
    let (mut messages, sound) = http1::read(&[head, &body].concat(), false);
    assert!(sound && messages.len() == 1, "another parser: {messages:?}");
    let message = messages.swap_remove(0);
    assert_eq!(message.head_end, request.head_bytes);
    assert_eq!(message.method, request.method.as_str());
    let lines: Vec<Field> = (0..request.lines.len())
        .map(|place| request.lines.at(place))
        .map(|(name, value)| {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            (name, value.to_vec())
        })
        .collect();
    assert_eq!(lines, message.fields);
    message
}

/// Whether the upstream gets the client's target and fields, but for those that are ours.
fn is_plain(client: &Message) -> bool {
    let fields = &client.fields;
    let nominates = values(fields, "connection").iter().any(|line| {
        let known = [&b"close"[..], b"keep-alive"];
        !known.iter().any(|it| line.eq_ignore_ascii_case(it))
    });
    let ours = |text: &[u8]| text.windows(10).any(|it| it == b"watershed_");
    client.target.starts_with(b"/")
        && !ours(&client.target)
        && !values(fields, "cookie").iter().any(|it| ours(it))
        && !nominates
        && !values(fields, "host").is_empty()
}

/// What the upstream gets.
fn write(
    plan: &Plan,
    words: &PlanHeaders,
    plain: &mut Request<'_>,
    client: &Message,
    trusted: bool,
) {
    let over_tls = believed_client(plan, &*plain, (PEER, false)).over_tls;
    let visitor = identity::find(&plan.identity, &*plain);
    let user = visitor.as_ref().map(|visitor| visitor.assigned_by());
    let user = user.unwrap_or(UserId::new(b"nobody").expect("an ID"));
    let meant = resolve::resolve(&plan.experiments, &*plain, &Subject::of(user));
    let visitor = visitor.map(identity::Visitor::into_owned);
    let mut out = Vec::new();
    let mut random = 1_u128..;
    let tags = Correlation::of(&plan.tracing, &*plain, trusted, 7, || {
        random.next().expect("a number")
    });
    let with = Forwarding {
        client: &ClientInfo::new(PEER, Protocol::Http1, false),
        trusted,
        over_tls,
        prepared: words,
        correlation: Some(&tags),
        parent: tags.begins,
        visitor: visitor.as_ref(),
        assignment: &meant,
        version_fields: &[],
        changes: None,
    };
    plain.forward(&mut out, &with);

    // Behind its body stands the next request, and nothing else.
    let head_end = out.len();
    let body = match plain.body {
        Body::Chunks => b"0\r\n\r\n".to_vec(),
        _ => vec![b'x'; length(plain)],
    };
    out.extend_from_slice(&body);
    out.extend_from_slice(b"GET /next HTTP/1.1\r\nhost: next\r\n\r\n");
    let (messages, sound) = http1::read(&out, false);
    let text = String::from_utf8_lossy(&out);
    assert!(sound, "{text}");
    let message = &messages[0];
    let whole = !matches!(plain.body, Body::Length(length) if length > 64 << 10);
    if whole {
        assert_eq!(messages.len(), 2, "{text}");
        assert_eq!(messages[1].target, b"/next");
    }
    assert_eq!(message.head_end, head_end, "{text}");
    assert_eq!(message.method, client.method);
    assert!(message.target.starts_with(b"/") || message.target == b"*");

    let fields = &message.fields;
    let via = match plain.http_10 {
        true => &b"1.0 watershed"[..],
        false => b"1.1 watershed",
    };
    assert_eq!(values(fields, "via").last(), Some(&via), "{text}");
    if is_plain(client) {
        assert_eq!(message.target, client.target, "{text}");
        let mut expected = others(&client.fields);
        let via = ("via".to_owned(), via.to_vec());
        expected.push(&via);
        assert_eq!(others(fields), expected, "{text}");
    }
    for name in ["keep-alive", "proxy-connection"] {
        assert!(values(fields, name).is_empty(), "{text}");
    }
    // A trusted peer may say what it likes under its own prefix.
    let foreign = fields
        .iter()
        .filter(|(name, _)| !name.starts_with("x-forwarded-"));
    for plain in foreign.filter_map(|(name, _)| disguised(name)) {
        let said = ["host", "content-length", "via", "x-user"].contains(&&*plain);
        assert!(!said && !is_ours(&plain), "{plain} in disguise: {text}");
    }
    let peer = PEER.to_string();
    let whose = values(fields, "x-forwarded-for");
    assert!(
        whose.len() == 1 && whose[0].ends_with(peer.as_bytes()),
        "{text}"
    );
    if !trusted {
        assert_eq!(whose[0], peer.as_bytes());
        assert_eq!(values(fields, "x-forwarded-proto"), [b"http"]);
        let host = values(fields, "host");
        assert_eq!(values(fields, "x-forwarded-host"), host, "{text}");
        let known = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
        let mut names = fields.iter().map(|(name, _)| &**name);
        assert!(names.all(|name| !name.starts_with("x-forwarded-") || known.contains(&name)));
    }
    let told = values(fields, "watershed-user");
    match &visitor {
        // Another parser takes the spaces around a value away.
        Some(visitor) if !told.is_empty() => {
            assert_eq!(told, [visitor.user().as_bytes().trim_ascii()]);
        }
        _ => assert!(told.is_empty(), "{text}"),
    }
    for name in TAGS {
        let (client, upstream) = (values(&client.fields, name), values(fields, name));
        match *name {
            "x-request-id" => assert_eq!(upstream.len(), 1, "{text}"),
            _ if tags.begins.is_none() => assert_eq!(upstream, client, "{text}"),
            "traceparent" => assert_eq!(upstream.len(), 1, "{text}"),
            _ => assert!(upstream.is_empty(), "{text}"),
        }
    }
    let told = ["watershed-user", "watershed-experiment"];
    let mut names = fields.iter().map(|(name, _)| &**name);
    assert!(
        names.all(|name| !name.starts_with("watershed-") || told.contains(&name)),
        "{text}"
    );
    assert_eq!(
        values(fields, "watershed-experiment").len(),
        meant.inside.len()
    );
}

/// Tries one input.
pub fn try_input(input: &[u8]) {
    let Some((mut cutter, bytes)) = split(input) else {
        return;
    };
    let trusted = input[0] & 1 == 1;
    plan::with(trusted, |plan, words| {
        let read = |bytes| read_request(bytes, &BOUNDS, &words.reserved, trusted);
        let whole = outcome(&read(bytes));
        assert!(
            whole != Outcome::More || bytes.len() <= BOUNDS.head_bytes,
            "too much is held"
        );
        let (mut come, mut partial) = (0, PartialHead::default());
        while come < bytes.len() {
            come = (come + cutter.size()).min(bytes.len());
            // As the connection reads it.
            if !partial.is_news(&bytes[..come], BOUNDS.head_bytes) {
                assert!(whole != Outcome::More || come <= BOUNDS.head_bytes);
                continue;
            }
            let part = outcome(&read(&bytes[..come]));
            if part != Outcome::More {
                assert_eq!(part, whole, "all at once, and the first {come} bytes");
                break;
            }
        }
        if let Ok(Some(mut plain)) = read(bytes) {
            let client = other_reader(bytes, &plain);
            write(plan, words, &mut plain, &client, trusted);
        }
    });
}
