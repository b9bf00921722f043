//! The grammar of HTTP/1 heads and chunk lines (RFC 9110, 5; RFC 9112, 3 to 7), read strictly. PURE.

use crate::proxy::error_response::ErrorCode;
use crate::proxy::h1::sixteen_bytes;
use memchr::memchr;
use std::net::Ipv6Addr;

/// RFC 9110, 5.6.2.
const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~");
/// What a registered name is made of, but for `%` and its digits (RFC 3986, 3.2.2). The comma is
/// left out: it is what two names joined into one line look like.
const NAME: [bool; 256] = table(b"-._~!$&'()*+;=");

const fn table(more: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut place = 0;
    while place < more.len() {
        table[more[place] as usize] = true;
        place += 1;
    }
    table
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| TOKEN[usize::from(byte)])
}

/// RFC 9112, 3: method, one space, target, one space, version. Whether it is HTTP/1.0.
pub(crate) fn request_line(line: &[u8], target_bytes_max: usize) -> Result<bool, ErrorCode> {
    let mut words = line.split(|&byte| byte == b' ');
    let (method, target, version, more) = (words.next(), words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, more) else {
        return Err(ErrorCode::Malformed);
    };
    if !is_token(method) {
        return Err(ErrorCode::Malformed);
    }
    if target.len() > target_bytes_max {
        return Err(ErrorCode::TargetTooLong);
    }
    let http_10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err(ErrorCode::Malformed),
    };
    let sound = match target {
        [b'/', rest @ ..] => is_path(rest),
        b"*" => method == b"OPTIONS",
        _ => is_absolute(target),
    };
    // CONNECT asks for a tunnel to anywhere, which only a forward proxy gives.
    let sound = sound && method != b"CONNECT";
    sound.then_some(http_10).ok_or(ErrorCode::Target)
}

/// A path and query as they may be forwarded to the byte. Controls and spaces split lines for some
/// readers; a fragment is never sent, and is cut off by others.
fn is_path(bytes: &[u8]) -> bool {
    let query = memchr(b'?', bytes).unwrap_or(bytes.len());
    let (path, query) = bytes.split_at(query);
    let sound = |byte: u8| byte > b' ' && !matches!(byte, 0x7f | b'#' | b'<' | b'>');
    path.iter().all(|&byte| sound(byte) && byte != b'`')
        && query.iter().all(|&byte| sound(byte) && byte != b'"')
        && (bytes.is_ascii() || std::str::from_utf8(bytes).is_ok())
}

