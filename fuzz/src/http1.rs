//! A second reader of HTTP/1, on `httparse` alone: as an upstream might read the requests that the
//! proxy let pass, and a client its responses.

/// A name in lower case, and its value.
pub type Field = (String, Vec<u8>);

fn fields(headers: &[httparse::Header<'_>]) -> Vec<Field> {
    let field = |it: &httparse::Header<'_>| (it.name.to_ascii_lowercase(), it.value.to_vec());
    headers.iter().map(field).collect()
}

/// The values of this name.
pub fn values<'a>(fields: &'a [Field], name: &str) -> Vec<&'a [u8]> {
    let named = fields.iter().filter(|(other, _)| other == name);
    named.map(|(_, value)| &value[..]).collect()
}

/// The fields at the beginning of these bytes, and where they end; `None` where the empty line has
/// not come.
pub fn block(bytes: &[u8]) -> Result<Option<(Vec<Field>, usize)>, httparse::Error> {
    let mut room = [httparse::EMPTY_HEADER; 300];
    Ok(match httparse::parse_headers(bytes, &mut room)? {
        httparse::Status::Complete((end, found)) => Some((fields(found), end)),
        httparse::Status::Partial => None,
    })
}

/// One request.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    pub method: String,
    pub target: Vec<u8>,
    pub fields: Vec<Field>,
    /// Where its head ends.
    pub head_end: usize,
    /// Its body, and where it ends; `None` when it is not all there.
    pub body: Option<(Vec<u8>, usize)>,
    /// It asks to upgrade: what follows may be something else.
    pub upgrade: bool,
}

/// The requests that stand in these bytes, up to where they stop or make no sense; the second
/// value says whether they make sense to their end.
pub fn read(bytes: &[u8], upgrades: bool) -> (Vec<Message>, bool) {
    let mut messages = Vec::new();
    let mut at = 0;
    loop {
        let mut room = [httparse::EMPTY_HEADER; 300];
        let mut request = httparse::Request::new(&mut room);
        let length = match request.parse(&bytes[at..]) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return (messages, true),
            Err(_) => return (messages, false),
        };
        let value = |name: &str| {
            let found = request.headers.iter();
            let mut found = found.filter(|field| field.name.eq_ignore_ascii_case(name));
            found.next_back().map(|field| field.value)
        };
        let head_end = at + length;
        let coded = value("transfer-encoding").is_some();
        let length = value("content-length").map(|value| {
            let text = std::str::from_utf8(value).expect("a length in digits");
            text.trim().parse::<u64>().expect("a length")
        });
        let body = match (coded, length) {
            (true, _) => match chunks(bytes, head_end) {
                Ok(body) => body,
                Err(()) => return (messages, false),
            },
            (false, length) => {
                let length = usize::try_from(length.unwrap_or(0)).unwrap_or(usize::MAX);
                let body = bytes[head_end..].get(..length);
                body.map(|body| (body.to_vec(), head_end + length))
            }
        };
        let asks = |value: &[u8]| {
            let mut words = value.split(|&byte| byte == b',');
            words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        };
        let connection = request
            .headers
            .iter()
            .any(|field| field.name.eq_ignore_ascii_case("connection") && asks(field.value));
        let upgrade = connection
            && value("upgrade").is_some()
            && request.version == Some(1)
            && !coded
            && length.unwrap_or(0) == 0;
        let end = body.as_ref().map(|&(_, end)| end);
        messages.push(Message {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().as_bytes().to_vec(),
            fields: fields(request.headers),
            head_end,
            body,
            upgrade,
        });
        match end {
            Some(_) if upgrades && upgrade => return (messages, true),
            Some(end) => at = end,
            None => return (messages, true),
        }
    }
}

/// One response.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub http_10: bool,
    pub fields: Vec<Field>,
    /// Where its head ends.
    pub head_end: usize,
    /// Its body, and where it ends; `None` when it is not all there.
    pub body: Option<(Vec<u8>, usize)>,
}

/// The response at the beginning of these bytes, which answers HEAD or something else, and which
/// the end of the connection follows; `None` where its head is not complete.
pub fn response(bytes: &[u8], to_head: bool) -> Result<Option<Response>, httparse::Error> {
    let mut room = [httparse::EMPTY_HEADER; 300];
    let mut response = httparse::Response::new(&mut room);
    let httparse::Status::Complete(head_end) = response.parse(bytes)? else {
        return Ok(None);
    };
    let fields = fields(response.headers);
    let status = response.code.expect("a status");
    // Of an interim response it means nothing, whatever it is.
    let length = values(&fields, "content-length")
        .first()
        .and_then(|value| std::str::from_utf8(value).ok()?.parse::<u64>().ok());
    let body = if to_head || status < 200 || status == 204 || status == 304 {
        Some((Vec::new(), head_end))
    } else if !values(&fields, "transfer-encoding").is_empty() {
        chunks(bytes, head_end).map_err(|()| httparse::Error::Token)?
    } else {
        let rest = &bytes[head_end..];
        let length = length.map_or(rest.len(), |it| usize::try_from(it).unwrap_or(usize::MAX));
        let body = rest.get(..length);
        body.map(|body| (body.to_vec(), head_end + length))
    };
    Ok(Some(Response {
        status,
        http_10: response.version == Some(0),
        fields,
        head_end,
        body,
    }))
}

/// A body and where it ends.
pub type Body = Option<(Vec<u8>, usize)>;

/// A body in chunks and where it ends; `None` when more must come.
#[allow(clippy::result_unit_err)]
pub fn chunks(bytes: &[u8], mut at: usize) -> Result<Body, ()> {
    let mut body = Vec::new();
    loop {
        let (length, size) = match httparse::parse_chunk_size(&bytes[at..]) {
            Ok(httparse::Status::Complete(read)) => read,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(()),
        };
        at += length;
        if size == 0 {
            let mut fields = [httparse::EMPTY_HEADER; 300];
            return match httparse::parse_headers(&bytes[at..], &mut fields) {
                Ok(httparse::Status::Complete((length, _))) => Ok(Some((body, at + length))),
                Ok(httparse::Status::Partial) => Ok(None),
                Err(_) => Err(()),
            };
        }
        let Some(data) = usize::try_from(size)
            .ok()
            .and_then(|size| bytes[at..].get(..size))
        else {
            return Ok(None);
        };
        body.extend_from_slice(data);
        at += data.len();
        match bytes[at..] {
            [b'\r', b'\n', ..] => at += 2,
            [] | [b'\r'] => return Ok(None),
            _ => return Err(()),
        }
    }
}
