//! The fast path's reader of responses: how the bytes are cut changes nothing; whatever it accepts,
//! hyper and another parser read the same; what the client gets is exactly one response with the
//! upstream's body, and a connection is kept only where nothing is left on it.

use super::super::http1::{self, Field, values};
use super::super::pieces::{Stream, run};
use super::super::plan;
use super::super::split;
use http::{Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1 as client;
use hyper_util::rt::TokioIo;
use watershed::config::plan::Plan;
use watershed::experiment::UserId;
use watershed::experiment::resolve::{self, Subject};
use watershed::proxy::fuzzing::headers::{self, PlanHeaders};
use watershed::proxy::fuzzing::{
    BodyReader, ClientContext, ClientFraming, EditableHead, ExtraHeaders, HeadWriter, ParsedHead,
    PartialHead, ResponseContext, ResponseHead, ResponseLimits, read_answer,
};

/// Small ones, so that what exceeds them is found too.
const LIMITS: ResponseLimits = ResponseLimits {
    head_bytes: 1024,
    headers: 12,
};
const INTERIM_MAX: usize = 64;
const DATE: &[u8] = b"Tue, 24 Nov 2026 05:00:00 GMT";

/// How it is asked, and what becomes of the client's connection.
#[derive(Clone, Copy)]
struct LoggedRequest {
    to_head: bool,
    closes: bool,
}

/// What became of the upstream's bytes.
#[derive(Debug, Default, PartialEq)]
struct Passed {
    /// Interim responses: their statuses.
    interim: Vec<u16>,
    /// How long the final head was, and what the client got of its response.
    head_bytes: Option<usize>,
    out: Vec<u8>,
    /// All of it came.
    ended: bool,
    /// It was not what it said it would be.
    broken: bool,
    /// The upstream's connection may be used again.
    keeps: bool,
}

fn finish(answer: &mut ResponseHead<'_>, asked: LoggedRequest, out: &mut Vec<u8>) {
    plan::with(false, |plan, words| {
        complete(plan, words, answer, asked, out)
    });
}

fn complete(
    plan: &Plan,
    words: &PlanHeaders,
    answer: &mut ResponseHead<'_>,
    asked: LoggedRequest,
    out: &mut Vec<u8>,
) {
    let (request, ()) = http::Request::get("/a/b")
        .body(())
        .expect("a request")
        .into_parts();
    let meant = resolve::resolve(
        &plan.experiments,
        &request,
        &Subject::of(UserId::new(b"u1").expect("an ID")),
    );
    let version = match answer.http_10 {
        true => Version::HTTP_10,
        false => Version::HTTP_11,
    };
    answer.strip();
    let mut more = ExtraHeaders::new();
    let mut edited = EditableHead {
        answer,
        more: &mut more,
    };
    let head = (version, &mut edited);
    headers::finish(
        (plan, words),
        head,
        None,
        (&meant, plan.cache.rules),
        (std::iter::empty(), false, false),
        false,
    );
    let to = ClientContext {
        closes: asked.closes,
        ..ClientContext::default()
    };
    out.complete(answer, &more, DATE, to);
    let mut fields = Response::new(());
    fields.complete(answer, &more, DATE, to);
    assert_eq!(fields.status().as_u16(), answer.status);
}

/// Reads as the exchange with an upstream does, and writes as the relay to the client does; the
/// upstream closes behind the last piece.
fn pass<'a>(pieces: impl Iterator<Item = &'a [u8]>, asked: LoggedRequest) -> Passed {
    let (mut passed, mut said, mut rest) = (Passed::default(), Vec::new(), None);
    let mut partial = PartialHead::default();
    let context = ResponseContext {
        to_head: asked.to_head,
        ..ResponseContext::default()
    };
    for piece in pieces {
        said.extend_from_slice(piece);
        while rest.is_none() && partial.is_news(&said, LIMITS.head_bytes) {
            let drained = match read_answer(&said, LIMITS, context) {
                Ok(ParsedHead::More) => break,
                Ok(ParsedHead::Interim(status, end)) => {
                    passed.interim.push(status);
                    if passed.interim.len() > INTERIM_MAX {
                        passed.broken = true;
                        return passed;
                    }
                    end
                }
                Ok(ParsedHead::Final(mut answer)) => {
                    passed.keeps = answer.keeps;
                    passed.head_bytes = Some(answer.head_bytes);
                    rest = Some(BodyReader::new(answer.follows, ClientFraming::Chunks));
                    finish(&mut answer, asked, &mut passed.out);
                    answer.head_bytes
                }
                Err(_) => {
                    passed.broken = true;
                    return passed;
                }
            };
            said.drain(..drained);
            partial.reset();
        }
        let Some(rest) = &mut rest else { continue };
        if rest.copy(&mut said, &mut passed.out).is_err() {
            passed.broken = true;
            return passed;
        }
        if rest.has_ended() {
            passed.ended = true;
            return passed;
        }
    }
    // Closed, and unsound before the end of its line.
    if rest.is_none() && read_answer(&said, LIMITS, context).is_err() {
        passed.broken = true;
    }
    if rest.is_some_and(|mut rest| rest.close().is_some()) {
        passed.out.extend_from_slice(b"0\r\n\r\n");
        passed.ended = true;
    }
    passed
}