/// RFC 9112, 3.2.2: `http://host/path`.
fn is_absolute(target: &[u8]) -> bool {
    let scheme = |scheme: &[u8]| {
        let (said, rest) = target.split_at_checked(scheme.len())?;
        said.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let Some(rest) = scheme(b"http://").or_else(|| scheme(b"https://")) else {
        return false;
    };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    let (host, path) = rest.split_at(end.unwrap_or(rest.len()));
    // What is escaped in a target's host is another name to some readers, and none to hyper.
    is_host(host) && !host.contains(&b'%') && is_path(path)
}

const ONES: u64 = u64::from_le_bytes([1; 8]);
const HIGH: u64 = ONES * 0x80;

/// How many bytes at the beginning are a token's.
pub(crate) fn token_bytes(bytes: &[u8]) -> usize {
    name_bytes(bytes).0
}

/// The same, and whether any of them is neither a letter nor a digit nor a dash.
#[inline(always)]
pub(crate) fn name_bytes(bytes: &[u8]) -> (usize, bool) {
    let (mut place, mut odd) = (0, false);
    // Names are letters and dashes, most of them: sixteen or eight at once, and what else there may be
    // one by one.
    while let Some((sixteen, _)) = bytes[place..].split_first_chunk::<16>() {
        let Some(other) = sixteen_bytes::first_beside_letters_and_dashes(sixteen) else {
            place += 16;
            continue;
        };
        place += other;
        if !TOKEN[usize::from(bytes[place])] {
            return (place, odd);
        }
        odd |= is_odd(bytes[place]);
        place += 1;
    }
    while let Some((eight, _)) = bytes[place..].split_first_chunk::<8>() {
        let others = HIGH & !letters_and_dashes(u64::from_le_bytes(*eight));
        if others == 0 {
            place += 8;
            continue;
        }
        place += others.trailing_zeros() as usize / 8;
        if !TOKEN[usize::from(bytes[place])] {
            return (place, odd);
        }
        odd |= is_odd(bytes[place]);
        place += 1;
    }
    while let Some(&byte) = bytes.get(place)
        && TOKEN[usize::from(byte)]
    {
        odd |= is_odd(byte);
        place += 1;
    }
    (place, odd)
}

/// Whether a byte of a name is neither a letter nor a digit nor a dash.
pub(crate) fn is_odd(byte: u8) -> bool {
    !byte.is_ascii_alphanumeric() && byte != b'-'
}

/// The high bits of those of eight bytes that are letters or dashes. Sums of seven bits carry
/// nothing into the next byte.
fn letters_and_dashes(eight: u64) -> u64 {
    let small = (eight | (ONES * 0x20)) & !HIGH;
    let letter = (small + ONES * (0x80 - b'a' as u64)) & !(small + ONES * (0x7f - b'z' as u64));
    let dash = (eight ^ (ONES * b'-' as u64)) & !HIGH;
    let dash = !(dash + ONES * 0x7f);
    (letter | dash) & !eight
}

/// How many bytes at the beginning are a value's: neither a control nor the end of the line.
#[inline(always)]
pub(crate) fn text_bytes(bytes: &[u8]) -> usize {
    let mut place = 0;
    while let Some((sixteen, _)) = bytes[place..].split_first_chunk::<16>() {
        let Some(control) = sixteen_bytes::first_control(sixteen) else {
            place += 16;
            continue;
        };
        place += control;
        if bytes[place] != b'\t' {
            return place;
        }
        place += 1;
    }
    while let Some((eight, _)) = bytes[place..].split_first_chunk::<8>() {
        let eight = u64::from_le_bytes(*eight);
        // Byte by byte, the lowest one found is right: below 0x20, or 0x7f ("Bit Twiddling
        // Hacks", Anderson: determine if a word has a byte less than n, or equal to n).
        let below = eight.wrapping_sub(ONES * 0x20) & !eight;
        let deleted = eight ^ (ONES * 0x7f);
        let deleted = deleted.wrapping_sub(ONES) & !deleted;
        let controls = (below | deleted) & HIGH;
        if controls == 0 {
            place += 8;
            continue;
        }
        place += controls.trailing_zeros() as usize / 8;
        if bytes[place] != b'\t' {
            return place;
        }
        place += 1;
    }
    let rest = bytes[place..].iter().position(|&byte| !is_text(byte));
    rest.map_or(bytes.len(), |rest| place + rest)
}

/// Whether a name is this one, which is written in lower case letters and dashes.
pub(crate) fn is_named<const N: usize>(name: &[u8], known: &[u8; N]) -> bool {
    // Without a branch for each byte. What a name is made of becomes one of these by this bit only
    // if it is that one, in upper or lower case.
    <&[u8; N]>::try_from(name).is_ok_and(|name| {
        let differs = name.iter().zip(known);
        differs.fold(0, |differs, (a, b)| differs | ((a | 0x20) ^ b)) == 0
    })
}

/// Whether a name begins with this, which is written in lower case letters and dashes.
pub(crate) fn begins<const N: usize>(name: &[u8], with: &[u8; N]) -> bool {
    name.get(..N).is_some_and(|begin| is_named(begin, with))
}

/// Whether two names of one length are the same in any case; `known` is in small letters.
pub(crate) fn is_same_name(name: &[u8], known: &[u8]) -> bool {
    // Few names of one length begin with the same letter.
    let begins = |bytes: &[u8]| bytes.first().map(|byte| byte | 0x20);
    begins(name) == begins(known) && is_same(name, known)
}

fn is_same(name: &[u8], known: &[u8]) -> bool {
    let (names, knowns) = (name.as_chunks::<8>().0, known.as_chunks::<8>().0);
    let in_words = names.iter().zip(knowns).all(|(a, b)| is_same_word(*a, *b));
    // What is left of the last word is read with what was read before.
    let ends = |a: &[u8], b: &[u8]| match (a.last_chunk::<8>(), b.last_chunk::<8>()) {
        (Some(a), Some(b)) => is_same_word(*a, *b),
        _ => match (halves(a), halves(b)) {
            (Some(a), Some(b)) => is_same_word(a, b),
            _ => a.eq_ignore_ascii_case(b),
        },
    };
    in_words && ends(name, known)
}

/// The first and the last four bytes.
fn halves(bytes: &[u8]) -> Option<[u8; 8]> {
    let (&[a, b, c, d], &[e, f, g, h]) = (bytes.first_chunk::<4>()?, bytes.last_chunk::<4>()?);
    Some([a, b, c, d, e, f, g, h])
}

/// Eight bytes at once: they differ by the bit that parts upper from lower case, and only where
/// the known one is a small letter. Of what names are made of, that bit makes something else of
/// `^`, which has it not, and of `~`, which is behind the letters.
fn is_same_word(name: [u8; 8], known: [u8; 8]) -> bool {
    const CASE: u64 = ONES * 0x20;
    let known = u64::from_le_bytes(known);
    let differ = u64::from_le_bytes(name) ^ known;
    let behind_letters = (known.wrapping_add(ONES * 5) & (ONES * 0x80)) >> 2;
    differ & (!CASE | !known | behind_letters) == 0
}

/// RFC 9112, 5: a field's name and value.
pub(crate) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), ErrorCode> {
    let (name, rest) = line.split_at(token_bytes(line));
    match rest {
        [b':', value @ ..] if !name.is_empty() && text_bytes(value) == value.len() => {
            Ok((name, value.trim_ascii()))
        }
        _ => Err(ErrorCode::Malformed),
    }
}

