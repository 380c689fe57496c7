//! Publication: a staged entry that is complete and synced gets its name, and the name is synced.
//!
//! If the sync of the name fails, the caller gets an error, so the earlier file must still exist. A
//! replaced file therefore only swaps places with the staged one, and is deleted after the sync.

use crate::protocol::IfExists;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::install::{
    DisplacedEntry, InstallParent, InstallSource, Published, install_in,
};
use crate::storage::local::fs::metadata::{EntryKind, Metadata};
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::staging::Staged;
use crate::storage::local::fs::tree::{Reach, count_of};
use crate::storage::local::reservation::Reservation;
use crate::storage::local::space::LockedNames;
use crate::storage::path::VirtualPath;
use crate::storage::rights::Right;

/// A staged entry and its reservation, about to get a name.
#[derive(Debug)]
pub(crate) struct StagedEntry<'a> {
    pub(crate) staged: &'a mut Staged,
    pub(crate) reservation: &'a mut Reservation,
    pub(crate) is_dir: bool,
    /// How far it reaches below itself.
    pub(crate) reach: Reach,
}

impl StagedEntry<'_> {
    /// Gives it the name `to` in `parent`, and counts it. After that, `staged` is the file that it
    /// replaced, if any, and `reservation` is for that file. Nothing changes on an error. The name lasts
    /// once it is synced.
    pub(crate) fn publish(
        self,
        names: &LockedNames<'_>,
        parent: &mut InstallParent,
        to: &ResolvedPath,
        if_exists: IfExists,
    ) -> Result<Published, StorageError> {
        let source = InstallSource {
            dir: self.staged.dir(),
            name: self.staged.name(),
            is_dir: self.is_dir,
            path: None,
            reach: self.reach,
        };
        let published = install_in(names, parent, source, to, if_exists)?;
        if published.displaced_entry != DisplacedEntry::Exchanged {
            self.staged.release();
        }
        let reservation = std::mem::replace(self.reservation, Reservation::new(&to.space));
        *self.reservation = reservation.commit(names, published.displaced);
        Ok(published)
    }
}

/// Publishes one staged entry and syncs its name. Returns the path that it got.
///
/// # Errors
/// An error of the path as it is now, or a failure of the file system. The entry is discarded then.
pub(crate) fn publish_synced(
    mut staged: Staged,
    mut reservation: Reservation,
    to: &ResolvedPath,
    reach: Reach,
    if_exists: IfExists,
) -> Result<VirtualPath, StorageError> {
    let names = to.space.lock_names();
    to.require(Right::Write)?;
    let own = staged
        .dir()
        .meta(staged.name())
        .context("look at", &to.full)?;
    let own = own.ok_or_else(|| StorageError::not_found(&to.full))?;
    let mut parent = InstallParent::open(&names, to, false)?;
    let entry = StagedEntry {
        staged: &mut staged,
        reservation: &mut reservation,
        is_dir: own.kind == EntryKind::Dir,
        reach,
    };
    let published = entry.publish(&names, &mut parent, to, if_exists)?;
    drop(names);
    let lasts = published.sync(to).and_then(|()| to.check_attached());
    if lasts.is_err() {
        withdraw(&mut staged, &own, &published, to);
    }
    // The replaced file is in staging; its space is released once it is deleted.
    drop(staged);
    drop(reservation);
    lasts?;
    published.change.publish();
    Ok(published.path)
}

/// Takes the name of a file back if it may not last, as far as possible, and restores the file that it
/// replaced.
///
/// No lock was held during the sync. If another operation has changed the name meanwhile, that result
/// stays: it would have replaced the earlier file as well. A directory stays, since other users may have
/// put files into it.
pub(crate) fn withdraw(
    staged: &mut Staged,
    own: &Metadata,
    published: &Published,
    to: &ResolvedPath,
) {
    let names = to.space.lock_names();
    withdraw_entry(&names, staged, own, published, to);
    published.undo_make_dirs(&names);
}

fn withdraw_entry(
    names: &LockedNames<'_>,
    staged: &mut Staged,
    own: &Metadata,
    published: &Published,
    to: &ResolvedPath,
) {
    let Ok((dir, _)) = to.open_parent() else {
        return;
    };
    let name = published.path.name().unwrap_or_default();
    let is_own = matches!(dir.meta(name), Ok(Some(found)) if found.is_same_content(own));
    if !is_own
        || own.kind != EntryKind::File
        || published.displaced_entry == DisplacedEntry::Replaced
    {
        return;
    }
    let renamed = names.change(&[(&dir, name)], || match published.displaced_entry {
        DisplacedEntry::Nothing => dir.rename_new(name, staged.dir(), staged.name()),
        DisplacedEntry::Exchanged => dir.exchange(name, staged.dir(), staged.name()).map(|_| ()),
        DisplacedEntry::Replaced => Ok(()),
    });
    if let Err(error) = renamed {
        tracing::warn!(
            name: "file_may_not_last",
            %error,
            path = %published.path,
            "a file keeps its name although its directory could not be synced"
        );
        return;
    }
    staged.reclaim();
    names.account_removed(count_of(own));
    names.account_restored(published.displaced);
}
