//! Part files of running, interrupted and killed downloads.

use super::*;
use crate::protocol::Digest;

const METADATA: FinalMetadata = FinalMetadata {
    modified: Timestamp::UNIX_EPOCH,
    mode: 0o640,
};

fn names(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().expect("readable");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("text"))
        .collect();
    names.sort();
    names
}

fn open(target: &Path) -> PartFile {
    PartFile::open(target).expect("opened")
}

fn interrupted_version(part: &PartFile) -> Option<&str> {
    match &part.content {
        PartContent::Interrupted(version) => Some(version),
        _ => None,
    }
}

/// The part file of a download of `target` whose process was killed before it knew the version.
fn kill_download_of(target: &Path) -> PathBuf {
    let mut part = open(target);
    part.write(b"half").expect("written");
    part.path.disable_cleanup(true);
    part.path.to_path_buf()
}

/// The part file of a download of `target` that was interrupted.
fn interrupt_download_of(target: &Path, content: &[u8]) -> PathBuf {
    let mut part = open(target);
    part.set_version("v1", MIN_RESUME_BYTES).expect("set");
    part.write(content).expect("written");
    part.path.to_path_buf()
}

#[test]
fn a_stale_part_file_is_replaced_by_the_next_download_of_its_target() {
    let place = tempfile::tempdir().expect("a directory");
    let target = place.path().join("target");
    let stale = kill_download_of(&target);
    let part = open(&target);
    assert_eq!(&*part.path, stale);
    assert_eq!(interrupted_version(&part), None);
    assert_eq!(part.file.metadata().expect("there").len(), 0);
    drop(part);
    assert!(names(place.path()).is_empty());
}

#[test]
fn an_interrupted_part_file_is_continued_and_complete_without_an_attribute() {
    let place = tempfile::tempdir().expect("a directory");
    let target = place.path().join("target");
    let interrupted = interrupt_download_of(&target, b"half ");
    remove_stale(place.path());
    let mut part = open(&target);
    assert_eq!(&*part.path, interrupted);
    let part_content = part.resume(Algorithm::Blake3).expect("readable");
    let (version, mut hasher, length) = part_content.expect("interrupted");
    assert_eq!((&*version, length), ("v1", 5));
    part.write(b"and half").expect("written");
    hasher.update(b"and half");
    let expected = Digest::compute(Algorithm::Blake3, b"half and half");
    assert_eq!(hasher.finish(), expected);
    part.persist(METADATA, &target).expect("renamed");
    assert_eq!(fs::read(&target).expect("there"), b"half and half");
    let file = File::open(&target).expect("there");
    assert!(fgetxattr(&file, VERSION_ATTRIBUTE, &mut [0; MAX_VERSION_BYTES]).is_err());
    assert_eq!(names(place.path()), ["target"]);
}

#[test]
fn a_part_file_that_is_too_old_or_shared_or_discarded_is_not_continued() {
    let place = tempfile::tempdir().expect("a directory");
    let target = place.path().join("target");
    let old = interrupt_download_of(&target, b"half");
    let file = File::options().write(true).open(&old).expect("there");
    let modified = SystemTime::now() - RETENTION - Duration::from_mins(1);
    file.set_modified(modified).expect("set");
    drop(file);
    remove_stale(place.path());
    assert!(names(place.path()).is_empty());
    let shared = interrupt_download_of(&target, b"half");
    fs::hard_link(&shared, place.path().join("link")).expect("linked");
    assert_eq!(interrupted_version(&open(&target)), None);
    interrupt_download_of(&target, b"half");
    open(&target).discard();
    let mut restarted = open(&target);
    restarted.set_version("v1", MIN_RESUME_BYTES).expect("set");
    restarted.truncate().expect("truncated");
    drop(restarted);
    assert_eq!(names(place.path()), ["link"]);
}

#[test]
fn a_running_download_of_the_same_target_keeps_its_part_file() {
    let place = tempfile::tempdir().expect("a directory");
    let target = place.path().join("target");
    interrupt_download_of(&target, b"half");
    let first = open(&target);
    let second = open(&target);
    assert_eq!(interrupted_version(&first), Some("v1"));
    assert_eq!(interrupted_version(&second), None);
    assert_ne!(&*first.path, &*second.path);
}

#[test]
fn stale_part_files_are_removed_and_those_of_live_downloads_and_other_files_stay() {
    let place = tempfile::tempdir().expect("a directory");
    let stale = kill_download_of(&place.path().join("stale"));
    fs::set_permissions(&stale, Permissions::from_mode(0o444)).expect("set");
    let mut live = open(&place.path().join("live"));
    live.write(b"half").expect("written");
    let others = [
        ".haul-notes.part",
        ".haul-0123456789abcdef.part.txt",
        "a.part",
    ];
    for name in others {
        fs::write(place.path().join(name), "").expect("written");
    }
    remove_stale(place.path());
    let mut expected = others.map(String::from).to_vec();
    let name = live.path.file_name().expect("a name");
    expected.push(name.display().to_string());
    expected.sort();
    assert_eq!(names(place.path()), expected);
}

#[test]
fn two_downloads_of_one_target_have_a_part_file_each() {
    let place = tempfile::tempdir().expect("a directory");
    let target = place.path().join("target");
    let (first, second) = (open(&target), open(&target));
    assert_ne!(&*first.path, &*second.path);
    remove_stale(place.path());
    assert!(first.path.exists() && second.path.exists());
    assert!(
        names(place.path())
            .iter()
            .all(|name| is_part(name.as_ref()))
    );
}

#[test]
fn a_link_in_the_place_of_a_part_file_is_not_followed() {
    let place = tempfile::tempdir().expect("a directory");
    let target = place.path().join("target");
    let other = place.path().join("other");
    fs::write(&other, "kept").expect("written");
    let planted = place.path().join(file_name(OsStr::new("target"), 0));
    std::os::unix::fs::symlink(&other, &planted).expect("linked");
    let part = open(&target);
    assert_ne!(&*part.path, planted);
    remove_stale(place.path());
    assert_eq!(fs::read_to_string(&other).expect("there"), "kept");
}

#[test]
fn live_part_files_survive_any_number_of_downloads_that_begin_meanwhile() {
    let place = tempfile::tempdir().expect("a directory");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let directory = place.path();
            scope.spawn(move || {
                for round in 0..200 {
                    let target = directory.join(format!("{}", (thread + round) % 3));
                    let mut part = open(&target);
                    remove_stale(directory);
                    part.write(b"content").expect("written");
                    part.persist(METADATA, &target).expect("still there");
                }
            });
        }
    });
    assert_eq!(names(place.path()), ["0", "1", "2"]);
}

#[test]
fn a_download_that_does_not_resume_replaces_the_interrupted_content() {
    let place = tempfile::tempdir().expect("a directory");
    let target = place.path().join("target");
    for content in ["new", ""] {
        interrupt_download_of(&target, b"old content");
        let mut part = open(&target);
        if !content.is_empty() {
            part.write(content.as_bytes()).expect("written");
        }
        part.persist(METADATA, &target).expect("renamed");
        assert_eq!(fs::read_to_string(&target).expect("there"), content);
        assert_eq!(names(place.path()), ["target"]);
    }
}
