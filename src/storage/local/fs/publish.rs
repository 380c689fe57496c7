//! Publishing: what is staged and on the disk gets its name, and the name is brought to the disk.
//!
//! If that last step fails, an error is answered, so the old file must be there still. What is
//! replaced therefore only swaps places with what is staged, and is deleted once the new name
//! lasts.

use crate::protocol::IfExists;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::install::{Before, Published, Source, land};
use crate::storage::local::fs::metadata::{EntryKind, Metadata};
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::staging::Staged;
use crate::storage::local::fs::tree::{Reach, count_of};
use crate::storage::local::quota::Reservation;
use crate::storage::local::space::Names;
use crate::storage::path::VirtualPath;

/// Something staged, with the room it takes up, and where it is to go.
#[derive(Debug)]
pub(crate) struct Publishing<'a> {
    pub(crate) staged: Staged,
    pub(crate) reservation: Reservation,
    pub(crate) to: &'a ResolvedPath,
    /// How far it reaches below itself.
    pub(crate) reach: Reach,
}

/// What could not be published, and why.
#[derive(Debug)]
pub(crate) struct Unpublished {
    pub(crate) error: StorageError,
    /// What was staged, with its room, if nothing has changed: a caller that drops it discards it.
    pub(crate) staged: Option<Box<(Staged, Reservation)>>,
}

impl From<StorageError> for Unpublished {
    fn from(error: StorageError) -> Self {
        Self {
            error,
            staged: None,
        }
    }
}

impl Publishing<'_> {
    /// Gives it its name and says which path it got.
    pub(crate) fn publish(
        self,
        if_exists: IfExists,
        parents: bool,
    ) -> Result<VirtualPath, Unpublished> {
        let Self {
            mut staged,
            reservation,
            to,
            reach,
        } = self;
        let space = &to.space;
        let names = space.lock_names();
        let own = staged.dir().meta(staged.name()).at("look at", &to.full)?;
        let own = own.ok_or_else(|| StorageError::not_found(&to.full))?;
        let source = Source {
            dir: staged.dir(),
            name: staged.name(),
            is_dir: own.what == EntryKind::Dir,
            place: None,
            reach,
        };
        let landed = match land(&names, source, to, if_exists, parents) {
            Ok(landed) => landed,
            Err(error) => {
                drop(names);
                let staged = Some(Box::new((staged, reservation)));
                return Err(Unpublished { error, staged });
            }
        };
        if landed.before != Before::Exchanged {
            staged.set_left();
        }
        let held = reservation.settle(&names, landed.displaced);
        drop(names);
        let synced = landed.sync(to);
        let lasts = synced.and_then(|()| to.check_attached());
        if lasts.is_err() {
            take_back(&mut staged, &own, &landed, to);
        }
        // Deletes what is in staging now, and only then gives its room back.
        drop(staged);
        drop(held);
        lasts?;
        landed.noted.tell();
        Ok(landed.path)
    }
}

/// As well as it can be done, takes back a file whose name may not last, and gives the name back
/// to the file that had it.
///
/// While the disk was asked, no lock was held. If the name has come to mean something else
/// meanwhile, that is somebody's later will and stays: what had been here before would have been
/// replaced by it all the same. A directory stays, since others may have put files into it.
pub(crate) fn take_back(
    staged: &mut Staged,
    own: &Metadata,
    landed: &Published,
    to: &ResolvedPath,
) {
    let names = to.space.lock_names();
    take_back_entry(&names, staged, own, landed, to);
    landed.take_back_dirs(&names);
}

fn take_back_entry(
    names: &Names<'_>,
    staged: &mut Staged,
    own: &Metadata,
    landed: &Published,
    to: &ResolvedPath,
) {
    let Ok((dir, _)) = to.open_parent() else {
        return;
    };
    let name = landed.path.name().unwrap_or_default();
    let is_own = matches!(dir.meta(name), Ok(Some(there)) if there.is_same_content(own));
    if !is_own || own.what != EntryKind::File || landed.before == Before::Replaced {
        return;
    }
    let taken = names.change(&[(&dir, name)], || match landed.before {
        Before::Nothing => dir.rename_new(name, staged.dir(), staged.name()),
        Before::Exchanged => dir.exchange(name, staged.dir(), staged.name()).map(|_| ()),
        Before::Replaced => Ok(()),
    });
    if let Err(error) = taken {
        tracing::warn!(
            name: "file_may_not_last",
            %error,
            path = %landed.path,
            "a file that may not last stays in its place"
        );
        return;
    }
    staged.set_back();
    names.freed(count_of(own));
    names.restored(landed.displaced);
}
