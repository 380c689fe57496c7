//! rsync's daemon with rsync, as `rsync -r`: without encryption and without a login.
//!
//! Whoever receives computes a checksum of each file while it arrives and compares it with the
//! sender's. Files are written beside their place and renamed; nothing is synced. In the rows of transfers
//! the destination is always new, so there is nothing that its differences could be computed against,
//! with or without --whole-file. In those of synchronisation it is `rsync -a --delete`; for a renamed file with
//! `--fuzzy --delete-after`, which finds it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::PeersResult;
use crate::directories::BenchDirectories;
use crate::peer::BenchPeer;
use crate::process::{free_port, program};
use crate::rows::{BenchRow, Task};
use crate::sync::SyncTask;

struct Rsync {
    configuration: PathBuf,
    port: u16,
}

pub(crate) fn prepare(place: &BenchDirectories) -> PeersResult<Box<dyn BenchPeer>> {
    let configuration = place.room("rsync")?.join("rsyncd.conf");
    // Started by root it would become nobody, who may not read these files.
    let user = if rustix::process::geteuid().is_root() {
        "uid = root\ngid = root\n"
    } else {
        ""
    };
    let text = format!(
        "use chroot = no\n{user}[site]\npath = {}\nread only = no\n",
        place.root().display()
    );
    fs::write(&configuration, text)?;
    let port = free_port()?;
    Ok(Box::new(Rsync {
        configuration,
        port,
    }))
}

impl BenchPeer for Rsync {
    fn name(&self) -> &'static str {
        "rsync"
    }

    fn verifies(&self) -> &'static str {
        "the receiver"
    }

    fn server(&self) -> Command {
        let mut command = Command::new(self.program());
        command
            .args(["--daemon", "--no-detach", "--address=127.0.0.1"])
            .arg(format!("--port={}", self.port))
            .arg(format!("--config={}", self.configuration.display()));
        command
    }

    fn program(&self) -> PathBuf {
        program("rsync").unwrap_or_default()
    }

    fn ports(&self) -> Vec<u16> {
        vec![self.port]
    }

    fn takes_part(&self, row: &BenchRow) -> bool {
        !row.tls
    }

    fn client(&self, task: &Task) -> PeersResult<Command> {
        let mut command = Command::new("rsync");
        let site = format!("rsync://{}:{}/site", task.host, self.port);
        command.arg("-r");
        if task.down() {
            let into = task.target.parent().unwrap_or(&task.target);
            command
                .arg(format!("{site}/files/{}", task.name()))
                .arg(format!("{}/", into.display()));
        } else {
            command.arg(&task.source).arg(format!("{site}/incoming/"));
        }
        Ok(command)
    }

    fn sync(&self, task: &SyncTask) -> PeersResult<Command> {
        let mut command = Command::new("rsync");
        let remote = format!(
            "rsync://{}:{}/site/incoming/{}/",
            task.host, self.port, task.name
        );
        let local = format!("{}/", task.local.display());
        command.args(["--archive", "--delete"]);
        if task.renames {
            command.args(["--fuzzy", "--delete-after"]);
        }
        if task.down {
            command.args([remote, local]);
        } else {
            command.args([local, remote]);
        }
        Ok(command)
    }
}
