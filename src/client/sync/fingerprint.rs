//! Whether a local tree has changed, for a mirror that is kept up to date.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use crate::client::ClientError;
use crate::client::sync::entry::ListedItem;
use crate::client::sync::filter::PathFilter;
use crate::client::sync::job::SyncJob;
use crate::client::sync::scan::{LocalScan, ScanOptions};
use crate::client::transfer::blocking::blocking;

/// A value that differs once the local tree of a job has changed in a way that a sync would see.
///
/// # Errors
/// [`ClientError::Local`] if the tree cannot be listed.
pub async fn local_fingerprint(job: &SyncJob) -> Result<u64, ClientError> {
    let (root, filter) = (job.local.clone(), job.options.filter.clone());
    let options = ScanOptions {
        links: job.options.links,
        one_file_system: job.options.one_file_system,
    };
    blocking(move || {
        let filter = PathFilter::new(&filter, root.clone(), None)?;
        compute(&root, options, filter)
    })
    .await
}

fn compute(root: &Path, options: ScanOptions, filter: PathFilter) -> Result<u64, ClientError> {
    let mut hasher = DefaultHasher::new();
    for item in LocalScan::new(root, options, filter)? {
        match item? {
            ListedItem::Entry(entry) => {
                let size = (!entry.is_dir()).then_some(entry.size);
                (entry.path, size, entry.modified, entry.mode).hash(&mut hasher);
            }
            ListedItem::Withheld { path, .. } => path.hash(&mut hasher),
        }
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::client::sync::filter::FilterOptions;

    #[test]
    fn the_fingerprint_differs_after_a_change_and_only_then() {
        let root = tempfile::tempdir().expect("a directory");
        let of_now = || {
            let filter = PathFilter::new(&FilterOptions::default(), root.path().into(), None);
            let filter = filter.expect("no patterns");
            compute(root.path(), ScanOptions::default(), filter).expect("listed")
        };
        let path = root.path().join("a");
        let empty = of_now();
        fs::write(&path, "text").expect("written");
        let written = of_now();
        assert_ne!(written, empty);
        assert_eq!(written, of_now());
        fs::write(&path, "longer text").expect("written");
        assert_ne!(written, of_now());
    }
}
