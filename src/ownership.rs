//! The ownership of new files. An operator may run commands as root on the data of another user, who
//! must be able to use the files afterwards.

use std::os::fd::AsFd;

use rustix::fs::{Gid, Uid, fchown, fstat};
use rustix::process::geteuid;

/// Gives a file that root has created in `directory` to the owner of the directory. Does nothing for
/// other users, and ignores a failure.
pub(crate) fn give_to_owner_of(file: impl AsFd, directory: impl AsFd) {
    if !geteuid().is_root() {
        return;
    }
    if let Ok(directory) = fstat(directory) {
        let (user, group) = (directory.st_uid, directory.st_gid);
        let _ = fchown(file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{MetadataExt, chown};

    use super::*;

    #[test]
    fn a_file_that_root_creates_belongs_to_the_owner_of_the_directory() {
        let place = tempfile::tempdir().expect("a directory");
        let wanted = if geteuid().is_root() {
            chown(place.path(), Some(12_345), Some(54_321)).expect("root may");
            (12_345, 54_321)
        } else {
            let own = place.path().metadata().expect("there");
            (own.uid(), own.gid())
        };
        let made = File::create(place.path().join("made")).expect("made");
        give_to_owner_of(&made, File::open(place.path()).expect("open"));
        let made = made.metadata().expect("there");
        assert_eq!((made.uid(), made.gid()), wanted);
    }
}
