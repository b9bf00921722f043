//! Events that an upstream's header, a browser or a server reports, and what can be wrong with
//! one. The header is a list of RFC 9651, read leniently: what is wrong with one member or
//! parameter loses only itself.

use super::decimal::Decimal;
use super::http_view::{FieldName, HeaderView};
use http::header::HeaderName;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU64;

/// The header in which an upstream reports events; removed before the client sees it.
pub const EVENT_HEADER: HeaderName = HeaderName::from_static(EVENT_FIELD.text());
/// The same name, for a quick look.
pub const EVENT_FIELD: FieldName = FieldName::new("watershed-event");

/// The most events that one response may report; further ones are lost and counted.
pub const HEADER_EVENTS_MAX: usize = 1_000;

/// The longest name or ID of an event, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// How long ago an event may have happened that carries its own time.
pub const AT_PAST_MAX_MS: u64 = 30 * 24 * 3_600_000;

/// How far ahead of the clock the own time of an event may be: clocks differ.
pub const AT_AHEAD_MAX_MS: u64 = 5 * 60_000;

/// Names one event among those of its user. An event that is reported again has the same.
pub type EventId = NonZeroU64;

/// What was reported to have happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'a> {
    /// Its name: any text of 1 to [`NAME_BYTES_MAX`] bytes without control characters.
    pub name: Cow<'a, str>,
    /// Its parameters, in order.
    pub parameters: Parameters<'a>,
    /// What it is recognised by when it is reported again; `None` for one that counts each time.
    pub id: Option<EventId>,
    /// When it happened.
    pub at: EventTime,
}

/// When an event happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventTime {
    /// When it was reported.
    #[default]
    Reported,
    /// At this time, in Unix milliseconds.
    At(NonZeroU64),
    /// The event carries a time that cannot be read.
    Unreadable,
}

impl EventTime {
    /// Reads a time of RFC 3339, such as `2026-11-23T10:00:00Z`.
    pub fn of_text(text: &[u8]) -> EventTime {
        let text = std::str::from_utf8(text).unwrap_or_default();
        let time = Some(text).filter(|text| is_rfc3339(text));
        let time = time.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let ms = time.and_then(|time| u64::try_from(time.as_millisecond()).ok());
        ms.and_then(NonZeroU64::new)
            .map_or(EventTime::Unreadable, EventTime::At)
    }
}

/// Whether a text has the form of RFC 3339. The parser reads more, such as an offset of 25 hours.
fn is_rfc3339(text: &str) -> bool {
    let has_form = |text: &str, form: &str| {
        let is_of = |(byte, of): (u8, u8)| match of {
            b'0' => byte.is_ascii_digit(),
            b'T' => matches!(byte, b'T' | b't' | b' '),
            of => byte == of,
        };
        text.len() == form.len() && text.bytes().zip(form.bytes()).all(is_of)
    };
    const TIME: &str = "0000-00-00T00:00:00";
    let Some((time, rest)) = text.split_at_checked(TIME.len()) else {
        return false;
    };
    let zone = rest.strip_prefix('.').unwrap_or(rest);
    let zone = zone.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let offset = zone.strip_prefix(['+', '-']);
    let is_offset = |offset: &str| has_form(offset, "00:00") && offset < "24";
    has_form(time, TIME) && (matches!(zone, "Z" | "z") || offset.is_some_and(is_offset))
}

/// Names and values; of two with the same name the last one counts.
pub type Parameters<'a> = SmallVec<[(Cow<'a, str>, ParameterValue); 2]>;

/// What a parameter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterValue {
    /// A finite number, also where it is written as text.
    Number(Decimal),
    /// Something else, in words: `null`, `a boolean`.
    Other(&'static str),
}

impl ParameterValue {
    /// A number written as text.
    pub fn of_text(text: &[u8]) -> ParameterValue {
        match Decimal::read(text) {
            Some(number) => ParameterValue::Number(number),
            None if text.trim_ascii().is_empty() => ParameterValue::Other("empty"),
            None => ParameterValue::Other("not a number"),
        }
    }
}

impl Event<'_> {
    /// The parameter of this name.
    pub fn parameter(&self, name: &str) -> Option<ParameterValue> {
        let mut named = self.parameters.iter().rev();
        named
            .find(|(found, _)| found == name)
            .map(|&(_, value)| value)
    }
}

