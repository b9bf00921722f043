//! What tells requests apart: `X-Request-Id`, and the W3C's trace context. PURE.

use crate::config::plan::Tracing;
use crate::experiment::assign::murmur3_32;
use crate::experiment::http_view::HeaderView;
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// The ID of a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Which trace a request belongs to, and who asks.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// How long what it says is, in bytes.
pub(crate) const PARENT_BYTES: usize = 55;
/// What vendors add to it.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The longest request ID of somebody else that is believed.
const ID_BYTES_MAX: usize = 128;

/// What a request is told apart by: what upstream, client and log get.
#[derive(Debug, Default)]
pub struct Correlation {
    /// The request's ID, where the file asks for one.
    pub id: Option<RequestId>,
    /// The trace context that begins here, in the place of whatever came.
    pub begins: Option<TraceParent>,
}

/// A request's ID: a new one has 36 characters, one that was brought up to 128.
#[derive(Debug)]
pub struct RequestId {
    text: SmallVec<[u8; 40]>,
    /// Whether it was made here, and takes the place of whatever came.
    pub made: bool,
}

impl RequestId {
    /// The ID: visible characters.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }
}

impl Correlation {
    /// What the file says that a request must have: its own ID where a `trusted` peer brought one
    /// that is sound, or else a new one, of this time (Unix milliseconds); a trace context where it
    /// brought none that is sound.
    pub fn of<'a>(
        tracing: &Tracing,
        fields: impl HeaderView<'a>,
        trusted: bool,
        now_ms: u64,
        mut random: impl FnMut() -> u128,
    ) -> Correlation {
        let brought = || request_id(fields).filter(|_| trusted);
        let id = tracing.request_id.then(|| match brought() {
            Some(id) => RequestId {
                text: SmallVec::from_slice(id.as_bytes()),
                made: false,
            },
            None => RequestId {
                text: made(now_ms, random()),
                made: true,
            },
        });
        let starts = tracing.start.filter(|_| trace_id(fields).is_none());
        let begins = starts.map(|sampled| {
            // Neither of the two may be zero; the trace's last bits decide, the same at all
            // replicas.
            let (trace, span) = (random().max(1), random());
            TraceParent {
                trace,
                span: (span as u64).max(1),
                flags: u8::from(share(trace as u32) < sampled.get()),
            }
        });
        Correlation { id, begins }
    }

    /// Puts them into a request's head. A state belongs to its parent (Trace Context, 3.3): what
    /// came goes with the parent.
    pub fn put(&self, headers: &mut HeaderMap) {
        if let Some(id) = self.id.as_ref().filter(|id| id.made)
            && let Ok(value) = HeaderValue::from_bytes(id.as_bytes())
        {
            headers.insert(REQUEST_ID, value);
        }
        if let Some(parent) = self.begins {
            headers.remove(TRACESTATE);
            parent.put(headers);
        }
    }
}

/// A UUIDv7 of this time and these random bits.
fn made(now_ms: u64, random: u128) -> SmallVec<[u8; 40]> {
    let bytes = random.to_be_bytes();
    let mut ten = [0; 10];
    ten.copy_from_slice(&bytes[..10]);
    let id = uuid::Builder::from_unix_timestamp_millis(now_ms, &ten).into_uuid();
    let mut text = uuid::Uuid::encode_buffer();
    SmallVec::from_slice(id.hyphenated().encode_lower(&mut text).as_bytes())
}

/// What a sound `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: u128,
    /// The span that asks.
    pub span: u64,
    /// The flags.
    pub flags: u8,
}

impl TraceParent {
    /// Whether it asks to be sampled.
    pub fn is_sampled(self) -> bool {
        self.flags & 1 == 1
    }

    /// Puts it in the place of what stands there.
    pub fn put(self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_bytes(&self.text()) {
            headers.insert(TRACEPARENT, value);
        }
    }

