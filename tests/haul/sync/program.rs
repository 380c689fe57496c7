//! `haul sync` as people and scripts type it.

use serde_json::Value;

use crate::command_line::Person;
use crate::harness::TestServer;

async fn typed(person: &Person, args: &[&str], code: i32) -> (String, String) {
    let url = person.url.clone();
    let mut words = vec!["--server", &url];
    words.extend(args);
    let (output, stdout) = person.type_with(&words, "sync", "").await;
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    (stdout, stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_prints_the_plan_and_itemize_what_was_done() {
    let server = TestServer::start().await;
    let person = Person::for_url(format!("haul+plain://alice@{}", server.address));
    person.write("site/index.html", "text");
    person.write("site/images/a.png", "image");
    let plan = "make directory images\nsend images/a.png: new\nsend index.html: new\n\
                set images: time and mode\n";
    let (planned, _) = typed(&person, &["site", ":/www", "--dry-run"], 0).await;
    assert_eq!(planned, plan);
    assert!(!server.home("alice").join("www").exists());
    let (done, notes) = typed(&person, &["site/", ":/www/", "--itemize"], 0).await;
    let mut lines: Vec<_> = done.lines().collect();
    let mut expected: Vec<_> = plan.lines().collect();
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines, expected);
    assert!(notes.starts_with("2 files sent (9 B)"), "{notes}");
    let (again, notes) = typed(&person, &["site", ":/www", "--itemize"], 0).await;
    assert_eq!(again, "");
    assert!(
        notes.starts_with("0 files sent (0 B), 2 unchanged; 9 B saved"),
        "{notes}"
    );
    typed(&person, &[":/www", "mirror"], 0).await;
    assert_eq!(person.read("mirror/images/a.png"), "image");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_reads_one_object_for_each_action_and_a_summary() {
    let server = TestServer::start().await;
    let person = Person::for_url(format!("haul+plain://alice@{}", server.address));
    person.write("site/a", "text");
    let (lines, _) = typed(&person, &["--json", "site", ":/www"], 0).await;
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(
        (&lines[0]["action"], &lines[0]["path"], &lines[0]["size"]),
        (&"send".into(), &"a".into(), &4.into())
    );
    assert_eq!(lines[1]["action"], "summary");
    assert_eq!(
        (&lines[1]["transferred"], &lines[1]["failed"]),
        (&1.into(), &0.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_failed_in_part_says_what_and_ends_with_1() {
    let server = TestServer::start().await;
    let person = Person::for_url(format!("haul+plain://alice@{}", server.address));
    person.write("site/a\nb", "text");
    person.write("site/c", "text");
    let (_, errors) = typed(&person, &["site", ":/www"], 1).await;
    assert!(
        errors.contains("haul: sync: a\\nb: its name is not allowed"),
        "{errors}"
    );
    assert!(errors.contains("1 file sent"), "{errors}");
    let (_, errors) = typed(&person, &["site", "www"], 2).await;
    assert!(errors.contains("haul sync DIR :DIR"), "{errors}");
}
