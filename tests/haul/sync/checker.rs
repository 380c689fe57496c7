//! Random pairs of trees and options: the result of a sync is compared with that of the model.

use std::collections::BTreeMap;
use std::path::Path;

use haul::client::sync::{
    Comparison, FilterOptions, SyncAction, SyncDirection, SyncJob, SyncOptions, SyncOutcome,
    SyncRules,
};
use haul::client::{Client, Session};
use haul::protocol::FileMode;

use super::model::{
    DirNode, EXCLUDED, check, create, edited, merged, random_tree, read, with_modes,
};
use super::{named, sync};
use crate::client::log_in;
use crate::harness::TestServer;
use crate::random::{Chance, times};

fn random_rules(chance: &mut Chance) -> SyncRules {
    SyncRules {
        comparison: *chance.pick(&[Comparison::Time, Comparison::Checksum, Comparison::SizeOnly]),
        update: chance.one_in(6),
        existing: chance.one_in(6),
        ignore_existing: chance.one_in(6),
        delete: chance.one_in(2),
        modes: true,
    }
}

/// Syncs twice, after a dry run. The first run does what the dry run showed, the second nothing.
async fn sync_and_check(client: &Client, job: &SyncJob) {
    let dry = SyncJob {
        options: SyncOptions {
            dry_run: true,
            ..job.options.clone()
        },
        ..job.clone()
    };
    let mut planned = sync(client, dry).await.actions();
    let run = sync(client, job.clone()).await;
    assert!(
        !run.events
            .iter()
            .any(|event| matches!(event, SyncOutcome::Failed { .. })),
        "{:?}",
        run.events
    );
    let mut done = run.actions();
    planned.sort();
    done.sort();
    assert_eq!(planned, done);
    for event in sync(client, job.clone()).await.events {
        match event {
            SyncOutcome::Done(SyncAction::Skip { .. }) => {}
            SyncOutcome::Done(action) => panic!("done again: {}", named(&action)),
            other => panic!("{other:?}"),
        }
    }
}

/// A tree on the server: its content on the disk, and the modes that the server lists.
async fn read_server(client: &Client, path: &Path, remote: &str) -> DirNode {
    let mut modes = BTreeMap::new();
    let mut entries = Session::from(client.clone()).tree_entries(remote, false);
    while let Some(entry) = entries.next().await.expect("listed") {
        modes.insert(entry.name, entry.mode.map(FileMode::bits));
    }
    with_modes(read(path), &modes)
}

async fn check_pair(client: &Client, home: &Path, number: u64, seed: u64) {
    let mut chance = Chance::new(seed);
    let temp_dir = tempfile::tempdir().expect("a directory");
    let remote = format!("/pair-{number}");
    let on_server = home.join(format!("pair-{number}"));
    let options = |chance: &mut Chance| SyncOptions {
        rules: random_rules(chance),
        filter: FilterOptions {
            exclude: vec![format!("*{EXCLUDED}")],
            ..FilterOptions::default()
        },
        ..SyncOptions::default()
    };

    let first = random_tree(&mut chance, 2);
    let local = temp_dir.path().join("first");
    create(&first, &local);
    create(&edited(&first, &mut chance), &on_server);
    let before = read_server(client, &on_server, &remote).await;
    let job = SyncJob {
        direction: SyncDirection::Up,
        local,
        remote: remote.clone(),
        options: options(&mut chance),
    };
    sync_and_check(client, &job).await;
    let after = read_server(client, &on_server, &remote).await;
    let expected = merged(&first, &before, job.options.rules);
    if let Err(difference) = check(&expected, &after, "") {
        panic!("up, seed {seed}, {:?}: {difference}", job.options.rules);
    }

    let local = temp_dir.path().join("second");
    create(&edited(&first, &mut chance), &local);
    let before = read(&local);
    let job = SyncJob {
        direction: SyncDirection::Down,
        local: local.clone(),
        remote,
        options: options(&mut chance),
    };
    sync_and_check(client, &job).await;
    let expected = merged(&after, &before, job.options.rules);
    if let Err(difference) = check(&expected, &read(&local), "") {
        panic!("down, seed {seed}, {:?}: {difference}", job.options.rules);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_pairs_of_trees_are_synced_as_a_model_says() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let home = server.home("alice");
    let mut seeds = Chance::new(Chance::seed());
    for number in 0..times("HAUL_SYNC_PAIRS", 100) {
        let seed = seeds.next();
        println!("pair {number} has the seed {seed}");
        check_pair(&client, &home, number, seed).await;
        std::fs::remove_dir_all(home.join(format!("pair-{number}"))).expect("removed");
    }
}
