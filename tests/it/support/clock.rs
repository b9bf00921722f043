//! A clock that tests set for the programs they start.

use tempfile::TempDir;

pub struct Clock(TempDir);

impl Clock {
    /// Creates a clock that shows the true time.
    pub fn new() -> Clock {
        let clock = Clock(TempDir::new().unwrap());
        clock.set(0);
        clock
    }

    /// Returns the environment variables with which a program uses this clock.
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = self.0.path().join("clock");
        let library = ["x86_64", "aarch64"]
            .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"));
        let library = library
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .expect("faketime is missing: run ./scripts/test-tools, which installs it");
        [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", path.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Sets it this many seconds before or after the true time.
    pub fn set(&self, seconds: i64) {
        let next = self.0.path().join("next");
        std::fs::write(&next, format!("{seconds:+}")).unwrap();
        std::fs::rename(next, self.0.path().join("clock")).unwrap();
    }
}