impl Event<'_> {
    /// The event's own time in Unix milliseconds, `None` for the time of its report. Refused when
    /// it cannot be read, or lies too far from `now_ms`.
    pub fn own_time(&self, now_ms: u64) -> Result<Option<NonZeroU64>, EventFault> {
        let fault = |reason| EventFault {
            event: self.name.to_string(),
            parameter: "at".to_owned(),
            reason,
        };
        match self.at {
            EventTime::Reported => Ok(None),
            EventTime::Unreadable => Err(fault(EventFaultReason::NotATime)),
            EventTime::At(at_ms) => {
                let allowed =
                    now_ms.saturating_sub(AT_PAST_MAX_MS)..=now_ms.saturating_add(AT_AHEAD_MAX_MS);
                match allowed.contains(&at_ms.get()) {
                    true => Ok(Some(at_ms)),
                    false => Err(fault(EventFaultReason::TimeOutOfRange)),
                }
            }
        }
    }
}

/// The digest of an event's name and the ID that its reporter gave it.
pub fn event_id(name: &str, id: &[u8]) -> EventId {
    let mut text = SmallVec::<[u8; 128]>::from_slice(name.as_bytes());
    text.push(0);
    text.extend_from_slice(id);
    // Reading from memory cannot fail, and the crate adds no error of its own.
    let digest = murmur3::murmur3_x64_128(&mut &text[..], 0).unwrap_or_default() as u64;
    EventId::new(digest).unwrap_or(EventId::MIN)
}

/// What is wrong with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFault {
    /// The event's name, or the member of the header that has none.
    pub event: String,
    /// The parameter at fault; empty where it is the whole member.
    pub parameter: String,
    /// What is wrong.
    pub reason: EventFaultReason,
}

/// What can be wrong with an event or one of its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFaultReason {
    /// A member of the header has no name that can be read: it is lost.
    Unreadable,
    /// More than [`HEADER_EVENTS_MAX`] members: the others are lost.
    TooMany,
    /// The value is no number; it says what it is.
    NotANumber(&'static str),
    /// The value is beyond ±`max`, in units of 10^-`scale`.
    TooLarge {
        /// The largest value that is taken.
        max: i64,
        /// Decimal places of `max`.
        scale: u8,
    },
    /// A metric needs a value that the event does not have.
    Missing,
    /// The ID is empty, too long or no text.
    Id,
    /// The event's own time cannot be read.
    NotATime,
    /// The event's own time is too long ago, or too far ahead.
    TimeOutOfRange,
    /// `bucket_by` names nothing that an experiment divides.
    UnknownUnit,
}

impl EventFaultReason {
    /// Whether an event with this fault is refused where its reporter hears of it. Without a value
    /// it counts for the metrics that need none.
    pub fn refuses(self) -> bool {
        self != EventFaultReason::Missing
    }

    /// The reason as results and numbers name it.
    pub fn name(self) -> &'static str {
        match self {
            EventFaultReason::Unreadable => "unreadable",
            EventFaultReason::TooMany => "too_many",
            EventFaultReason::NotANumber(_) => "not_a_number",
            EventFaultReason::TooLarge { .. } => "too_large",
            EventFaultReason::Missing => "missing",
            EventFaultReason::Id => "id",
            EventFaultReason::NotATime => "not_a_time",
            EventFaultReason::TimeOutOfRange => "time_out_of_range",
            EventFaultReason::UnknownUnit => "unknown_unit",
        }
    }
}

impl fmt::Display for EventFault {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EventFault {
            event,
            parameter,
            reason,
        } = self;
        match *reason {
            EventFaultReason::Unreadable => write!(to, "`{event}` is not an event with parameters"),
            EventFaultReason::TooMany => write!(
                to,
                "more than {HEADER_EVENTS_MAX} events in one response, from `{event}` on"
            ),
            EventFaultReason::NotANumber(what) => {
                write!(to, "`{parameter}` of `{event}` is {what}")
            }
            EventFaultReason::TooLarge { max, scale } => {
                let one = 10i64.pow(u32::from(scale));
                let (whole, rest) = (max / one, max % one);
                write!(to, "`{parameter}` of `{event}` is beyond {whole}")?;
                if rest > 0 {
                    let digits = format!("{rest:0width$}", width = usize::from(scale));
                    write!(to, ".{}", digits.trim_end_matches('0'))?;
                }
                write!(to, ", the largest value that is taken")
            }
            EventFaultReason::Missing => {
                write!(to, "`{event}` has no `{parameter}`, which a metric needs")
            }
            EventFaultReason::Id => write!(
                to,
                "`id` of `{event}` is not a text of 1 to {NAME_BYTES_MAX} bytes"
            ),
            EventFaultReason::NotATime => write!(
                to,
                "`{parameter}` of `{event}` is not a time, such as \"2026-11-23T10:00:00Z\""
            ),
            EventFaultReason::TimeOutOfRange => write!(
                to,
                "`{parameter}` of `{event}` is more than 30 days ago or more than 5 minutes ahead"
            ),
            EventFaultReason::UnknownUnit => write!(
                to,
                "`{parameter}` of `{event}` names nothing that an experiment divides (its `bucket_by`)"
            ),
        }
    }
}

