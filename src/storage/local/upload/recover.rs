//! Recovery: what of staging is worth keeping when a server starts.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use jiff::Timestamp;

use crate::storage::local::fs::metadata::EntryKind;
use crate::storage::local::fs::tree::for_each;
use crate::storage::local::quota::{Reservation, SpaceCount};
use crate::storage::local::space::{Space, SpaceId};
use crate::storage::local::store::Store;
use crate::storage::local::upload::partial::PartialUpload;
use crate::storage::local::upload::record;
use crate::storage::local::upload::record::{Progress, Record};
use crate::storage::path::VirtualPath;

impl Store {
    /// Keeps the uploads that have a record, as far as it says that they are safe, and leaves all
    /// else that is staged to be deleted behind the start.
    pub(crate) fn recover(&self) -> io::Result<()> {
        let kept = self.kept();
        let mut found = Vec::new();
        let mut unknown = HashSet::new();
        for_each(&kept.staging.dir, |entry| {
            let id = entry.file_name().to_str().ok().and_then(record::upload_of);
            match id.map(|id| (id, self.recovered(id))) {
                Some((_, Ok(recovered))) => found.extend(recovered),
                Some((id, Err(error))) => {
                    tracing::warn!(
                        name: "upload_not_recovered",
                        %error,
                        upload = id,
                        "cannot tell where a kept upload belongs: it is left for the next start"
                    );
                    unknown.insert(id.to_owned());
                }
                None => {}
            }
            Ok(())
        })?;
        found.sort_by_key(|(at, _)| *at);
        for (_, upload) in found {
            kept.restore(upload);
        }
        let is_kept = |name: &str| {
            let id = record::upload_of(name).or_else(|| record::upload_of_new(name));
            let id = id.unwrap_or(name);
            kept.contains(id) || unknown.contains(id)
        };
        kept.staging.leave_others(is_kept)
    }

    /// The upload with that name, if all that its record says is true. An error if nobody can tell.
    fn recovered(&self, id: &str) -> io::Result<Option<(Timestamp, PartialUpload)>> {
        let staging = &self.kept().staging;
        let Some((record, progress)) = record::read(staging, id) else {
            return Ok(None);
        };
        let Ok((data, meta)) = staging.dir.open_file_to_write(id) else {
            return Ok(None);
        };
        let is_it = meta.what == EntryKind::File && meta.birthmark() == record.data;
        if !is_it || meta.size < progress.offset || !self.look_for(&record.owner)? {
            return Ok(None);
        }
        let Some(space) = self.space_of_record(&record)? else {
            return Ok(None);
        };
        // What is behind may or may not be what came.
        data.set_len(progress.offset)?;
        record::remove_new(staging, id);
        Ok(restored(id, record, progress, &space))
    }

    fn space_of_record(&self, record: &Record) -> io::Result<Option<Arc<Space>>> {
        let SpaceId { area, name, .. } = &record.space;
        if !self.look_for(&record.space)? {
            return Ok(None);
        }
        let root = self.area(*area).open_dir(name.as_str())?;
        let space = self.space_of(*area, name, root)?;
        Ok((*space.id() == record.space).then_some(space))
    }

    /// Whether the space is gone for sure, or another has its name: not where nobody can tell.
    pub(crate) fn is_gone(&self, space: &SpaceId) -> bool {
        self.look_for(space).is_ok_and(|is_there| !is_there)
    }

    /// Whether the space is still there, and no other under its name.
    pub(crate) fn look_for(&self, space: &SpaceId) -> io::Result<bool> {
        let path = VirtualPath::root().join_name(&space.name);
        if path.is_err() || space.name.is_empty() {
            return Ok(false);
        }
        let meta = self.area(space.area).meta(space.name.as_str())?;
        Ok(meta.is_some_and(|meta| meta.what == EntryKind::Dir && meta.birthmark() == space.mark))
    }
}

/// What is kept of upload `id`, with the room that it takes up.
fn restored(
    id: &str,
    record: Record,
    progress: Progress,
    space: &Arc<Space>,
) -> Option<(Timestamp, PartialUpload)> {
    let mut reservation = Reservation::under_way(space);
    // Nothing is limited before somebody has opened the space.
    let grown = reservation.grow_stored(SpaceCount::file(progress.offset), &VirtualPath::root());
    grown.ok()?;
    let (offset, at) = (progress.offset, progress.at);
    let kept = PartialUpload::new(id.to_owned(), record, offset, Some(at), reservation)?;
    Some((at, kept))
}
