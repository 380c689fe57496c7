//! The resources of the process, from `/proc` and its processor clock.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// The resources of the process. Values that the system does not provide are `None`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ProcessFigures {
    /// Seconds of processor time since the start, of all threads.
    pub(super) cpu_seconds: f64,
    /// Bytes of memory in use.
    pub(super) resident: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) descriptors: Option<u64>,
    /// The limit of descriptors; `None` if there is none.
    pub(super) max_descriptors: Option<u64>,
}

impl ProcessFigures {
    /// Reads the current values. Slow if many files are open.
    pub(super) fn read() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let descriptors = fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
        Self {
            #[expect(clippy::cast_precision_loss, reason = "not within 2^53 seconds")]
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            resident: number(&status, "VmRSS:").map(|kib| kib.saturating_mul(1024)),
            threads: number(&status, "Threads:"),
            // Without the one that reads the directory.
            descriptors: descriptors.map(|count| count.saturating_sub(1) as u64),
            max_descriptors: getrlimit(Resource::Nofile).current,
        }
    }
}

/// The first number of the line that begins with `name`.
fn number(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_threads_and_files_and_uses_processor_time() {
        let process = ProcessFigures::read();
        assert!(process.cpu_seconds > 0.0, "{process:?}");
        assert!(
            process.resident.is_some_and(|bytes| bytes > 1 << 20),
            "{process:?}"
        );
        assert!(
            process.threads.is_some_and(|threads| threads >= 1),
            "{process:?}"
        );
        assert!(
            process.descriptors.is_some_and(|files| files >= 3),
            "{process:?}"
        );
    }

    #[test]
    fn numbers_are_found_by_name_and_missing_ones_are_none() {
        let status = "Name:\thaul\nVmRSS:\t  5120 kB\nThreads:\t7\n";
        assert_eq!(number(status, "VmRSS:"), Some(5120));
        assert_eq!(number(status, "Threads:"), Some(7));
        assert_eq!(number(status, "VmSwap:"), None);
    }
}