/// All lines of the header as one list (RFC 9651, 4.2); `None` where there are none.
pub fn lines<'a>(fields: impl HeaderView<'a>) -> Option<Cow<'a, [u8]>> {
    let name = EVENT_HEADER;
    let mut lines = fields.all(&name);
    let first = lines.next()?;
    Some(lines.fold(Cow::Borrowed(first), |mut all, line| {
        all.to_mut().extend_from_slice(b", ");
        all.to_mut().extend_from_slice(line);
        all
    }))
}

/// The events of a header, and what is wrong with it.
pub fn of_header<'a>(header: &'a [u8], faults: &mut Vec<EventFault>) -> Vec<Event<'a>> {
    let mut events = Vec::new();
    for (place, member) in pieces(header, b',').enumerate() {
        let member = member.trim_ascii();
        if place == HEADER_EVENTS_MAX {
            faults.push(EventFault::of_member(member, EventFaultReason::TooMany));
            break;
        }
        match event_of(member, faults) {
            Some(event) => events.push(event),
            None => faults.push(EventFault::of_member(member, EventFaultReason::Unreadable)),
        }
    }
    events
}

impl EventFault {
    fn of_member(member: &[u8], reason: EventFaultReason) -> EventFault {
        let shown = &member[..member.len().min(60)];
        EventFault {
            event: String::from_utf8_lossy(shown).into_owned(),
            parameter: String::new(),
            reason,
        }
    }
}

fn event_of<'a>(member: &'a [u8], faults: &mut Vec<EventFault>) -> Option<Event<'a>> {
    let mut parts = pieces(member, b';');
    let name = name_of(parts.next()?.trim_ascii())?;
    let mut event = Event {
        name,
        parameters: Parameters::new(),
        id: None,
        at: EventTime::Reported,
    };
    for part in parts {
        let (key, value) = match part.iter().position(|&byte| byte == b'=') {
            Some(end) => (&part[..end], Some(part[end + 1..].trim_ascii())),
            None => (part, None),
        };
        // A key that is not even text names nothing that a metric could ask for.
        let Ok(key) = std::str::from_utf8(key.trim_ascii()) else {
            continue;
        };
        match (key, value.map(unquoted)) {
            ("id", Some(id)) if (1..=NAME_BYTES_MAX).contains(&id.len()) => {
                event.id = Some(event_id(&event.name, &id));
            }
            ("id", _) => faults.push(EventFault {
                event: event.name.to_string(),
                parameter: key.to_owned(),
                reason: EventFaultReason::Id,
            }),
            ("at", value) => event.at = EventTime::of_text(&value.unwrap_or_default()),
            (_, value) => {
                // RFC 9651, 3.1.2: a key alone means true.
                let value = value.map_or(ParameterValue::Other("a boolean"), |it| {
                    ParameterValue::of_text(&it)
                });
                event.parameters.push((Cow::Borrowed(key), value));
            }
        }
    }
    Some(event)
}

/// A name as it is written in the header: bare (`purchase`, `$pageview`, `Order Completed`), a
/// string (`"Order, completed"`), or a display string of RFC 9651 (`%"caf%c3%a9"`). UTF-8 may also
/// stand as it is.
fn name_of(written: &[u8]) -> Option<Cow<'_, str>> {
    let is_closed = |string: &[u8]| string.len() > 1 && string.ends_with(b"\"");
    let bytes = match written {
        [b'%', string @ ..] if string.starts_with(b"\"") && is_closed(string) => {
            Cow::Owned(percent_decoded(&unquoted(string))?)
        }
        string if string.starts_with(b"\"") && is_closed(string) => unquoted(string),
        bare if bare.iter().any(|byte| b"\"()=".contains(byte)) => return None,
        bare => Cow::Borrowed(bare),
    };
    let name = match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(std::str::from_utf8(bytes).ok()?),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).ok()?),
    };
    is_name(&name).then_some(name)
}

