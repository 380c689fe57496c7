//! Whose what is that haul makes. An operator may run its commands as root on what is another
//! user's, and that one has to be able to use it afterwards.

use std::os::fd::AsFd;

use rustix::fs::{Gid, Uid, fchown, fstat};
use rustix::process::geteuid;

/// Gives what root has made in `directory` to the owner of that. Anyone else's is theirs already.
/// A root that may not give anything away keeps it.
pub(crate) fn hand_over(made: impl AsFd, directory: impl AsFd) {
    if !geteuid().is_root() {
        return;
    }
    if let Ok(directory) = fstat(directory) {
        let (user, group) = (directory.st_uid, directory.st_gid);
        let _ = fchown(made, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{MetadataExt, chown};

    use super::*;

    #[test]
    fn what_root_makes_in_the_directory_of_another_is_theirs() {
        let place = tempfile::tempdir().expect("a directory");
        let wanted = if geteuid().is_root() {
            chown(place.path(), Some(12_345), Some(54_321)).expect("root may");
            (12_345, 54_321)
        } else {
            let own = place.path().metadata().expect("there");
            (own.uid(), own.gid())
        };
        let made = File::create(place.path().join("made")).expect("made");
        hand_over(&made, File::open(place.path()).expect("open"));
        let made = made.metadata().expect("there");
        assert_eq!((made.uid(), made.gid()), wanted);
    }
}
