//! The program at a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::daemon::Watchdog;

/// Runs the program at a terminal and types `answer`; returns the exit code and the terminal
/// output.
pub(crate) async fn at_terminal(mut command: Command, answer: &str) -> (Option<i32>, String) {
    let answer = answer.to_owned();
    let running = tokio::task::spawn_blocking(move || {
        let mut near = File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("one"));
        grantpt(&near).expect("granted");
        unlockpt(&near).expect("unlocked");
        let name = ptsname(&near, Vec::new()).expect("a name");
        let far = || {
            let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
            let opened = File::options().read(true).write(true).open(path);
            opened.expect("the other side")
        };
        command.stdin(far()).stderr(far()).stdout(Stdio::null());
        near.write_all(answer.as_bytes()).expect("typed");
        let mut process = command.spawn().expect("it starts");
        let _watchdog = Watchdog::of_process(&process);
        // The command holds the other side of the terminal, too.
        drop(command);
        let mut shown = Vec::new();
        // The read fails once the other side is closed.
        let _ = near.read_to_end(&mut shown);
        let status = process.wait().expect("it ends");
        let shown = String::from_utf8_lossy(&shown).replace("\r\n", "\n");
        (status.code(), shown)
    });
    running.await.expect("no panic")
}