    /// As `traceparent` says it.
    pub fn text(self) -> [u8; PARENT_BYTES] {
        let mut text = *b"00-................................-................-..";
        hex(&mut text[3..35], self.trace);
        hex(&mut text[36..52], self.span.into());
        hex(&mut text[53..55], self.flags.into());
        text
    }
}

/// Writes the last digits of a number.
fn hex(out: &mut [u8], number: u128) {
    let mut rest = number;
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
    }
}

/// Where this request lies among all, in 0..1, by its trace or else by its ID: samples that go by
/// it hold the same requests everywhere. `None` where it has neither.
pub(crate) fn lot(trace: Option<&str>, request: Option<&str>) -> Option<f64> {
    match (trace, request) {
        (Some(trace), _) => u32::from_str_radix(trace.get(24..)?, 16).ok(),
        // Others' IDs need not be random.
        (None, request) => request.map(|id| murmur3_32(id.as_bytes())),
    }
    .map(share)
}

fn share(low: u32) -> f64 {
    f64::from(low) / (f64::from(u32::MAX) + 1.0)
}

/// The request's ID, if there is one and it is sound: up to 128 visible characters.
pub(crate) fn request_id<'a>(fields: impl HeaderView<'a>) -> Option<&'a str> {
    let id = only(fields, &REQUEST_ID)?;
    let sound =
        (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|it| it.is_ascii_graphic());
    sound.then_some(id)
}

/// The trace that a request belongs to, if its `traceparent` is sound.
pub(crate) fn trace_id<'a>(fields: impl HeaderView<'a>) -> Option<&'a str> {
    sound(fields).map(|[trace, _, _]| trace)
}

/// Who asks, if its `traceparent` is sound.
pub(crate) fn parent<'a>(fields: impl HeaderView<'a>) -> Option<TraceParent> {
    let [trace, span, flags] = sound(fields)?;
    Some(TraceParent {
        trace: u128::from_str_radix(trace, 16).ok()?,
        span: u64::from_str_radix(span, 16).ok()?,
        flags: u8::from_str_radix(flags, 16).ok()?,
    })
}