/// Whether an event may have this name.
pub fn is_name(name: &str) -> bool {
    let is_sized = (1..=NAME_BYTES_MAX).contains(&name.len());
    is_sized && name.trim() == name && !name.contains(char::is_control)
}

/// `%c3%a9` as two bytes. `None` where a `%` does not come with two digits.
fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            decoded.push(byte);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let digits = std::str::from_utf8(digits).ok()?;
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    Some(decoded)
}

/// A value without the quotes and escapes of a string.
fn unquoted(value: &[u8]) -> Cow<'_, [u8]> {
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    match inner {
        Some(inner) if inner.contains(&b'\\') => {
            let mut text = Vec::with_capacity(inner.len());
            let mut bytes = inner.iter();
            while let Some(&byte) = bytes.next() {
                text.push(match byte {
                    b'\\' => *bytes.next().unwrap_or(&byte),
                    _ => byte,
                });
            }
            Cow::Owned(text)
        }
        Some(inner) => Cow::Borrowed(inner),
        None => Cow::Borrowed(value),
    }
}

/// The pieces between separators that do not stand inside quotes. A quote that is never closed is
/// a byte like any other.
fn pieces(bytes: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(bytes);
    // Looked for once only, or a header of quotes would take the square of its length.
    let mut closes = true;
    std::iter::from_fn(move || {
        let all = rest?;
        let mut at = 0;
        while at < all.len() {
            match all[at] {
                b'"' if closes => match closing(&all[at..]) {
                    Some(end) => at += end,
                    None => closes = false,
                },
                byte if byte == separator => {
                    rest = Some(&all[at + 1..]);
                    return Some(&all[..at]);
                }
                _ => {}
            }
            at += 1;
        }
        rest = None;
        Some(all)
    })
}