/// RFC 9110, 8.6: digits, and nothing but digits.
pub(crate) fn length(value: &[u8]) -> Option<u64> {
    // 18 digits are an exabyte, and cannot overflow.
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        value
            .iter()
            .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')),
    )
}

/// RFC 9112, 3.2 and RFC 3986, 3.2.2: a host, with or without a port.
pub(crate) fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', rest @ ..] => {
            let Some(end) = memchr(b']', rest) else {
                return false;
            };
            let address = std::str::from_utf8(&rest[..end]).ok();
            if address.is_none_or(|address| address.parse::<Ipv6Addr>().is_err()) {
                return false;
            }
            match &rest[end + 1..] {
                [] => return true,
                [b':', port @ ..] => (None, port),
                _ => return false,
            }
        }
        _ => match memchr(b':', value) {
            Some(colon) => (Some(&value[..colon]), &value[colon + 1..]),
            None => (Some(value), &[][..]),
        },
    };
    host.is_none_or(is_name) && is_port(port)
}

fn is_port(port: &[u8]) -> bool {
    if !port.iter().all(u8::is_ascii_digit) {
        return false;
    }
    // Zeros in front are as good as none. Nine digits cannot overflow.
    let zeros = port.iter().take_while(|&&byte| byte == b'0').count();
    let port = &port[zeros..];
    let add = |sum: u32, byte: &u8| sum * 10 + u32::from(byte - b'0');
    port.len() <= 9 && port.iter().fold(0, add) <= u32::from(u16::MAX)
}

fn is_name(host: &[u8]) -> bool {
    // As almost all are.
    if host.iter().all(|&byte| NAME[usize::from(byte)]) {
        return !host.is_empty();
    }
    let mut bytes = host.iter();
    while let Some(&byte) = bytes.next() {
        let sound = match byte {
            b'%' => [bytes.next(), bytes.next()]
                .iter()
                .all(|digit| digit.is_some_and(u8::is_ascii_hexdigit)),
            _ => NAME[usize::from(byte)],
        };
        if !sound {
            return false;
        }
    }
    true
}

/// RFC 9112, 7.1: the size of a chunk; `None` where the line is unsound. Extensions are checked,
/// and mean nothing.
pub(crate) fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let digits = digits.count();
    // 15 digits cannot overflow, nor count as negative anywhere.
    if !(1..=15).contains(&digits) {
        return None;
    }
    let (size, mut rest) = line.split_at(digits);
    while !rest.is_empty() {
        rest = extension(rest)?;
    }
    let size = std::str::from_utf8(size).ok()?;
    u64::from_str_radix(size, 16).ok()
}

/// What follows one extension: `;name`, `;name=token` or `;name="text"`.
fn extension(bytes: &[u8]) -> Option<&[u8]> {
    let rest = spaces(bytes).strip_prefix(b";")?;
    let rest = token(spaces(rest))?;
    let Some(value) = spaces(rest).strip_prefix(b"=") else {
        return Some(rest);
    };
    let value = spaces(value);
    match value.strip_prefix(b"\"") {
        Some(text) => quoted(text),
        None => token(value),
    }
}

fn spaces(bytes: &[u8]) -> &[u8] {
    let n = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
    &bytes[n.count()..]
}

fn token(bytes: &[u8]) -> Option<&[u8]> {
    let n = bytes.iter().take_while(|&&byte| TOKEN[usize::from(byte)]);
    let n = n.count();
    (n > 0).then(|| &bytes[n..])
}