/// Status, number of fields and body (`None` when it breaks off), read by hyper.
async fn by_hyper(to_head: bool, stream: Stream) -> Option<(u16, usize, Option<Vec<u8>>)> {
    let mut builder = client::Builder::new();
    let connecting = builder.max_headers(300).handshake(TokioIo::new(stream));
    let (mut sender, connection) = connecting.await.ok()?;
    let running = tokio::task::spawn_local(connection);
    let request = Request::builder().method(if to_head { "HEAD" } else { "GET" });
    let request = request.uri("/").header("host", "a");
    let response = sender.send_request(request.body(Empty::<Bytes>::new()).ok()?);
    let read = match response.await {
        Ok(response) => {
            let (head, body) = response.into_parts();
            let body = body.collect().await.ok();
            let body = body.map(|body| body.to_bytes().to_vec());
            Some((head.status.as_u16(), head.headers.len(), body))
        }
        Err(_) => None,
    };
    running.abort();
    read
}

/// What may differ between the upstream's fields and the client's.
fn is_edited(fields: &[Field], name: &str) -> bool {
    let of_the_hop = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
    ];
    let edited = [
        "transfer-encoding",
        "vary",
        "via",
        "cache-control",
        "date",
        "content-length",
    ];
    let listed = values(fields, "connection");
    let mut listed = listed
        .iter()
        .flat_map(|line| line.split(|&byte| byte == b','));
    of_the_hop.contains(&name)
        || edited.contains(&name)
        || name.starts_with("watershed-")
        || name.ends_with("-control")
        || listed.any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
}

/// The client's view against what two other parsers see of the upstream's.
fn check(bytes: &[u8], passed: &Passed, asked: LoggedRequest) {
    let Some(head_bytes) = passed.head_bytes else {
        assert!(passed.out.is_empty());
        return;
    };
    let mut start = 0;
    let upstream = loop {
        let upstream = http1::response(&bytes[start..], asked.to_head);
        // An interim one has no body, whatever it says.
        match upstream {
            Ok(Some(it)) if it.status < 200 => start += it.head_end,
            Ok(Some(it)) => break it,
            // A body that did not come to its end, which another parser need not wait for.
            Err(_) if !passed.ended => return,
            other => panic!("another parser sees {other:?}"),
        }
    };
    assert_eq!(upstream.head_end, head_bytes);
    if passed.broken {
        return;
    }
    let text = String::from_utf8_lossy(&passed.out);
    let client = http1::response(&passed.out, asked.to_head);
    let client = client.expect("a sound response").expect("a whole head");
    assert_eq!(client.status, upstream.status, "{text}");
    assert!(!client.http_10);
    let body = client.body.as_ref().map(|(body, _)| body);
    assert_eq!(body.is_some(), passed.ended, "{text}");
    if let Some((_, end)) = client.body {
        assert_eq!(end, passed.out.len(), "more than one response: {text}");
    }
    let (length, coded) = ("content-length", "transfer-encoding");
    assert!(values(&client.fields, length).len() + values(&client.fields, coded).len() <= 1);
    assert_eq!(
        values(&client.fields, "date").len().max(1),
        values(&upstream.fields, "date").len().max(1)
    );
    let closes = values(&client.fields, "connection");
    assert_eq!(
        closes,
        vec![&b"close"[..]; usize::from(asked.closes)],
        "{text}"
    );
    let kept = |fields: &[Field]| -> Vec<Field> {
        let kept = fields
            .iter()
            .filter(|(name, _)| !is_edited(&upstream.fields, name));
        kept.cloned().collect()
    };
    assert_eq!(kept(&client.fields), kept(&upstream.fields), "{text}");
    assert!(
        client
            .fields
            .iter()
            .all(|(name, _)| !name.starts_with("watershed-")),
        "{text}"
    );

    let seen = run(by_hyper(asked.to_head, Stream::whole(bytes)));
    let (status, fields, seen) = seen.expect("hyper refuses it");
    assert_eq!((status, fields), (upstream.status, upstream.fields.len()));
    assert_eq!(seen.as_ref(), body, "hyper reads another body");
}

/// Tries one input.
pub fn try_input(input: &[u8]) {
    let Some((mut cutter, bytes)) = split(input) else {
        return;
    };
    let asked = LoggedRequest {
        to_head: input[0] & 1 == 1,
        closes: input[0] & 2 == 2,
    };
    let whole = pass(std::iter::once(bytes), asked);
    let pieces = cutter.cut(bytes);
    let cut = pass(pieces.iter().map(|piece| &piece[..]), asked);
    check(bytes, &whole, asked);
    check(bytes, &cut, asked);
    // Chunks of a body that ends with the connection are as long as what came at once, and of
    // what breaks off more may have been passed on.
    let outcome = |passed: Passed| {
        let Passed {
            interim,
            head_bytes,
            ended,
            broken,
            keeps,
            ..
        } = passed;
        (interim, head_bytes, ended, broken, keeps)
    };
    assert_eq!(outcome(whole), outcome(cut), "all at once, and cut");
}