/// Where the string that begins here ends.
fn closing(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: &str, names: &[&str], faults: &[&str]) {
        let mut found = Vec::new();
        let events = of_header(header.as_bytes(), &mut found);
        let read: Vec<&str> = events.iter().map(|event| &*event.name).collect();
        let told: Vec<String> = found.iter().map(EventFault::to_string).collect();
        assert_eq!((&read[..], &told[..]), (names, &faults.map_owned()[..]));
    }

    trait Owned {
        fn map_owned(&self) -> Vec<String>;
    }

    impl Owned for &[&str] {
        fn map_owned(&self) -> Vec<String> {
            self.iter().map(|text| (*text).to_owned()).collect()
        }
    }

    #[test]
    fn one_malformed_member_loses_only_itself() {
        check("a, b;x=1 , c", &["a", "b", "c"], &[]);
        let lost = "`(a b)` is not an event with parameters";
        check("x;v=1, (a b), y", &["x", "y"], &[lost]);
        let lost = "`` is not an event with parameters";
        check("a,, b", &["a", "b"], &[lost]);
        let lost = "`purchase=5` is not an event with parameters";
        check("purchase=5, c", &["c"], &[lost]);
        let lost = "`\"\"` is not an event with parameters";
        check("\"\", c", &["c"], &[lost]);
        let lost = "`\"a` is not an event with parameters";
        check("\"a, c", &["c"], &[lost]);
        let lost = "`%\"caf%c\"` is not an event with parameters";
        check("%\"caf%c\", c", &["c"], &[lost]);
        check("a;x=\"b, c;y", &["a", "c"], &[]);
        check("a;x=\"b;c, d\";y=1, e", &["a", "e"], &[]);
    }

    #[test]
    fn names_are_those_that_teams_use() {
        check("Order Completed;x=1, c", &["Order Completed", "c"], &[]);
        check(
            "\"Order, completed\";x=1, c",
            &["Order, completed", "c"],
            &[],
        );
        check("\"say \\\"hi\\\"\"", &["say \"hi\""], &[]);
        check(
            "$pageview, café, 購入;x=1",
            &["$pageview", "café", "購入"],
            &[],
        );
        check("%\"caf%c3%a9\"", &["café"], &[]);
        let long = "é".repeat(NAME_BYTES_MAX / 2);
        check(&format!("{long}, c"), &[&long, "c"], &[]);
        let mut faults = Vec::new();
        assert_eq!(of_header(b"a\x07b, caf\xe9, c", &mut faults).len(), 1);
        assert_eq!(faults.len(), 2);
    }

    #[test]
    fn own_time_is_a_month_ago_at_most_and_minutes_ahead() {
        const NOW_MS: u64 = 1_800_000_000_000;
        let time = |at: &str| {
            let header = format!("a;at={at};x=1");
            let mut faults = Vec::new();
            let events = of_header(header.as_bytes(), &mut faults);
            assert_eq!((events.len(), faults.len()), (1, 0));
            let own = events[0].own_time(NOW_MS);
            own.map(|ms| ms.map(NonZeroU64::get))
                .map_err(|it| it.reason)
        };
        let written = |ms: u64| {
            let time = jiff::Timestamp::from_millisecond(ms as i64).unwrap();
            format!("\"{time}\"")
        };
        for ms in [NOW_MS - AT_PAST_MAX_MS, NOW_MS, NOW_MS + AT_AHEAD_MAX_MS] {
            assert_eq!(time(&written(ms)), Ok(Some(ms)));
        }
        for ms in [NOW_MS - AT_PAST_MAX_MS - 1, NOW_MS + AT_AHEAD_MAX_MS + 1] {
            assert_eq!(time(&written(ms)), Err(EventFaultReason::TimeOutOfRange));
        }
        assert_eq!(
            time("\"2027-01-15T10:00:00.250+02:00\""),
            Ok(Some(NOW_MS + 250))
        );
        let right = "\"2027-01-15t08:00:00-00:00\"";
        assert_eq!(time(right), Ok(Some(NOW_MS)));
        for wrong in [
            "yesterday",
            "1800000000",
            "\"2027-01-15\"",
            "\"\"",
            "\"2027-01-15T08:00:00\"",
            "\"2027-01-15T08:00Z\"",
            "\"20270115T080000Z\"",
            "\"2027-01-15T08:00:00+25:00\"",
            "\"2027-01-15T08:00:00Z[UTC]\"",
            "\"2027-02-30T08:00:00Z\"",
        ] {
            assert_eq!(time(wrong), Err(EventFaultReason::NotATime), "{wrong}");
        }
    }

    #[test]
    fn an_id_is_a_text_or_a_token_or_a_number() {
        let id = |header: &str| {
            let mut faults = Vec::new();
            let events = of_header(header.as_bytes(), &mut faults);
            assert_eq!(events.len(), 1, "{header}");
            (events[0].id, faults.len())
        };
        let known = (Some(event_id("a", b"o-1")), 0);
        for header in [
            "a;id=\"o-1\"",
            "a;id=o-1",
            "a; id = \"o-1\";x=1",
            "a;id=\"o\\-1\"",
        ] {
            assert_eq!(id(header), known, "{header}");
        }
        assert_eq!(id("a;id=17"), (Some(event_id("a", b"17")), 0));
        assert_eq!(id("a;id=\"a;b, c\""), (Some(event_id("a", b"a;b, c")), 0));
        assert_eq!(id("a;id=\"\""), (None, 1));
        assert_eq!(id("a;id"), (None, 1));
        assert_eq!(id(&format!("a;id=\"{}\"", "x".repeat(257))), (None, 1));
        assert_ne!(event_id("a", b"1"), event_id("b", b"1"));
        assert_ne!(event_id("ab", b"1"), event_id("a", b"b1"));
    }

    #[test]
    fn a_header_has_an_end() {
        let mut faults = Vec::new();
        let many = vec!["a"; HEADER_EVENTS_MAX + 500].join(",");
        let events = of_header(many.as_bytes(), &mut faults);
        assert_eq!((events.len(), faults.len()), (HEADER_EVENTS_MAX, 1));
        assert_eq!(faults[0].reason, EventFaultReason::TooMany);
    }

    #[test]
    fn a_bound_is_said_as_it_is_written() {
        let said = |max, scale| {
            let fault = EventFault {
                event: "a".to_owned(),
                parameter: "v".to_owned(),
                reason: EventFaultReason::TooLarge { max, scale },
            };
            fault.to_string()
        };
        assert!(said(1_000_000, 2).contains("beyond 10000,"));
        assert!(said(1_050, 2).contains("beyond 10.5,"));
        assert!(said(5, 3).contains("beyond 0.005,"));
    }
}
