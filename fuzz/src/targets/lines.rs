//! The fields of a head: how the bytes are cut changes nothing; another parser reads the same; what
//! stays is written as it was read. The second and third byte of the
//! input choose which fields are not passed on.

use super::super::http1::{self, Field};
use super::super::split;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use watershed::experiment::http_view::HeaderView;
use watershed::proxy::fuzzing::ErrorCode;
use watershed::proxy::fuzzing::HeaderBlock;

const FIELDS_MAX: usize = 12;

/// Names and values, and where the block ends.
type Found = Result<Option<(Vec<Field>, usize)>, ErrorCode>;

fn fields(lines: &HeaderBlock<'_>) -> Vec<Field> {
    let field = |place| {
        let (name, value) = lines.at(place);
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        (name, value.to_vec())
    };
    (0..lines.len()).map(field).collect()
}

fn read(bytes: &[u8]) -> Found {
    let read = HeaderBlock::read(bytes, 0, FIELDS_MAX)?;
    Ok(read.map(|(lines, end)| (fields(&lines), end)))
}

fn edit(bytes: &[u8], goes: u16, found: &[Field]) {
    let Ok(Some((mut lines, _))) = HeaderBlock::read(bytes, 0, FIELDS_MAX) else {
        unreachable!("it was read before");
    };
    let goes = |place: usize| goes & (1 << (place % 16)) != 0;
    (0..found.len())
        .filter(|&place| goes(place))
        .for_each(|place| lines.take(place));
    let stays = found.iter().enumerate().filter(|&(place, _)| !goes(place));
    let stays: Vec<Field> = stays.map(|(_, field)| field.clone()).collect();
    let mut out = Vec::new();
    lines.write(&mut out);
    out.extend_from_slice(b"\r\n");
    assert_eq!(http1::block(&out), Ok(Some((stays.clone(), out.len()))));
    let (mut given, mut meant) = (HeaderMap::new(), HeaderMap::new());
    lines.give(&mut given);
    for (name, value) in &stays {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        let value = HeaderValue::from_bytes(value).expect("a value");
        meant.append(name, value);
    }
    assert_eq!(given, meant);
    let known = ["host", "cookie", "x-forwarded-for", "content-length"];
    let known = known.map(HeaderName::from_static);
    for name in meant.keys().chain(&known) {
        let all: Vec<&[u8]> = (&lines).all(name).collect();
        let values: Vec<_> = meant
            .get_all(name)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        assert_eq!(all, values, "{name}");
    }
}

/// Tries one input.
pub fn try_input(input: &[u8]) {
    let Some((mut cutter, rest)) = split(input) else {
        return;
    };
    let Some((&goes, bytes)) = rest.split_first_chunk::<2>() else {
        return;
    };
    let whole = read(bytes);
    let mut come = 0;
    while come < bytes.len() {
        come = (come + cutter.size()).min(bytes.len());
        let part = read(&bytes[..come]);
        if part != Ok(None) {
            assert_eq!(part, whole, "all at once, and the first {come} bytes");
            break;
        }
    }
    if let Ok(Some((found, end))) = &whole {
        assert_eq!(http1::block(bytes), Ok(Some((found.clone(), *end))));
        edit(bytes, u16::from_le_bytes(goes), found);
    }
}
