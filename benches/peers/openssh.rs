//! sftp with an sshd of its own: keys made for this run, OpenSSH's default cipher, a login by key.
//!
//! Every packet carries a code that shows damage on the line; nothing is compared with what was
//! read or written, and nothing is synced. Files are written in place.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::PeersResult;
use crate::directories::BenchDirectories;
use crate::peer::BenchPeer;
use crate::process::{free_port, program};
use crate::proxy::FAR;
use crate::rows::{BenchRow, Task};

/// Where an sshd that root starts wants an empty directory, whatever its configuration says.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";

struct OpenSsh {
    room: PathBuf,
    port: u16,
    incoming: PathBuf,
    /// Whether [`PRIVILEGE_SEPARATION`] was made for this.
    made_directory: bool,
}

pub(crate) fn prepare(place: &BenchDirectories) -> PeersResult<Box<dyn BenchPeer>> {
    let room = place.room("sftp")?;
    for name in ["host-key", "user-key"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(room.join(name))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        if !made.success() {
            return Err("ssh-keygen failed".into());
        }
    }
    let port = free_port()?;
    let key = fs::read_to_string(room.join("host-key.pub"))?;
    let mut known = String::new();
    for host in ["127.0.0.1", &FAR.to_string()] {
        write!(known, "[{host}]:{port} {key}")?;
    }
    fs::write(room.join("known-hosts"), known)?;
    fs::write(room.join("sshd_config"), configuration(&room, port))?;
    let by_root = rustix::process::geteuid().is_root();
    Ok(Box::new(OpenSsh {
        room,
        port,
        incoming: place.root().join("incoming"),
        made_directory: by_root && fs::create_dir(PRIVILEGE_SEPARATION).is_ok(),
    }))
}

fn configuration(room: &Path, port: u16) -> String {
    format!(
        "ListenAddress 127.0.0.1\n\
         Port {port}\n\
         HostKey \"{room}/host-key\"\n\
         AuthorizedKeysFile \"{room}/user-key.pub\"\n\
         PidFile none\n\
         StrictModes no\n\
         UsePAM no\n\
         PermitRootLogin yes\n\
         PasswordAuthentication no\n\
         Subsystem sftp internal-sftp\n",
        room = room.display()
    )
}

impl BenchPeer for OpenSsh {
    fn name(&self) -> &'static str {
        "sftp"
    }

    fn verifies(&self) -> &'static str {
        "the line"
    }

    fn server(&self) -> Command {
        let mut command = Command::new(self.program());
        command
            .args(["-D", "-e", "-f"])
            .arg(self.room.join("sshd_config"));
        command
    }

    fn program(&self) -> PathBuf {
        program("sshd").unwrap_or_default()
    }

    fn ports(&self) -> Vec<u16> {
        vec![self.port]
    }

    fn takes_part(&self, row: &BenchRow) -> bool {
        row.with_sftp()
    }

    fn client(&self, task: &Task) -> PeersResult<Command> {
        let recursive = if task.extent.is_tree() { "-r " } else { "" };
        let source = task.source.display();
        let batch = if task.down() {
            format!(
                "get {recursive}\"{source}\" \"{}\"\n",
                task.target.display()
            )
        } else {
            let to = self.incoming.join(task.name());
            format!("put {recursive}\"{source}\" \"{}\"\n", to.display())
        };
        let file = task.scratch.join("sftp-batch");
        fs::write(&file, batch)?;
        let option = |name: &str, file: &str| format!("{name}={}", self.room.join(file).display());
        let mut command = Command::new("sftp");
        command
            .args(["-q", "-F", "none", "-o", "IdentitiesOnly=yes", "-o"])
            .arg(option("IdentityFile", "user-key"))
            .arg("-o")
            .arg(option("UserKnownHostsFile", "known-hosts"))
            .arg("-P")
            .arg(self.port.to_string())
            .arg("-b")
            .arg(file)
            .arg(task.host.to_string());
        Ok(command)
    }
}

impl Drop for OpenSsh {
    fn drop(&mut self) {
        if self.made_directory {
            let _ = fs::remove_dir(PRIVILEGE_SEPARATION);
        }
    }
}
