//! The first bytes of a connection: the PROXY protocol is believed only where a plain reading of
//! its specification agrees, however the bytes are cut; no byte behind it is lost.

use super::super::pieces::{Stream, run};
use super::super::split;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use watershed::proxy::fuzzing::{BufferPool, first, is_http2, speaks_for};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Whom it speaks for, whether it is HTTP/2, and all that follows.
type Opened = (Option<IpAddr>, bool, Vec<u8>);

fn open(mut stream: Stream) -> Option<Opened> {
    run(async {
        let mut head = first(&mut stream, &BufferPool::default()).await.ok()?;
        let client = speaks_for(&mut stream, &mut head).await.ok()?;
        let http2 = is_http2(&mut stream, &mut head).await.ok()?;
        // A room, and little more.
        assert!(
            head.len() <= (16 << 10) + 216,
            "{} bytes are held",
            head.len()
        );
        head.extend(stream.unread());
        Some((client, http2, head))
    })
}

/// The specification's own words, read plainly: how long the header is and whom it names.
fn header(bytes: &[u8]) -> Option<(usize, Option<IpAddr>)> {
    if let Some(rest) = bytes.strip_prefix(V2) {
        let (&[kind, family, high, low], rest) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let body = rest.get(..length)?;
        let source = match (kind & 15, family >> 4) {
            (1, 1) => {
                let four: [u8; 4] = body.get(..4)?.try_into().ok()?;
                Some(IpAddr::V4(Ipv4Addr::from(four)))
            }
            (1, 2) => {
                let sixteen: [u8; 16] = body.get(..16)?.try_into().ok()?;
                Some(IpAddr::V6(Ipv6Addr::from(sixteen)))
            }
            _ => None,
        };
        return Some((16 + length, source));
    }
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    // 107 bytes are the longest line (version 1).
    if end + 2 > 107 {
        return None;
    }
    if let Some([] | [b' ', ..]) = bytes[..end].strip_prefix(b"PROXY UNKNOWN") {
        return Some((end + 2, None));
    }
    let line = std::str::from_utf8(&bytes[..end]).ok()?;
    let words: Vec<&str> = line.split(' ').collect();
    let source = match words[..] {
        ["PROXY", "TCP4", source, to, from_port, to_port] => {
            let source: Ipv4Addr = source.parse().ok()?;
            to.parse::<Ipv4Addr>().ok()?;
            from_port.parse::<u16>().ok()?;
            to_port.parse::<u16>().ok()?;
            Some(IpAddr::V4(source))
        }
        ["PROXY", "TCP6", source, to, from_port, to_port] => {
            let source: Ipv6Addr = source.parse().ok()?;
            to.parse::<Ipv6Addr>().ok()?;
            from_port.parse::<u16>().ok()?;
            to_port.parse::<u16>().ok()?;
            Some(IpAddr::V6(source))
        }
        _ => return None,
    };
    Some((end + 2, source))
}

/// Tries one input.
pub fn try_input(input: &[u8]) {
    let Some((mut cutter, bytes)) = split(input) else {
        return;
    };
    let whole = open(Stream::whole(bytes));
    let cut = open(Stream::new(cutter.cut(bytes)));
    assert_eq!(whole, cut, "all at once, and cut");
    let Some((client, http2, rest)) = whole else {
        return;
    };
    let begins = bytes.starts_with(b"PROXY ") || bytes.starts_with(V2);
    if begins {
        let Some((length, source)) = header(bytes) else {
            panic!("believed, and not as the specification has it");
        };
        assert_eq!((client, &rest[..]), (source, &bytes[length..]));
    } else {
        assert_eq!((client, &rest[..]), (None, bytes));
    }
    assert_eq!(http2, rest.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
}
