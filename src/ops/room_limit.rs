//! How much room is on the disk, asked in a way that a disk that hangs holds nobody up.

use std::path::Path;

use futures::FutureExt;
use rustix::fs::statvfs;
use serde::Serialize;
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes of the file system of the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct DiskSpace {
    /// The space that a user other than root can still write.
    free: u64,
    total: u64,
}

/// What is known of the room, and the one look at it that is under way.
#[derive(Debug, Default)]
pub(crate) struct DiskSpaceGauge {
    known: Option<DiskSpace>,
    looking: Option<JoinHandle<Option<DiskSpace>>>,
}

impl DiskSpaceGauge {
    /// The result of the last look that has ended; starts another one if none is under way.
    pub(crate) fn latest(&mut self, data: &Path) -> Option<DiskSpace> {
        if let Some(found) = self.looking.as_mut().and_then(FutureExt::now_or_never) {
            self.known = found.ok().flatten();
            self.looking = None;
        }
        self.looking.get_or_insert_with(|| {
            let data = data.to_owned();
            spawn_blocking(move || measure(&data))
        });
        self.known
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
    async fn what_a_look_has_found_is_known_from_the_next_one_on() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let mut rooms = DiskSpaceGauge::default();
        assert_eq!(rooms.latest(place.path()), None);
        let found = loop {
            tokio::task::yield_now().await;
            if let Some(found) = rooms.latest(place.path()) {
                break found;
            }
        };
        assert!(found.total > 0 && found.free <= found.total, "{found:?}");
    }
}
