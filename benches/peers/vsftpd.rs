//! vsftpd with curl for single files and lftp's mirror for trees: sendfile on, no encryption, no
//! password.
//!
//! Files are written in place, nothing is compared and nothing is synced. curl moves single files
//! because lftp was slower at them; the mirror moves sixteen files at a time, which on two cores was
//! no slower than two and faster than one.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use crate::directories::BenchDirectories;
use crate::peer::BenchPeer;
use crate::process::{free_port, program};
use crate::rows::{BenchRow, Task};
use crate::{PeersResult, curl};

/// The number of ports; every transfer has a connection of its own to one of them.
const DATA_PORTS: u16 = 64;

struct Vsftpd {
    room: PathBuf,
    port: u16,
    data: u16,
}

pub(crate) fn prepare(place: &BenchDirectories) -> PeersResult<Box<dyn BenchPeer>> {
    let vsftpd = Vsftpd {
        room: place.room("vsftpd")?,
        port: free_port()?,
        data: free_ports()?,
    };
    fs::write(vsftpd.room.join("vsftpd.conf"), vsftpd.configuration(place))?;
    Ok(Box::new(vsftpd))
}

/// The first of [`DATA_PORTS`] ports in a row that nobody uses. They lie below those that the system
/// gives to clients, of which there is hardly a row free after thousands of transfers.
fn free_ports() -> PeersResult<u16> {
    (10_000..32_000)
        .step_by(usize::from(DATA_PORTS))
        .find(|&first| {
            (first..first + DATA_PORTS)
                .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        })
        .ok_or_else(|| format!("no {DATA_PORTS} free ports in a row").into())
}

impl Vsftpd {
    fn configuration(&self, place: &BenchDirectories) -> String {
        format!(
            "listen=YES\n\
             listen_address=127.0.0.1\n\
             listen_port={port}\n\
             background=NO\n\
             run_as_launching_user=YES\n\
             seccomp_sandbox=NO\n\
             use_sendfile=YES\n\
             xferlog_enable=NO\n\
             anonymous_enable=YES\n\
             no_anon_password=YES\n\
             anon_root={root}\n\
             anon_umask=022\n\
             anon_world_readable_only=NO\n\
             write_enable=YES\n\
             anon_upload_enable=YES\n\
             anon_mkdir_write_enable=YES\n\
             anon_other_write_enable=YES\n\
             pasv_promiscuous=YES\n\
             pasv_min_port={first}\n\
             pasv_max_port={last}\n",
            port = self.port,
            root = place.root().display(),
            first = self.data,
            last = self.data + DATA_PORTS - 1,
        )
    }
}

impl BenchPeer for Vsftpd {
    fn name(&self) -> &'static str {
        "vsftpd"
    }

    fn verifies(&self) -> &'static str {
        "nobody"
    }

    fn server(&self) -> Command {
        let mut command = Command::new(self.program());
        command.arg(self.room.join("vsftpd.conf"));
        command
    }

    fn program(&self) -> PathBuf {
        program("vsftpd").unwrap_or_default()
    }

    fn ports(&self) -> Vec<u16> {
        let mut ports = vec![self.port];
        ports.extend(self.data..self.data + DATA_PORTS);
        ports
    }

    fn takes_part(&self, row: &BenchRow) -> bool {
        !row.tls
    }

    fn client(&self, task: &Task) -> PeersResult<Command> {
        let name = task.name();
        let (host, port) = (task.host, self.port);
        if !task.extent.is_tree() {
            let below = if task.down() { "files" } else { "incoming" };
            return curl::command(task, &format!("ftp://{host}:{port}/{below}/"));
        }
        let mirror = if task.down() {
            format!("files/{name} \"{}\"", task.target.display())
        } else {
            format!("--reverse \"{}\" incoming/{name}", task.source.display())
        };
        // The extended form of passive mode names no address, so that it works through the line.
        let script = format!(
            "set ftp:prefer-epsv yes; open -u anonymous,bench -p {port} {host}; \
             mirror --parallel=16 {mirror}"
        );
        let mut command = Command::new("lftp");
        command.arg("--norc").arg("-c").arg(script);
        Ok(command)
    }
}
