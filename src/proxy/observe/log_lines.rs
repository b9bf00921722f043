//! Lines of the access log on their way to whoever writes them: many at a time, so that neither a
//! system call nor another thread's waking is paid for each.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long a line waits for others.
const WAIT: Duration = Duration::from_millis(10);
/// So many bytes go at once, however soon they came.
const BATCH_BYTES: usize = 64 << 10;
/// Room for the line that exceeds this.
const LINE_BYTES: usize = 4 << 10;

/// Takes lines without making anyone wait.
pub trait Sink: fmt::Debug + Send + Sync {
    /// Takes so many whole lines. Those that it has no room for are its to count.
    fn take(&self, lines: Vec<u8>, count: u64);
}

/// The lines of one worker.
#[derive(Debug)]
pub struct LogLines {
    sink: Arc<dyn Sink>,
    waiting: RefCell<Vec<u8>>,
    count: Cell<u64>,
    some: Notify,
}

impl LogLines {
    /// Lines for this sink.
    pub fn new(sink: Arc<dyn Sink>) -> LogLines {
        LogLines {
            sink,
            waiting: RefCell::default(),
            count: Cell::default(),
            some: Notify::new(),
        }
    }

    /// Adds a line: `write` appends it, with its end.
    pub fn write(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            waiting.reserve(BATCH_BYTES + LINE_BYTES);
            self.some.notify_one();
        }
        write(&mut waiting);
        self.count.set(self.count.get() + 1);
        if waiting.len() >= BATCH_BYTES {
            drop(waiting);
            self.flush();
        }
    }

    /// Gives away what waits.
    pub fn flush(&self) {
        let lines = self.waiting.take();
        if !lines.is_empty() {
            self.sink.take(lines, self.count.take());
        }
    }

    /// Gives lines away soon after they came, until it is dropped.
    pub async fn keep(&self) {
        loop {
            self.some.notified().await;
            tokio::time::sleep(WAIT).await;
            self.flush();
        }
    }
}

impl Drop for LogLines {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Debug, Default)]
    struct Seen(Mutex<Vec<(String, u64)>>);

    impl Sink for Seen {
        fn take(&self, lines: Vec<u8>, count: u64) {
            let lines = String::from_utf8(lines).unwrap();
            self.0.lock().unwrap().push((lines, count));
        }
    }

    fn push(lines: &LogLines, line: &str) {
        lines.write(|out| out.extend_from_slice(line.as_bytes()));
    }

    #[tokio::test]
    async fn lines_go_together_and_soon() {
        let seen = Arc::<Seen>::default();
        let lines = LogLines::new(Arc::clone(&seen) as Arc<dyn Sink>);
        let given = || std::mem::take(&mut *seen.0.lock().unwrap());
        let keep = lines.keep();
        let check = async {
            push(&lines, "a\n");
            push(&lines, "b\n");
            assert_eq!(given(), []);
            while seen.0.lock().unwrap().is_empty() {
                tokio::time::sleep(WAIT).await;
            }
            assert_eq!(given(), [("a\nb\n".to_owned(), 2)]);
            // What is long does not wait.
            let long = format!("{}\n", "x".repeat(BATCH_BYTES));
            push(&lines, "c\n");
            push(&lines, &long);
            assert_eq!(given(), [(format!("c\n{long}"), 2)]);
            push(&lines, "d\n");
        };
        tokio::select! {
            () = keep => unreachable!("it never ends"),
            () = check => {}
        }
        drop(lines);
        assert_eq!(
            given(),
            [("d\n".to_owned(), 1)],
            "the last ones are not lost"
        );
    }
}
