//! The body of an upstream's answer on its way to a client of HTTP/2, as it comes.

use crate::proxy::buffer_pool::ROOM_BYTES;
use crate::proxy::h1::body::{BodyReader, TRAILERS_MAX, UnfinishedGuard};
use crate::proxy::h1::header_block::HeaderBlock;
use crate::proxy::h2::request_body::Http2RequestBody;
use crate::proxy::headers::hop_by_hop;
use crate::proxy::headers::reserved::ReservedNames;
use crate::proxy::observe::access_log::{LogEntry, ResponseEnd};
use crate::proxy::observe::meter::RequestMeter;
use crate::proxy::request_body::RequestBody;
use crate::proxy::timer::Timer;
use crate::upstream::PooledConnection;
use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use std::error::Error;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::time::Sleep;

/// A body. When it was read to its end the connection is kept; when the client leaves before, it
/// is closed.
#[derive(Debug)]
pub struct StreamedBody {
    connection: Option<PooledConnection>,
    /// What is still on its way to the upstream.
    upload: Option<(Box<RequestBody>, Http2RequestBody)>,
    keeps: bool,
    rest: BodyReader,
    /// Read, and not given on.
    said: BytesMut,
    trailers: Option<HeaderMap>,
    reserved: Rc<ReservedNames>,
    watched: UnfinishedGuard,
    quiet: Timer,
    quiet_max: Duration,
    /// When all of it must be there.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Logged when it has ended.
    entry: Option<Box<LogEntry>>,
    /// Counted when this is dropped.
    meter: Option<RequestMeter>,
}

type Next = Option<Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>>;

impl StreamedBody {
    /// The `rest` of an answer, of which `said` was read; the connection that it comes over, and
    /// whether that lets another request follow; the names that trailers must not have; who is told
    /// if it breaks off; the longest pause, and when all of it must be there.
    pub fn new(
        (connection, keeps): (PooledConnection, bool),
        rest: BodyReader,
        said: BytesMut,
        reserved: Rc<ReservedNames>,
        watched: UnfinishedGuard,
        (quiet_max, deadline): (Duration, Option<Instant>),
    ) -> StreamedBody {
        let until = |deadline: Instant| Box::pin(tokio::time::sleep_until(deadline.into()));
        StreamedBody {
            connection: Some(connection),
            upload: None,
            keeps,
            rest,
            said,
            trailers: None,
            reserved,
            watched,
            quiet: Timer::default(),
            quiet_max,
            deadline: deadline.map(until),
            entry: None,
            meter: None,
        }
    }

    /// Takes what is left of the request's body to the upstream.
    pub fn beside(&mut self, upload: Option<(Box<RequestBody>, Http2RequestBody)>) {
        self.upload = upload;
    }

    /// Logs it when it has ended.
    pub fn log(&mut self, entry: Option<Box<LogEntry>>) {
        self.entry = entry;
    }

    /// Counts it when it has ended.
    pub fn count(&mut self, meter: Option<RequestMeter>) {
        if let Some(meter) = &meter {
            meter.goes_on();
        }
        self.meter = meter;
    }

    /// What is logged of it.
    pub fn take_log(&mut self) -> Option<Box<LogEntry>> {
        self.entry.take()
    }

    /// Whether nothing more comes.
    pub fn has_ended(&self) -> bool {
        self.rest.has_ended() && self.trailers.is_none()
    }

    /// How many bytes are to come, where that is known.
    pub fn left_bytes(&self) -> Option<u64> {
        self.rest.left_bytes()
    }

    /// More of it.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        let over = |deadline: &mut Pin<Box<Sleep>>| deadline.as_mut().poll(context).is_ready();
        let is_late = self.deadline.as_mut().is_some_and(over);
        let next = match is_late {
            true => Some(Err(io::ErrorKind::TimedOut.into())),
            false => ready!(self.poll_next(context)).transpose(),
        };
        if let Some(entry) = &mut self.entry {
            match &next {
                Some(Ok(frame)) => entry.gave(frame.data_ref().map_or(0, Bytes::len) as u64),
                Some(Err(_)) if is_late => entry.ends(ResponseEnd::Late),
                Some(Err(_)) => entry.ends(ResponseEnd::Broken),
                None => {}
            }
        }
        if self.has_ended()
            && !matches!(next, Some(Err(_)))
            && let Some(entry) = &mut self.entry
        {
            entry.ends(ResponseEnd::Complete);
        }
        if let Some(Err(_)) = next {
            self.entry = None;
            // Nothing more comes after an error.
            self.connection = None;
            self.rest = BodyReader::NONE;
        }
        Poll::Ready(next.map(|next| next.map_err(Into::into)))
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Frame<Bytes>>>> {
        loop {
            self.pass_frames()?;
            let data = self.rest.data(&self.said);
            if data > 0 {
                let data = self.said.split_to(data).freeze();
                // What is unsound behind it is said when it is its turn.
                let _ = self.pass_frames();
                return Poll::Ready(Ok(Some(Frame::data(data))));
            }
            if self.rest.has_ended() {
                let trailers = self.trailers.take().map(Frame::trailers);
                return Poll::Ready(Ok(trailers));
            }
            if ready!(self.poll_read(context))? == 0 {
                self.keeps = false;
                if self.rest.close().is_none() {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
    }

    /// Passes over what is not data; where that is the end, lets go of the connection.
    fn pass_frames(&mut self) -> io::Result<()> {
        let unsound = || io::Error::from(io::ErrorKind::InvalidData);
        let frames = self.rest.frames(&self.said).map_err(|_| unsound())?;
        if frames.trailers > b"\r\n".len() {
            let trailers = &self.said[frames.bytes - frames.trailers..frames.bytes];
            self.trailers = Some(fields(trailers, &self.reserved).ok_or_else(unsound)?);
        }
        self.said.advance(frames.bytes);
        if self.rest.has_ended() {
            self.end();
        }
        Ok(())
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(Ok(0));
        };
        if let Some((upload, body)) = &mut self.upload {
            upload.poll(context, body, &mut connection.stream);
            if let Some(entry) = &mut self.entry {
                entry.received(upload.bytes());
            }
            if upload.fault().is_some() {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
        self.said.reserve(ROOM_BYTES);
        let read = pin!(connection.stream.read_buf(&mut self.said)).poll(context);
        match read {
            Poll::Ready(read) => {
                self.quiet.stop();
                Poll::Ready(read)
            }
            Poll::Pending if self.quiet.poll_over(context, self.quiet_max) => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// All has come: the connection is kept, if it may be.
    fn end(&mut self) {
        self.watched.let_off();
        let upload = self.upload.take();
        let through = upload.is_none_or(|(upload, _)| upload.is_through());
        if let Some(connection) = self.connection.take()
            && self.keeps
            && through
            && self.said.is_empty()
        {
            connection.release(Instant::now());
        }
    }
}

/// Trailers as a client may have them.
fn fields(trailers: &[u8], reserved: &ReservedNames) -> Option<HeaderMap> {
    let (lines, _) = HeaderBlock::read(trailers, 0, TRAILERS_MAX).ok()??;
    let mut fields = HeaderMap::new();
    lines.give(&mut fields);
    hop_by_hop::remove_from_trailers(&mut fields, reserved);
    Some(fields)
}
