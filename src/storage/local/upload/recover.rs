//! Recovery: a server that starts keeps the staged uploads that have a valid record.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use jiff::Timestamp;

use crate::storage::local::fs::metadata::EntryKind;
use crate::storage::local::fs::tree::for_each;
use crate::storage::local::reservation::Reservation;
use crate::storage::local::space::{Space, SpaceId};
use crate::storage::local::space_count::SpaceCount;
use crate::storage::local::store::Store;
use crate::storage::local::upload::partial::PartialUpload;
use crate::storage::local::upload::record;
use crate::storage::local::upload::record::{SyncedOffset, UploadManifest};
use crate::storage::path::VirtualPath;

impl Store {
    /// Keeps the uploads that have a valid record, up to their synced offset, and leaves everything else
    /// in staging to be deleted after the start.
    pub(crate) fn recover(&self) -> io::Result<()> {
        let partial_uploads = self.partial_uploads();
        let mut found = Vec::new();
        let mut unknown = HashSet::new();
        for_each(&partial_uploads.staging.dir, |entry| {
            let id = entry
                .file_name()
                .to_str()
                .ok()
                .and_then(record::id_of_record);
            match id.map(|id| (id, self.recover_upload(id))) {
                Some((_, Ok(recovered))) => found.extend(recovered),
                Some((id, Err(error))) => {
                    tracing::warn!(
                        name: "upload_not_recovered",
                        %error,
                        upload = id,
                        "cannot read where a partial upload belongs; it stays for the next start"
                    );
                    unknown.insert(id.to_owned());
                }
                None => {}
            }
            Ok(())
        })?;
        found.sort_by_key(|(at, _)| *at);
        for (_, upload) in found {
            partial_uploads.restore(upload);
        }
        let is_kept = |name: &str| {
            let id = record::id_of_record(name).or_else(|| record::id_of_unfinished_record(name));
            let id = id.unwrap_or(name);
            partial_uploads.contains(id) || unknown.contains(id)
        };
        partial_uploads.staging.queue_leftovers(is_kept)
    }

    /// The upload with that id, if its record is true. An error if the disk does not tell.
    fn recover_upload(&self, id: &str) -> io::Result<Option<(Timestamp, PartialUpload)>> {
        let staging = &self.partial_uploads().staging;
        let Some((record, progress)) = record::read(staging, id) else {
            return Ok(None);
        };
        let Ok((data, meta)) = staging.dir.open_file_to_write(id) else {
            return Ok(None);
        };
        let is_it = meta.kind == EntryKind::File && meta.file_id() == record.data;
        if !is_it || meta.size < progress.offset || !self.look_for(&record.owner)? {
            return Ok(None);
        }
        let Some(space) = self.space_of_record(&record)? else {
            return Ok(None);
        };
        // Bytes after the synced offset may be lost.
        data.set_len(progress.offset)?;
        record::remove_unfinished(staging, id);
        Ok(restore_partial(id, record, progress, &space))
    }

    fn space_of_record(&self, record: &UploadManifest) -> io::Result<Option<Arc<Space>>> {
        let SpaceId { area, name, .. } = &record.space;
        if !self.look_for(&record.space)? {
            return Ok(None);
        }
        let root = self.area(*area).open_dir(name.as_str())?;
        let space = self.space_of(*area, name, root)?;
        Ok((*space.id() == record.space).then_some(space))
    }

    /// Whether the space certainly does not exist; `false` if the disk does not tell.
    pub(crate) fn is_gone(&self, space: &SpaceId) -> bool {
        self.look_for(space).is_ok_and(|is_there| !is_there)
    }

    /// Whether the space still exists under its name.
    pub(crate) fn look_for(&self, space: &SpaceId) -> io::Result<bool> {
        let path = VirtualPath::root().join_name(&space.name);
        if path.is_err() || space.name.is_empty() {
            return Ok(false);
        }
        let meta = self.area(space.area).meta(space.name.as_str())?;
        Ok(meta.is_some_and(|meta| meta.kind == EntryKind::Dir && meta.file_id() == space.root_id))
    }
}

/// The partial upload `id`, with the reservation of its bytes.
fn restore_partial(
    id: &str,
    record: UploadManifest,
    progress: SyncedOffset,
    space: &Arc<Space>,
) -> Option<(Timestamp, PartialUpload)> {
    let mut reservation = Reservation::for_upload(space);
    // A space has no limits before it is opened.
    let grown = reservation.reserve_quota(SpaceCount::file(progress.offset), &VirtualPath::root());
    grown.ok()?;
    let (offset, at) = (progress.offset, progress.at);
    let partial = PartialUpload::new(id.to_owned(), record, offset, Some(at), reservation)?;
    Some((at, partial))
}
