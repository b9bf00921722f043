//! A site that another program serves: it prints its port.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A running site; it is killed when this is dropped.
pub struct Site {
    child: Child,
    pub port: u16,
}

impl Site {
    pub fn start(command: &mut Command) -> Site {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next().expect("the site prints its port").unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        Site {
            child,
            port: port.trim().parse().unwrap(),
        }
    }

    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop();
    }
}
