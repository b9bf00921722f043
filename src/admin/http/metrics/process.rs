//! Metrics that the operating system keeps of this process, by the names of Prometheus client
//! libraries.

use super::Metrics;
use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, boot_time_secs, page_size, ticks_per_second};

impl Metrics {
    /// Adds what the operating system reports about this process, or nothing if `/proc` is unreadable.
    pub(super) fn operating_system(&mut self) {
        match read() {
            Ok(numbers) => self.numbers(&numbers),
            Err(error) => tracing::debug!("/proc/self cannot be read: {error}"),
        }
    }

    fn numbers(&mut self, numbers: &Numbers) {
        let one = |value| [(vec![], value)];
        self.seconds(
            "process_cpu_seconds",
            "User and system CPU time used",
            numbers.cpu_s,
        );
        for (name, help, value) in [
            (
                "process_resident_memory_bytes",
                "Resident memory size",
                numbers.resident_bytes,
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory size",
                numbers.virtual_bytes,
            ),
            (
                "process_open_fds",
                "Open file descriptors",
                numbers.open_fds,
            ),
            (
                "process_max_fds",
                "Limit of open file descriptors",
                numbers.max_fds,
            ),
            ("process_threads", "Threads", numbers.threads),
            (
                "process_start_time_seconds",
                "When the process started, in Unix time",
                numbers.start_s,
            ),
        ] {
            self.gauge(name, help, one(value));
        }
    }
}

struct Numbers {
    cpu_s: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    open_fds: f64,
    max_fds: f64,
    threads: f64,
    start_s: f64,
}

fn read() -> ProcResult<Numbers> {
    let process = Process::myself()?;
    let stat = process.stat()?;
    let seconds = |ticks: u64| ticks as f64 / ticks_per_second() as f64;
    Ok(Numbers {
        cpu_s: seconds(stat.utime + stat.stime),
        resident_bytes: (stat.rss * page_size()) as f64,
        virtual_bytes: stat.vsize as f64,
        open_fds: process.fd_count()? as f64,
        max_fds: match process.limits()?.max_open_files.soft_limit {
            LimitValue::Value(limit) => limit as f64,
            LimitValue::Unlimited => f64::INFINITY,
        },
        threads: stat.num_threads as f64,
        start_s: boot_time_secs()? as f64 + seconds(stat.starttime),
    })
}
