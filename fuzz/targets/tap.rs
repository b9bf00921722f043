//! The tap on an endpoint's bytes: interim answers are taken out whole and nothing else is; hyper
//! reads the same answer through the tap as without it.
#![no_main]

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use watershed::upstream::Listener;
use watershed::upstream::fuzzing::{Ear, Tap};
use watershed_fuzz::pieces::{Stream, run};
use watershed_fuzz::split;

#[derive(Default)]
struct Told {
    heads: RefCell<Vec<u8>>,
    answers: Cell<usize>,
}

impl Listener for Told {
    fn interim(&self, status: u16, head: &[u8]) {
        assert!((100..200).contains(&status) && status != 101, "{status}");
        assert!(head.ends_with(b"\n"));
        self.heads.borrow_mut().extend_from_slice(head);
        self.answers.set(self.answers.get() + 1);
    }
}

fn tap(stream: Stream) -> (Tap<Stream>, Rc<Told>) {
    let ear = Rc::new(Ear::default());
    let told = Rc::<Told>::default();
    let listener: Rc<dyn Listener> = told.clone();
    ear.await_answer(Some(listener));
    (Tap::new(stream, ear), told)
}

/// Status, fields and body (`None` when it breaks off) of the answer to GET or HEAD.
type Answer = (u16, usize, Option<Vec<u8>>);

async fn ask(head: bool, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Option<Answer> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let running = tokio::task::spawn_local(connection);
    let request = Request::builder().method(if head { "HEAD" } else { "GET" });
    let request = request.uri("/").header("host", "a");
    let response = sender.send_request(request.body(Empty::<Bytes>::new()).ok()?);
    let response = response.await.ok();
    let answer = match response {
        Some(response) => {
            let (head, body) = response.into_parts();
            let body = body.collect().await.ok();
            let body = body.map(|body| body.to_bytes().to_vec());
            Some((head.status.as_u16(), head.headers.len(), body))
        }
        None => None,
    };
    running.abort();
    answer
}

fuzz_target!(init: watershed_fuzz::fixed::replay(), |input: &[u8]| {
    let Some((mut cutter, bytes)) = split(input) else {
        return;
    };
    let head = input[0] & 1 == 1;
    let (through, told) = run(async {
        let (mut tap, told) = tap(Stream::new(cutter.cut(bytes)));
        let mut through = Vec::new();
        let read = tap.read_to_end(&mut through).await;
        (read.ok().map(|_| through), told)
    });
    let Some(through) = through else {
        assert_eq!(
            told.answers.get(),
            64,
            "only too many interim answers end it"
        );
        return;
    };
    let heads = told.heads.borrow().clone();
    assert_eq!(
        [heads, through].concat(),
        bytes,
        "something was lost or added"
    );
    let (direct, tapped) = run(async {
        let direct = ask(head, Stream::new(cutter.cut(bytes))).await;
        let (tap, _) = tap(Stream::new(cutter.cut(bytes)));
        (direct, ask(head, tap).await)
    });
    assert_eq!(direct, tapped, "read without the tap, and through it");
});
