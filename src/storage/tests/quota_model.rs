//! A property of the quota ledger: it is exact after any steps, and a failed step changes nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::thread;

use proptest::prelude::*;

use crate::storage::tests::*;

/// A step of the property.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Put(usize, usize, IfExists, UploadEnding),
    Mkdir(usize),
    Remove(usize, bool),
    Move(usize, usize, IfExists),
    Copy(usize, usize, IfExists, bool),
    Recount,
}

impl Step {
    /// What it moves or removes.
    pub(crate) fn source(&self) -> Option<&'static str> {
        match self {
            Self::Remove(path, true) | Self::Move(path, ..) => Some(PATHS[*path]),
            _ => None,
        }
    }
}

/// How an upload ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum UploadEnding {
    Whole,
    Unsized,
    Short,
    Long,
    WrongDigest,
    Dropped,
}

const PATHS: [&str; 12] = [
    "/link",
    "/team/link",
    "/a",
    "/b",
    "/dir",
    "/dir/a",
    "/dir/sub",
    "/dir/sub/b",
    "/team/a",
    "/team/dir",
    "/team/dir/c",
    "/team",
];

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let path = 0..PATHS.len();
    let if_exists = prop::sample::select(&[IfExists::Replace, IfExists::Fail, IfExists::Rename]);
    let ending = prop::sample::select(&[
        UploadEnding::Whole,
        UploadEnding::Whole,
        UploadEnding::Unsized,
        UploadEnding::Short,
        UploadEnding::Long,
        UploadEnding::WrongDigest,
        UploadEnding::Dropped,
    ]);
    let step = prop_oneof![
        4 => (path.clone(), 0..40usize, if_exists.clone(), ending)
            .prop_map(|(path, size, if_exists, ending)| Step::Put(path, size, if_exists, ending)),
        2 => path.clone().prop_map(Step::Mkdir),
        1 => (path.clone(), any::<bool>()).prop_map(|(path, all)| Step::Remove(path, all)),
        3 => (path.clone(), path.clone(), if_exists.clone())
            .prop_map(|(from, to, if_exists)| Step::Move(from, to, if_exists)),
        2 => (path.clone(), path, if_exists, any::<bool>())
            .prop_map(|(from, to, if_exists, stop)| Step::Copy(from, to, if_exists, stop)),
        1 => Just(Step::Recount),
    ];
    prop::collection::vec(step, 1..40)
}

pub(crate) fn take(data: &TestStore, step: &Step) -> Result<(), StorageError> {
    let path = |index: usize| at(PATHS[index]);
    match *step {
        Step::Put(to, size, if_exists, ending) => {
            let mut options = UploadOptions {
                if_exists,
                parents: size % 2 == 0,
                ..sized(size)
            };
            let bytes = vec![7; size];
            let mut expected = None;
            match ending {
                UploadEnding::Whole | UploadEnding::Dropped => {}
                UploadEnding::Unsized => options.size = None,
                UploadEnding::Short => options.size = Some(size as u64 + 3),
                UploadEnding::Long => options.size = Some((size / 2) as u64),
                UploadEnding::WrongDigest => {
                    expected = Some(Digest::compute(Algorithm::Md5, b"other"));
                }
            }
            let mut upload = data.view.upload(&path(to), options)?;
            for chunk in bytes.chunks(7) {
                upload.write(chunk)?;
            }
            if !matches!(ending, UploadEnding::Dropped) {
                upload.commit(expected)?;
            }
            Ok(())
        }
        Step::Mkdir(index) => data.view.make_dir(&path(index), index % 2 == 0, None),
        Step::Remove(index, all) => data.view.remove(&path(index), all, &never).map(drop),
        Step::Move(from, to, if_exists) => {
            let moved = data.view.rename(&path(from), &path(to), if_exists);
            moved.map(drop)
        }
        Step::Copy(from, to, if_exists, cancelled) => {
            let asked = std::cell::Cell::new(0);
            let cancel = || cancelled && asked.replace(asked.get() + 1) == 2;
            let copied = data.view.copy(&path(from), &path(to), if_exists, &cancel);
            copied.map(drop)
        }
        Step::Recount => {
            data.home.ledger().discard_count();
            Ok(())
        }
    }
}

/// Everything stored: directories and files with their contents.
fn snapshot(data: &TestStore) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    ["homes", "folders"]
        .iter()
        .flat_map(|area| walkdir::WalkDir::new(data.data(area)))
        .map(|entry| {
            let path = entry.expect("readable").into_path();
            let content = std::fs::read(&path).ok();
            (path, content)
        })
        .collect()
}

fn limited() -> TestStore {
    let limits = SpaceLimits {
        bytes: Some(100),
        files: Some(10),
    };
    let data = TestStore::with_limits(limits).mount("team", Rights::ALL, limits);
    symlink("a", data.on_disk("link")).expect("linked");
    data
}

fn assert_kept_within_limits(data: &TestStore) {
    data.assert_exact("/", "homes/alice");
    data.assert_exact("/team", "folders/team");
    for path in ["/", "/team"] {
        let (bytes, files) = data.used(path);
        assert!(bytes <= 100 && files <= 10);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_is_exact_and_a_failed_step_changes_nothing(steps in steps()) {
        let data = limited();
        for step in &steps {
            let before = snapshot(&data);
            if take(&data, step).is_err() {
                prop_assert_eq!(&snapshot(&data), &before, "{:?}", step);
            }
            assert_kept_within_limits(&data);
        }
    }

    #[test]
    fn the_ledger_is_exact_whatever_the_disk_fails_to_keep(
        steps in prop::collection::vec((steps(), 0..4usize), 1..8)
    ) {
        let data = limited();
        for (steps, works) in &steps {
            for _ in 0..*works {
                data.home.staging.sync_hook.then(|| Ok(()));
            }
            data.home.staging.sync_hook.then(|| Err(rustix::io::Errno::IO.into()));
            steps.iter().take(5).for_each(|step| drop(take(&data, step)));
            data.assert_counted("/", "homes/alice");
            data.assert_counted("/team", "folders/team");
        }
    }

    #[test]
    fn the_ledger_is_exact_after_many_have_worked_at_once(
        workers in prop::collection::vec(steps(), 4)
    ) {
        let data = limited();
        thread::scope(|scope| {
            for steps in &workers {
                let data = &data;
                scope.spawn(move || steps.iter().for_each(|step| drop(take(data, step))));
            }
        });
        assert_kept_within_limits(&data);
    }
}