/// What follows a text up to its closing quote.
fn quoted(text: &[u8]) -> Option<&[u8]> {
    let mut bytes = text.iter();
    loop {
        match bytes.next()? {
            b'"' => return Some(bytes.as_slice()),
            b'\\' => {
                bytes.next().filter(|&&byte| is_text(byte))?;
            }
            &byte if is_text(byte) => {}
            _ => return None,
        }
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Eight at once as one by one, whatever stands where.
        #[test]
        fn texts_end_at_their_first_control(
            bytes in prop::collection::vec(prop_oneof![8 => any::<u8>(), 20 => b' '..=b'~', 1 => Just(b'\t'), 1 => Just(0x7f), 1 => Just(0x80)], 0..60),
        ) {
            let end = bytes.iter().position(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f);
            prop_assert_eq!(text_bytes(&bytes), end.unwrap_or(bytes.len()));
        }

        #[test]
        fn tokens_end_at_the_first_byte_that_is_none(
            bytes in prop::collection::vec(prop_oneof![6 => any::<u8>(), 40 => b'a'..=b'z', 8 => b'A'..=b'Z', 4 => Just(b'-'), 2 => b'!'..=b'~', 1 => Just(b'`' ), 1 => Just(0xad)], 0..60),
        ) {
            let end = bytes.iter().position(|byte| !TOKEN[usize::from(*byte)]);
            let end = end.unwrap_or(bytes.len());
            prop_assert_eq!(name_bytes(&bytes), (end, bytes[..end].iter().any(|&byte| is_odd(byte))));
        }

        #[test]
        fn names_are_the_same_in_any_case(
            name in "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}",
            flips in prop::collection::vec(any::<bool>(), 20),
            to in "[!#$%&'*+.^_`|~0-9a-z-]{20}",
            keep in 0..40usize,
        ) {
            // As it is but for the case, or for one letter.
            let known = name.to_ascii_lowercase();
            let flip = |(byte, flip): (u8, &bool)| if *flip { byte ^ 0x20 } else { byte };
            let mut other: Vec<u8> = name.bytes().zip(&flips).map(flip).collect();
            if let Some(place) = other.get_mut(keep) {
                *place = to.as_bytes()[keep];
            }
            if is_token(&other) {
                let same = other.eq_ignore_ascii_case(known.as_bytes());
                prop_assert_eq!(is_same_name(&other, known.as_bytes()), same);
            }
        }

        #[test]
        fn names_are_known_in_any_case(name in "[!#$%&'*+.^_`|~0-9A-Za-z-]{4}|[Hh][Oo][sSt][tT]|ho[s\\x13]t") {
            let known = name.eq_ignore_ascii_case("host");
            let token = is_token(name.as_bytes());
            prop_assert_eq!(token && is_named(name.as_bytes(), b"host"), known);
        }
    }

    #[test]
    fn request_lines() {
        let check = |line: &str, expected| {
            assert_eq!(request_line(line.as_bytes(), 100), expected, "{line:?}");
        };
        check("GET / HTTP/1.1", Ok(false));
        check("M-SEARCH /?a=%2F&b={} HTTP/1.0", Ok(true));
        check("OPTIONS * HTTP/1.1", Ok(false));
        check("GET http://a:80?x HTTP/1.1", Ok(false));
        check("GET HTTPS://[::1]/ HTTP/1.1", Ok(false));
        for line in [
            "GET  / HTTP/1.1",
            "GET /\tHTTP/1.1",
            "GET\t/ HTTP/1.1",
            " GET / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET / more HTTP/1.1",
            "GET /",
            "GET / HTTP/2.0",
            "GET / http/1.1",
            "GET / HTTP/1.10",
            "G(T / HTTP/1.1",
        ] {
            check(line, Err(ErrorCode::Malformed));
        }
        for line in [
            "GET * HTTP/1.1",
            "GET a HTTP/1.1",
            "GET a:80 HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET /\x01 HTTP/1.1",
            "GET ftp://a/ HTTP/1.1",
            "GET http:///x HTTP/1.1",
            "GET http://a%41/ HTTP/1.1",
            "GET http://u@a/ HTTP/1.1",
            "CONNECT a:80 HTTP/1.1",
        ] {
            check(line, Err(ErrorCode::Target));
        }
    }

    #[test]
    fn hosts() {
        for host in [
            "a",
            "a.b-c_d",
            "a:80",
            "a:",
            "a:65535",
            "a:000080",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:80",
            "%41",
        ] {
            assert!(is_host(host.as_bytes()), "{host:?}");
        }
        for host in [
            "",
            ":80",
            "a b",
            "a,b",
            "a/b",
            "u@a",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:99999999999",
            "a:+1",
            "[::1",
            "[::1]x",
            "[a]",
            "%4",
            "%zz",
            "a?b",
            "a\\b",
            "ä",
            "a\t",
        ] {
            assert!(!is_host(host.as_bytes()), "{host:?}");
        }
    }
}
