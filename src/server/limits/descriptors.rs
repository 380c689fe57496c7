//! Divides the file descriptors of the process between the server itself, the files of users, and
//! connections. No part can use up another: open files do not prevent connections, nor the reverse.

use rustix::process::{Resource, getrlimit};

/// Descriptors of the server itself: databases, logs, listeners, timers, and operators' connections.
const SERVER_DESCRIPTORS: usize = 256;

/// Descriptors that one disk thread may hold while it works: the directories on the path of a file.
const DESCRIPTORS_PER_THREAD: usize = 8;

/// The descriptors for files and connections. All others belong to the server itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DescriptorBudget {
    /// Descriptors for open files of users, and for batches of small files.
    pub(crate) files: usize,
    /// Descriptors for connections.
    pub(crate) sockets: usize,
}

impl DescriptorBudget {
    /// Divides the limit of this process, for a server with these settings.
    pub(crate) fn from_process_limit(sessions: usize, disk_threads: usize) -> Self {
        let granted = getrlimit(Resource::Nofile).current;
        let granted = granted.and_then(|granted| usize::try_from(granted).ok());
        Self::divide(granted.unwrap_or(usize::MAX), sessions, disk_threads)
    }

    /// Files get at least a third of the descriptors that the server does not need, whatever `sessions`
    /// is.
    fn divide(granted: usize, sessions: usize, disk_threads: usize) -> Self {
        let own =
            SERVER_DESCRIPTORS.saturating_add(disk_threads.saturating_mul(DESCRIPTORS_PER_THREAD));
        let remaining = granted - own.min(granted / 2);
        let files = remaining.saturating_sub(sessions).max(remaining / 3);
        Self {
            files,
            sockets: (remaining - files).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_have_what_they_may_need_and_files_the_rest_but_never_nothing() {
        let budget = |files, sockets| DescriptorBudget { files, sockets };
        assert_eq!(
            DescriptorBudget::divide(20_000, 10_000, 64),
            budget(9232, 10_000)
        );
        assert_eq!(
            DescriptorBudget::divide(4096, 10_000, 64),
            budget(1109, 2219)
        );
        assert_eq!(DescriptorBudget::divide(1024, 100, 64), budget(412, 100));
        assert_eq!(DescriptorBudget::divide(256, 10_000, 64), budget(42, 86));
        let all = DescriptorBudget::divide(usize::MAX, 10_000, 64);
        assert_eq!(all.sockets, 10_000);
    }
}
