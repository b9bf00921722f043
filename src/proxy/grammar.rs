//! The grammar of HTTP/1 heads and chunk lines (RFC 9110, 5; RFC 9112, 3 to 7), read strictly. PURE.

use super::reply::Reason;
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
pub fn request_line(line: &[u8], target_bytes_max: usize) -> Result<bool, Reason> {
    let mut words = line.split(|&byte| byte == b' ');
    let (method, target, version, more) = (words.next(), words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, more) else {
        return Err(Reason::Malformed);
    };
    if !is_token(method) {
        return Err(Reason::Malformed);
    }
    if target.len() > target_bytes_max {
        return Err(Reason::TargetTooLong);
    }
    let http_10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err(Reason::Malformed),
    };
    let sound = match target {
        [b'/', rest @ ..] => is_path(rest),
        b"*" => method == b"OPTIONS",
        _ => is_absolute(target),
    };
    // CONNECT asks for a tunnel to anywhere, which only a forward proxy gives.
    let sound = sound && method != b"CONNECT";
    sound.then_some(http_10).ok_or(Reason::Target)
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
    is_host(host) && is_path(path)
}

/// RFC 9112, 5: a field's name and value.
pub fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Reason> {
    // Folded so that it is one pass without a branch for each byte.
    let control = |bad, &byte: &u8| bad | ((byte < b' ' && byte != b'\t') | (byte == 0x7f));
    let colon = memchr(b':', line).ok_or(Reason::Malformed)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) || value.iter().fold(false, control) {
        return Err(Reason::Malformed);
    }
    Ok((name, value.trim_ascii()))
}

/// RFC 9110, 8.6: digits, and nothing but digits.
pub fn length(value: &[u8]) -> Option<u64> {
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
pub fn is_host(value: &[u8]) -> bool {
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
    let number = std::str::from_utf8(port).ok().map(str::parse::<u16>);
    port.is_empty() || (port.iter().all(u8::is_ascii_digit) && matches!(number, Some(Ok(_))))
}

fn is_name(host: &[u8]) -> bool {
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
    !host.is_empty()
}

/// RFC 9112, 7.1: the size of a chunk; `None` where the line is unsound. Extensions are checked,
/// and mean nothing.
pub fn chunk_size(line: &[u8]) -> Option<u64> {
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
            check(line, Err(Reason::Malformed));
        }
        for line in [
            "GET * HTTP/1.1",
            "GET a HTTP/1.1",
            "GET a:80 HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET /\x01 HTTP/1.1",
            "GET ftp://a/ HTTP/1.1",
            "GET http:///x HTTP/1.1",
            "GET http://u@a/ HTTP/1.1",
            "CONNECT a:80 HTTP/1.1",
        ] {
            check(line, Err(Reason::Target));
        }
    }

    #[test]
    fn hosts() {
        for host in [
            "a",
            "a.b-c_d",
            "a:80",
            "a:",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:80",
            "%41",
        ] {
            assert!(is_host(host.as_bytes()), "{host:?}");
        }
        for host in [
            "", ":80", "a b", "a,b", "a/b", "u@a", "a:b", "a:80:80", "a:65536", "a:+1", "[::1",
            "[::1]x", "[a]", "%4", "%zz", "a?b", "a\\b", "ä", "a\t",
        ] {
            assert!(!is_host(host.as_bytes()), "{host:?}");
        }
    }
}
