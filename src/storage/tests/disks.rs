//! The floors of the disk, and the means to run a test once more in a namespace. `tests/haul/full_disk.rs`
//! tests a full disk through the server.

use std::io::Write;
use std::process::Command;
use std::sync::Barrier;
use std::thread;

use crate::storage::tests::*;

/// Runs the ignored test `name` with its temporary files on a tmpfs of these options.
pub(crate) fn on_a_small_disk(name: &str, options: &str) {
    if !namespaces_are_granted(&["-Urm", "mount", "-t", "tmpfs", "haul", "/tmp"], name) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let script = "mount -t tmpfs -o \"$1\" haul \"$TMPDIR\" || exit 77; shift; exec \"$@\"";
    let args = ["-Urm", "sh", "-c", script, "sh", options];
    let mut command = Command::new("unshare");
    run_again(command.args(args).env("TMPDIR", dir.path()), name);
}

/// Runs the ignored test `name` as one to whom permissions apply, root or not.
pub(crate) fn without_privileges(name: &str) {
    if namespaces_are_granted(&["-U", "true"], name) {
        run_again(Command::new("unshare").arg("-U"), name);
    }
}

/// Whether `unshare` can do this here. If not, the test is skipped, and says so.
fn namespaces_are_granted(probe: &[&str], name: &str) -> bool {
    let probed = Command::new("unshare").args(probe).output();
    if probed.as_ref().is_ok_and(|probed| probed.status.success()) {
        return true;
    }
    // Not by `eprintln!`, which the test runner catches and shows only of tests that fail.
    let skipped = format!("SKIPPED {name}: no namespace to be had here: {probed:?}");
    writeln!(std::io::stderr(), "{skipped}").expect("standard error");
    false
}

fn run_again(command: &mut Command, name: &str) {
    let output = command
        .arg(std::env::current_exe().expect("this test"))
        .args(["--ignored", "--exact", name])
        .output()
        .expect("it was there a moment ago");
    let report = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && report.contains("1 passed");
    assert!(passed, "{}: {report}{errors}", output.status);
}

#[test]
fn operations_that_race_for_the_last_bytes_of_a_disk_leave_its_floor() {
    on_a_small_disk("storage::tests::disks::races_for_the_disk", "size=64m");
}

#[test]
#[ignore = "wants a small disk: run by the test above"]
fn races_for_the_disk() {
    const WORKERS: usize = 12;
    const SIZE: usize = 8 << 20;
    let data = TestStore::new();
    let floor = data.store.disk_space().expect("a disk").1 / 100;
    let free = || data.store.disk_space().expect("a disk").0;
    let piece = vec![7; 1 << 18];
    let start = Barrier::new(WORKERS);
    let put = |worker: usize, options: UploadOptions| {
        let mut upload = data.view.upload(&at(&format!("/{worker}")), options)?;
        for _ in 0..SIZE / piece.len() {
            upload.write(&piece)?;
            assert!(free() >= floor, "worker {worker}");
        }
        upload.commit(None).map(drop)
    };
    data.put("/copied", &vec![1; SIZE]).expect("room");
    let done = thread::scope(|scope| {
        let work = |worker: usize| {
            start.wait();
            match worker % 4 {
                0 => data
                    .cp("/copied", &format!("/{worker}"), IfExists::Fail)
                    .map(drop),
                1 => put(worker, unsized_upload()),
                _ => put(worker, sized(SIZE)),
            }
        };
        let workers = (0..WORKERS).map(|worker| scope.spawn(move || work(worker)));
        let workers: Vec<_> = workers.collect();
        let outcomes = workers
            .into_iter()
            .map(|worker| worker.join().expect("no panic"));
        outcomes
            .filter(|outcome| match outcome {
                Ok(()) => true,
                Err(StorageError::NoSpace { .. }) => false,
                Err(error) => panic!("{error}"),
            })
            .count()
    });
    assert!((1..WORKERS - 4).contains(&done), "{done}");
    assert!(free() >= floor);
    // Nothing is promised any more: all but the floor can be used.
    let rest = usize::try_from(free() - floor).expect("small");
    assert_fails!(
        data.view.upload(&at("/rest"), sized(rest + 1)),
        StorageError::NoSpace { .. }
    );
    data.put("/rest", &vec![1; rest & !4095]).expect("room");
    assert_fails!(
        data.view.make_dir(&at("/dir"), false, None),
        StorageError::NoSpace { .. }
    );
    assert_fails!(
        data.cp("/copied", "/copy", IfExists::Fail),
        StorageError::NoSpace { .. }
    );
    let small = BufferedUpload {
        path: at("/small"),
        options: sized(4096),
        content: vec![vec![1; 4096].into()],
        expected: None,
    };
    let outcome = data
        .view
        .commit_all(vec![small], &"s".into(), MAX_BATCH_DESCRIPTORS)
        .remove(0);
    assert_fails!(outcome, StorageError::NoSpace { .. });
    assert!(free() >= floor);
    data.assert_exact("/", "homes/alice");
}

#[test]
fn some_inodes_stay_free() {
    on_a_small_disk(
        "storage::tests::disks::leaves_inodes",
        "size=64m,nr_inodes=2000",
    );
}

#[test]
#[ignore = "wants a small disk: run by the test above"]
fn leaves_inodes() {
    let data = TestStore::new();
    let free = || data.home.staging.dir.disk().expect("a disk").free_inodes;
    data.mkdir("/tree");
    let made = (0..2000).find_map(|n| {
        data.view
            .make_dir(&at(&format!("/tree/{n}")), false, None)
            .err()
    });
    let Some(error @ StorageError::NoSpace { .. }) = made else {
        panic!("{made:?}");
    };
    assert!(error.to_string().contains("20 inodes are free"), "{error}");
    assert_eq!(free(), 20);
    assert_fails!(data.put("/file", b""), StorageError::NoSpace { .. });
    assert_fails!(
        data.cp("/tree", "/copy", IfExists::Fail),
        StorageError::NoSpace { .. }
    );
    assert_eq!(free(), 20);
    data.view
        .remove(&at("/tree/0"), false, &never)
        .expect("removed");
    data.put("/file", b"").expect("room");
    data.assert_exact("/", "homes/alice");
}
