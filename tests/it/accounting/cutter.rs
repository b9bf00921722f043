//! Something between the house and Redis that breaks connections in the middle of an answer.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const NEVER: usize = usize::MAX;

/// Passes bytes on until it is told to cut.
pub struct Cutter {
    pub address: SocketAddr,
    /// How many bytes of answers still pass.
    left: Arc<AtomicUsize>,
}

impl Cutter {
    pub fn before(redis: SocketAddr) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let left = Arc::new(AtomicUsize::new(NEVER));
        let passing = Arc::clone(&left);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(redis) else {
                    continue;
                };
                let (to, from) = (server.try_clone().unwrap(), stream.try_clone().unwrap());
                let never = Arc::new(AtomicUsize::new(NEVER));
                std::thread::spawn(move || pass(from, to, &never));
                let passing = Arc::clone(&passing);
                std::thread::spawn(move || pass(server, stream, &passing));
            }
        });
        Cutter { address, left }
    }

    /// After this many more bytes of answers every connection breaks, until mended.
    pub fn cut_after(&self, bytes: usize) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    pub fn mend(&self) {
        self.left.store(NEVER, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, left: &AtomicUsize) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        let may = left.load(Ordering::SeqCst);
        let passed = read.min(may);
        if read == 0 || to.write_all(&buffer[..passed]).is_err() {
            break;
        }
        if may != NEVER {
            left.fetch_sub(passed, Ordering::SeqCst);
            if passed < read {
                break;
            }
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
