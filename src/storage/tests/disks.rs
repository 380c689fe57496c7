//! A disk that is full, and files that are closed: tests that run once more in a namespace.

use std::process::Command;

use super::*;

/// Runs the ignored test `name` with its temporary files on a tmpfs of these options. Where
/// namespaces are not to be had it says so and lets the test pass.
pub(super) fn on_a_small_disk(name: &str, options: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let script = "mount -t tmpfs -o \"$1\" haul \"$TMPDIR\" || exit 77; shift; exec \"$@\"";
    let args = ["-Urm", "sh", "-c", script, "sh", options];
    let mut command = Command::new("unshare");
    run_again(command.args(args).env("TMPDIR", dir.path()), name);
}

/// Runs the ignored test `name` as one to whom permissions apply, root or not.
pub(super) fn without_privileges(name: &str) {
    run_again(Command::new("unshare").arg("-U"), name);
}

fn run_again(command: &mut Command, name: &str) {
    command.arg(std::env::current_exe().expect("this test"));
    match command.args(["--ignored", "--exact", name]).output() {
        Ok(output) if output.status.success() => {
            let report = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(report.contains("1 passed"), "{report}");
        }
        Ok(output) if output.status.code() == Some(101) => {
            panic!("{}", String::from_utf8_lossy(&output.stdout))
        }
        skipped => eprintln!("SKIPPED, no namespace to be had here: {skipped:?}"),
    }
}

#[test]
fn a_full_disk_is_no_space_and_what_was_staged_is_freed() {
    on_a_small_disk("storage::tests::disks::fills_the_disk", "size=8m");
}

#[test]
#[ignore = "wants a small disk: run by the test above"]
fn fills_the_disk() {
    let data = Data::new();
    data.put("/old", &vec![1; 5 << 20]).expect("room");
    assert_fails!(
        data.view.upload(&at("/old"), sized(4 << 20)),
        StorageError::NoSpace { .. }
    );
    let mut upload = data
        .view
        .upload(&at("/old"), unsized_upload())
        .expect("a start");
    let full = (0..8).find_map(|_| upload.write(&vec![2; 1 << 20]).err());
    assert!(matches!(full, Some(StorageError::NoSpace { .. })));
    drop(upload);
    assert_fails!(
        data.cp("/old", "/copy", IfExists::Fail),
        StorageError::NoSpace { .. }
    );
    assert!(data.get("/old").expect("there") == vec![1; 5 << 20]);
    data.put("/new", &vec![3; 2 << 20]).expect("room again");
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_disk_without_inodes_is_no_space() {
    on_a_small_disk("storage::tests::disks::uses_up_the_inodes", "nr_inodes=30");
}

#[test]
#[ignore = "wants a small disk: run by the test above"]
fn uses_up_the_inodes() {
    let data = Data::new();
    let full = (0..50).find_map(|n| data.put(&format!("/{n}"), b"").err());
    assert!(matches!(full, Some(StorageError::NoSpace { .. })));
    assert_fails!(
        data.view.make_dir(&at("/dir"), false),
        StorageError::NoSpace { .. }
    );
    data.remove("/0").expect("removed");
    data.put("/again", b"").expect("room");
    data.assert_exact("/", "homes/alice");
}