/// The trace, the span and the flags of a sound `traceparent`
/// (<https://www.w3.org/TR/trace-context/#traceparent-header>).
fn sound<'a>(fields: impl HeaderView<'a>) -> Option<[&'a str; 3]> {
    let text = only(fields, &TRACEPARENT)?;
    let hex = |part: &str| {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        part.bytes().all(digit)
    };
    let mut parts = text.splitn(5, '-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let (parent, flags) = (parts.next()?, parts.next()?);
    // Only versions to come may say more.
    let whole = version != "00" || parts.next().is_none();
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let sound = version.len() == 2
        && version != "ff"
        && trace.len() == 32
        && parent.len() == 16
        && flags.len() == 2
        && [version, trace, parent, flags].into_iter().all(hex)
        && !zero(trace)
        && !zero(parent)
        && whole;
    sound.then_some([trace, parent, flags])
}

fn only<'a>(fields: impl HeaderView<'a>, name: &HeaderName) -> Option<&'a str> {
    let mut lines = fields.all(name);
    let (line, None) = (lines.next()?, lines.next()) else {
        return None;
    };
    let visible = |&byte: &u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
    let line = line.iter().all(visible).then_some(line)?;
    std::str::from_utf8(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::assign::Share;

    const SOUND: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn with(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[track_caller]
    fn trace(values: &[&str], expected: Option<&str>) {
        assert_eq!(trace_id(&with("traceparent", values)), expected);
    }

    #[test]
    fn a_parent_is_sound_or_none() {
        let id = Some("0af7651916cd43dd8448eb211c80319c");
        trace(&[SOUND], id);
        trace(&[&SOUND.replacen("00", "cc", 1)], id);
        trace(&[&format!("{}-more", SOUND.replacen("00", "cc", 1))], id);
        trace(&[&format!("{SOUND}-more")], None);
        trace(&[&SOUND.replacen("00", "ff", 1)], None);
        trace(&[&SOUND.to_uppercase()], None);
        trace(
            &[&SOUND.replace("b7ad6b7169203331", "0000000000000000")],
            None,
        );
        trace(
            &[&SOUND.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32))],
            None,
        );
        trace(&[&SOUND[..54]], None);
        trace(&[SOUND, SOUND], None);
        trace(&[""], None);
        trace(&[], None);
    }

    #[test]
    fn a_parent_is_written_as_it_was_read() {
        let read = parent(&with("traceparent", &[SOUND])).unwrap();
        assert_eq!(read.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!((read.span, read.flags), (0xb7ad_6b71_6920_3331, 1));
        assert!(read.is_sampled());
        // Whatever stood there goes; a version to come is written as the one that is known.
        let newer = SOUND.replacen("00", "cc", 1) + "-more";
        let mut headers = with("traceparent", &[&newer]);
        parent(&headers).unwrap().put(&mut headers);
        let lines: Vec<_> = headers.get_all("traceparent").iter().collect();
        assert_eq!(lines, [SOUND]);
        let unsampled = SOUND.replace("-01", "-02");
        let unsampled = parent(&with("traceparent", &[&unsampled]));
        assert!(!unsampled.unwrap().is_sampled());
        assert_eq!(parent(&with("traceparent", &["junk"])), None);
    }

    #[test]
    fn a_request_has_its_place_among_all_by_its_trace_and_else_by_its_id() {
        let trace = "0af7651916cd43dd8448eb2180000000";
        assert_eq!(lot(Some(trace), Some("a")), Some(0.5));
        // murmur3 of "a" is 0x3c2569b2.
        let by_id = f64::from(0x3c25_69b2_u32) / 4_294_967_296.0;
        assert_eq!(lot(None, Some("a")), Some(by_id));
        assert_eq!(lot(None, None), None);
    }

    #[test]
    fn an_id_is_believed_of_trusted_peers_only() {
        let tracing = Tracing {
            request_id: true,
            start: None,
            otlp: None,
        };
        let id = |values: &[&str], trusted| {
            let mut headers = with("x-request-id", values);
            Correlation::of(&tracing, &headers, trusted, 0, || 7).put(&mut headers);
            assert_eq!(headers.get_all("x-request-id").iter().count(), 1);
            request_id(&headers).unwrap().to_owned()
        };
        assert_eq!(id(&["mine"], true), "mine");
        for (values, trusted) in [
            (&["mine"][..], false),
            (&["a", "b"], true),
            (&["with space"], true),
            (&["x".repeat(129).as_str()], true),
            (&[], true),
        ] {
            let id = id(values, trusted);
            assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
        }
    }

    #[test]
    fn what_is_sound_is_passed_on_and_what_is_not_begun_anew() {
        let tracing = Tracing {
            request_id: false,
            start: Share::new(0.5),
            otlp: None,
        };
        let after = |values: &[&str], trace: u128| {
            let mut headers = with("traceparent", values);
            headers.insert("tracestate", HeaderValue::from_static("a=b"));
            let mut random = [trace, 0].into_iter();
            let tags = Correlation::of(&tracing, &headers, false, 0, || random.next().unwrap());
            tags.put(&mut headers);
            let begun = tags.begins.is_some();
            let parent = headers["traceparent"].to_str().unwrap().to_owned();
            assert_eq!(begun, parent != SOUND);
            (parent, headers.contains_key("tracestate"))
        };
        assert_eq!(after(&[SOUND], 1), (SOUND.to_owned(), true));
        let begun = |trace: u128, flags| {
            let text = format!("00-{trace:032x}-0000000000000001-{flags}");
            (text, false)
        };
        assert_eq!(after(&["junk"], 1), begun(1, "01"));
        assert_eq!(
            after(&[SOUND, SOUND], 0xffff_ffff),
            begun(0xffff_ffff, "00")
        );
        assert_eq!(after(&[], 0), begun(1, "01"));
    }
}
