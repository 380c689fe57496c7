//! `haul sync --watch`: what changes at the source changes at the destination, until the command ends.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};

use tokio::task::block_in_place;

use crate::command_line::Person;
use crate::daemon::Watchdog;
use crate::harness::TestServer;

/// A mirror that is kept up to date.
struct Mirror {
    process: Child,
    actions: Lines<BufReader<ChildStdout>>,
    _watchdog: Watchdog,
}

impl Mirror {
    fn start(person: &Person, source: &str, destination: &str) -> Self {
        let options = ["sync", "--delete", "--watch", "--itemize"];
        let mut command = person.command(&[&options[..], &[source, destination]].concat());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the program starts");
        let watchdog = Watchdog::of_process(&process);
        let stdout = process.stdout.take().expect("a pipe");
        Self {
            process,
            actions: BufReader::new(stdout).lines(),
            _watchdog: watchdog,
        }
    }

    /// Waits until this action is printed, which may have others before it.
    fn wait_for(&mut self, action: &str) {
        let mut before = Vec::new();
        block_in_place(|| {
            for line in &mut self.actions {
                let line = line.expect("text");
                if line == action {
                    return;
                }
                before.push(line);
            }
            panic!("the command ended without {action:?} after {before:?}");
        });
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_local_tree_are_mirrored_on_the_server() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let home = server.home("alice").join("www");
    person.write("site/a", "1");
    let mut mirror = Mirror::start(&person, "site", ":/www");
    mirror.wait_for("send a: new");
    person.write("site/b/c", "2");
    mirror.wait_for("send b/c: new");
    fs::rename(person.path("site/a"), person.path("site/d")).expect("renamed");
    mirror.wait_for("move a to d");
    fs::remove_dir_all(person.path("site/b")).expect("removed");
    mirror.wait_for("delete b");
    person.write("site/d", "longer");
    mirror.wait_for("send d: another size");
    assert_eq!(fs::read_to_string(home.join("d")).expect("there"), "longer");
    assert_eq!(home.read_dir().expect("a directory").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_on_the_server_are_mirrored_locally() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("f", "1");
    person.types(&["mkdir", "www"], 0).await;
    person.types(&["put", "f", ":www/first"], 0).await;
    let mut mirror = Mirror::start(&person, ":/www", "mirror");
    mirror.wait_for("receive first: new");
    person.types(&["put", "f", ":www/a"], 0).await;
    mirror.wait_for("receive a: new");
    person.types(&["mv", "www/a", "www/b"], 0).await;
    mirror.wait_for("move a to b");
    person.types(&["rm", "www/b"], 0).await;
    mirror.wait_for("delete b");
    let mirrored = person.path("mirror").read_dir().expect("a directory");
    assert_eq!(mirrored.count(), 1);
}
