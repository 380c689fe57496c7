//! The free and total space of the disk. A disk that hangs delays no caller.

use std::path::Path;

use futures::FutureExt;
use rustix::fs::statvfs;
use serde::Serialize;
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes of the file system of the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct DiskSpace {
    /// The bytes that users other than root can still write.
    free: u64,
    total: u64,
}

/// The last measurement, and the one that is running.
#[derive(Debug, Default)]
pub(crate) struct DiskSpaceGauge {
    last: Option<DiskSpace>,
    running: Option<JoinHandle<Option<DiskSpace>>>,
}

impl DiskSpaceGauge {
    /// The result of the last finished measurement. Starts another one if none is running.
    pub(crate) fn latest(&mut self, data: &Path) -> Option<DiskSpace> {
        if let Some(space) = self.running.as_mut().and_then(FutureExt::now_or_never) {
            self.last = space.ok().flatten();
            self.running = None;
        }
        self.running.get_or_insert_with(|| {
            let data = data.to_owned();
            spawn_blocking(move || measure(&data))
        });
        self.last
    }
}

fn measure(data: &Path) -> Option<DiskSpace> {
    let found = statvfs(data).ok()?;
    Some(DiskSpace {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        total: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_measurement_is_returned_once_it_has_finished() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut gauge = DiskSpaceGauge::default();
        assert_eq!(gauge.latest(directory.path()), None);
        let space = loop {
            tokio::task::yield_now().await;
            if let Some(space) = gauge.latest(directory.path()) {
                break space;
            }
        };
        assert!(space.total > 0 && space.free <= space.total, "{space:?}");
    }
}
