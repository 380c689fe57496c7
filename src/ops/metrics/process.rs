//! The resources of the process, from `/proc` and its processor clock.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// The resources of the process. Values that the system does not have are left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ProcessFigures {
    /// Seconds of processor time since the start, of all threads.
    pub(super) cpu_seconds: f64,
    /// Bytes of memory in use.
    pub(super) resident: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) descriptors: Option<u64>,
    /// The most that it may have; none if there is no limit.
    pub(super) most_descriptors: Option<u64>,
}

impl ProcessFigures {
    /// This one, now. Takes a while where many files are open.
    pub(super) fn read() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let descriptors = fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
        Self {
            #[expect(clippy::cast_precision_loss, reason = "not within 2^53 seconds")]
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            resident: number(&status, "VmRSS:").map(|kib| kib.saturating_mul(1024)),
            threads: number(&status, "Threads:"),
            // Less the one that reads.
            descriptors: descriptors.map(|count| count.saturating_sub(1) as u64),
            most_descriptors: getrlimit(Resource::Nofile).current,
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
    fn a_process_has_memory_threads_files_and_has_worked() {
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
    fn a_number_is_found_by_its_name_and_what_is_missing_is_none() {
        let status = "Name:\thaul\nVmRSS:\t  5120 kB\nThreads:\t7\n";
        assert_eq!(number(status, "VmRSS:"), Some(5120));
        assert_eq!(number(status, "Threads:"), Some(7));
        assert_eq!(number(status, "VmSwap:"), None);
    }
}
