//! curl, the client of nginx, and of vsftpd for single files.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use crate::PeersResult;
use crate::rows::Task;

/// Moves an item to or from below `url`, which ends in a slash.
///
/// Of many files it takes a list and moves sixteen at a time over connections that stay open:
/// on two cores that was faster than one at a time, four or fifty.
pub(crate) fn command(task: &Task, url: &str) -> PeersResult<Command> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--no-progress-meter"]);
    let name = task.name();
    if task.extent.is_tree() {
        let mut list = String::new();
        for path in task.extent.paths() {
            writeln!(list, "url = \"{url}{name}/{path}\"")?;
            if task.down() {
                let target = task.target.join(path);
                writeln!(list, "output = \"{}\"", target.display())?;
            } else {
                let source = task.source.join(path);
                writeln!(list, "upload-file = \"{}\"", source.display())?;
            }
        }
        let file = task.scratch.join("curl-list");
        fs::write(&file, list)?;
        command
            .args([
                "--create-dirs",
                "--parallel",
                "--parallel-max",
                "16",
                "--config",
            ])
            .arg(file);
    } else if task.down() {
        command
            .arg(format!("{url}{name}"))
            .arg("--output")
            .arg(&task.target);
    } else {
        command
            .arg("--upload-file")
            .arg(&task.source)
            .arg(format!("{url}{name}"));
    }
    Ok(command)
}
