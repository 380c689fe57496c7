//! Directories that somebody on the server's machine swaps for links, and moves, as fast as can be,
//! while members use them: nothing outside is ever seen, made, changed or removed.
//!
//! `HAUL_SWAPS` says how often at least. The more of them, the more turns the members get.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::storage::tests::links::{assert_untouched, with_secret};
use crate::storage::tests::*;

/// What each member does at least.
const ROUNDS: u64 = 50;

/// What a member does below the directory that is named.
type PathAttack = fn(&TestStore, &str, u64) -> bool;

const ATTACKS: [PathAttack; 6] = [read, look, write, list, copy, rename];

/// Reads only what is inside. Whether there was anything to read.
fn read(data: &TestStore, dir: &str, _: u64) -> bool {
    let path = format!("{dir}/canary");
    if let Ok(digest) = data.digest(&path, Algorithm::Md5) {
        assert_eq!(digest, Digest::compute(Algorithm::Md5, b"inside"));
    }
    data.get(&path).is_ok_and(|bytes| {
        assert_eq!(bytes, b"inside");
        true
    })
}

fn look(data: &TestStore, dir: &str, _: u64) -> bool {
    let _ = data.view.enter(&at(dir));
    let info = data.view.stat(&at(&format!("{dir}/canary")));
    info.is_ok_and(|info| {
        assert_eq!(info.size, 6);
        true
    })
}

fn write(data: &TestStore, dir: &str, round: u64) -> bool {
    let path = format!("{dir}/put-{}", round % 3);
    let put = data.put(&path, b"x").is_ok();
    let options = UploadOptions {
        parents: true,
        ..unsized_upload()
    };
    if let Ok(upload) = data.view.upload(&at(&format!("{dir}/new/put")), options) {
        let _ = upload.commit(None);
    }
    let _ = data.remove(&path);
    let _ = data.remove(&format!("{dir}/new"));
    put
}

fn list(data: &TestStore, dir: &str, _: u64) -> bool {
    let made = format!("{dir}/made/deep");
    let _ = data.view.make_dir(&at(&made), true, None);
    let _ = data.remove(&made);
    let page = data.view.list(&at(dir), None, 100, usize::MAX);
    page.is_ok_and(|page| {
        let canary = page.entries.iter().find(|entry| entry.name == "canary");
        assert!(canary.is_none_or(|entry| entry.size == 6), "looked outside");
        canary.is_some()
    })
}

fn copy(data: &TestStore, dir: &str, _: u64) -> bool {
    let copied = data.cp(dir, "/copied", IfExists::Fail).is_ok();
    if let Ok(bytes) = data.get("/copied/canary") {
        assert_eq!(bytes, b"inside");
    }
    let _ = data.remove("/copied");
    let _ = data.cp("/mine", &format!("{dir}/copy"), IfExists::Replace);
    let _ = data.cp("/mine", &format!("{dir}/canary"), IfExists::Fail);
    let _ = data.remove(&format!("{dir}/copy"));
    copied
}

fn rename(data: &TestStore, dir: &str, _: u64) -> bool {
    let _ = data.put("/moving", b"x");
    let there = format!("{dir}/moved");
    let moved = data.mv("/moving", &there, IfExists::Replace).is_ok();
    let _ = data.mv(&there, "/moving", IfExists::Replace);
    moved
}

/// Ends the race when one who takes part in it comes to an end, by a panic too.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Has members do all that while `swap` is called as fast as can be.
fn race(data: &TestStore, dirs: &[&'static str], swap: impl Fn() + Sync) {
    let swaps = std::env::var("HAUL_SWAPS");
    let swaps = swaps.map_or(10_000, |swaps| swaps.parse().expect("a number"));
    let over = AtomicBool::new(false);
    let tallies: Vec<_> = ATTACKS
        .iter()
        .map(|_| <[AtomicU64; 2]>::default())
        .collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ends = Ends(&over);
            let all_had_turns = || {
                let mut rounds = tallies.iter().map(|[rounds, _]| rounds);
                rounds.all(|rounds| rounds.load(Ordering::Relaxed) >= ROUNDS)
            };
            let mut swapped = 0_u64;
            while !over.load(Ordering::Relaxed) && (swapped < swaps || !all_had_turns()) {
                swap();
                swapped += 1;
            }
            println!("{swapped} swaps");
        });
        for (attack, [rounds, got_in]) in ATTACKS.iter().zip(&tallies) {
            let over = &over;
            scope.spawn(move || {
                let _ends = Ends(over);
                while !over.load(Ordering::Relaxed) {
                    let round = rounds.fetch_add(1, Ordering::Relaxed);
                    for dir in dirs {
                        if attack(data, dir, round) {
                            got_in.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    println!("rounds of each, and how often it got in: {tallies:?}");
}

#[test]
fn no_race_with_a_swapped_link_leads_out() {
    let (data, outside) = with_secret();
    data.put("/mine", b"inside").expect("put");
    fs::create_dir(data.on_disk("dir")).expect("made");
    fs::write(data.on_disk("dir/canary"), b"inside").expect("written");
    symlink(&outside, data.on_disk("link")).expect("linked");
    let (dir, link) = (data.on_disk("dir"), data.on_disk("link"));
    race(&data, &["/dir"], || {
        renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE).expect("swapped");
    });
    assert_untouched(&outside);
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_directory_that_moves_takes_no_relative_link_out_with_it() {
    let (data, outside) = with_secret();
    data.put("/mine", b"inside").expect("put");
    data.mkdir("/one/two/deep");
    data.mkdir("/one/outside");
    data.put("/one/outside/canary", b"inside").expect("put");
    // Down there it leads to /one/outside, further up out of the home.
    symlink("../../outside", data.on_disk("one/two/deep/link")).expect("linked");
    symlink(&outside, data.data("homes/outside")).expect("linked");
    let (down, up) = (data.on_disk("one/two/deep"), data.on_disk("deep"));
    fs::create_dir(&up).expect("made");
    race(&data, &["/one/two/deep/link", "/deep/link"], || {
        renameat_with(CWD, &down, CWD, &up, RenameFlags::EXCHANGE).expect("moved");
    });
    assert_untouched(&outside);
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_file_that_is_swapped_for_a_link_is_never_read_or_written_through() {
    let (data, outside) = with_secret();
    data.put("/mine", b"inside").expect("put");
    fs::create_dir(data.on_disk("dir")).expect("made");
    fs::write(data.on_disk("dir/canary"), b"inside").expect("written");
    symlink(outside.join("canary"), data.on_disk("link")).expect("linked");
    let (file, link) = (data.on_disk("dir/canary"), data.on_disk("link"));
    race(&data, &["/dir"], || {
        renameat_with(CWD, &file, CWD, &link, RenameFlags::EXCHANGE).expect("swapped");
    });
    assert_untouched(&outside);
    data.assert_exact("/", "homes/alice");
}
