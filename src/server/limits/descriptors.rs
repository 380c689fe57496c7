//! How the descriptors that the system grants to the process are divided: between the server itself,
//! the files of users, and connections. No part can use up another, so a member who opens many files
//! leaves all the connections that there may be, and connections leave files to open.

use rustix::process::{Resource, getrlimit};

/// Descriptors of the server itself: its databases, its logs, its listeners, its timers, and the
/// connections of operators.
const OWN: usize = 256;

/// Descriptors that work on one disk thread may hold for as long as it runs: directories on the way
/// to a file.
const PER_THREAD: usize = 8;

/// What the descriptors are used for. The rest is the server's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DescriptorBudget {
    /// Those for files of users that are open, and for batches of small files.
    pub(crate) files: usize,
    /// Those for connections.
    pub(crate) sockets: usize,
}

impl DescriptorBudget {
    /// Divides what the system grants, for a server with these settings.
    pub(crate) fn of_process(sessions: usize, disk_threads: usize) -> Self {
        let granted = getrlimit(Resource::Nofile).current;
        let granted = granted.and_then(|granted| usize::try_from(granted).ok());
        Self::of(granted.unwrap_or(usize::MAX), sessions, disk_threads)
    }

    /// At least a third of what the server itself does not need is for files, whatever `sessions`
    /// says.
    fn of(granted: usize, sessions: usize, disk_threads: usize) -> Self {
        let own = OWN.saturating_add(disk_threads.saturating_mul(PER_THREAD));
        let rest = granted - own.min(granted / 2);
        let files = rest.saturating_sub(sessions).max(rest / 3);
        Self {
            files,
            sockets: (rest - files).max(1),
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
            DescriptorBudget::of(20_000, 10_000, 64),
            budget(9232, 10_000)
        );
        assert_eq!(DescriptorBudget::of(4096, 10_000, 64), budget(1109, 2219));
        assert_eq!(DescriptorBudget::of(1024, 100, 64), budget(412, 100));
        assert_eq!(DescriptorBudget::of(256, 10_000, 64), budget(42, 86));
        let all = DescriptorBudget::of(usize::MAX, 10_000, 64);
        assert_eq!(all.sockets, 10_000);
    }
}
