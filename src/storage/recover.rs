//! Recovery: what of staging is worth keeping when a server starts.

use std::io;
use std::sync::Arc;

use jiff::Timestamp;

use super::kept::Kept;
use super::meta::What;
use super::path::VirtualPath;
use super::quota::{Count, Reservation};
use super::record::{self, Record};
use super::space::{Space, SpaceId};
use super::store::Store;
use super::tree::for_each;

impl Store {
    /// Keeps the uploads that have a record, as far as it says that they are safe, and leaves all
    /// else that is staged to be deleted behind the start.
    pub(super) fn recover(&self) -> io::Result<()> {
        let kept = self.kept();
        let mut found = Vec::new();
        for_each(&kept.staging.dir, |entry| {
            let id = entry.file_name().to_str().ok().and_then(record::upload_of);
            found.extend(id.and_then(|id| self.recovered(id)));
            Ok(())
        })?;
        found.sort_by_key(|(at, _)| *at);
        for (_, upload) in found {
            kept.restore(upload);
        }
        let is_kept = |name: &str| kept.contains(record::upload_of(name).unwrap_or(name));
        kept.staging.leave_others(is_kept)
    }

    /// The upload with that name, if all that its record says is true.
    fn recovered(&self, id: &str) -> Option<(Timestamp, Kept)> {
        let staging = &self.kept().staging;
        let (record, progress) = record::read(staging, id)?;
        let (data, meta) = staging.dir.open_file_to_write(id).ok()?;
        let is_it = meta.what == What::File && meta.birthmark() == record.data;
        if !is_it || meta.size < progress.offset || !self.is_there(&record.owner) {
            return None;
        }
        let space = self.space_of_record(&record)?;
        // What is behind may or may not be what came.
        data.set_len(progress.offset).ok()?;
        let mut reservation = Reservation::new(&space);
        // Nothing is limited before somebody has opened the space.
        reservation
            .grow_stored(Count::file(progress.offset), &VirtualPath::root())
            .ok()?;
        let kept = Kept::new(
            id.to_owned(),
            record,
            progress.offset,
            Some(progress.at),
            reservation,
        )?;
        Some((progress.at, kept))
    }

    fn space_of_record(&self, record: &Record) -> Option<Arc<Space>> {
        let SpaceId { area, name, .. } = &record.space;
        if !self.is_there(&record.space) {
            return None;
        }
        let root = self.area(*area).open_dir(name.as_str()).ok()?;
        let space = self.space_of(*area, name, root).ok()?;
        (*space.id() == record.space).then_some(space)
    }

    /// Whether the space is still there, and no other under its name.
    pub(super) fn is_there(&self, space: &SpaceId) -> bool {
        self.look_for(space).unwrap_or(false)
    }

    /// As [`Self::is_there`], with what the system says if nobody can tell.
    pub(super) fn look_for(&self, space: &SpaceId) -> io::Result<bool> {
        let path = VirtualPath::root().join_name(&space.name);
        if path.is_err() || space.name.is_empty() {
            return Ok(false);
        }
        let meta = self.area(space.area).meta(space.name.as_str())?;
        Ok(meta.is_some_and(|meta| meta.what == What::Dir && meta.birthmark() == space.mark))
    }
}
