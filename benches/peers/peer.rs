//! The description of a peer, and a peer whose server runs.

use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::PeersResult;
use crate::directories::BenchDirectories;
use crate::process::{BenchProcess, processes, program};
use crate::rows::{BenchLoad, BenchRow, Task};
use crate::sync::SyncTask;
use crate::{haul, nginx, openssh, rsync, vsftpd};

/// No server takes longer to start.
const START: Duration = Duration::from_secs(20);

/// A server with its client, prepared for one [`BenchDirectories`].
pub(crate) trait BenchPeer {
    fn name(&self) -> &'static str;

    /// The end that compares the received bytes with the sent ones.
    fn verifies(&self) -> &'static str;

    /// Whether what was acknowledged survives a power cut.
    fn syncs(&self) -> bool {
        false
    }

    /// Starts the server, in the foreground.
    fn server(&self) -> Command;

    /// The program of the server, for its size.
    fn program(&self) -> PathBuf;

    /// All ports that a client may go to; the first is where the server says that it is there.
    fn ports(&self) -> Vec<u16>;

    /// What a client has to say before the server answers; nothing if the server speaks first.
    fn hello(&self) -> &'static [u8] {
        b""
    }

    /// Whether it does the work of a row.
    fn takes_part(&self, row: &BenchRow) -> bool;

    /// The client that does a piece of work.
    fn client(&self, task: &Task) -> PeersResult<Command>;

    /// What brings an item to the server before it can be downloaded, for a server that does not
    /// serve any directory as it is.
    fn stock(&self, _item: BenchLoad, _place: &BenchDirectories) -> Option<Command> {
        None
    }

    /// Where the server keeps an upload.
    fn arrives(&self, item: BenchLoad, place: &BenchDirectories) -> PathBuf {
        place.incoming(item)
    }

    /// The client that makes one directory equal to another.
    fn sync(&self, _task: &SyncTask) -> PeersResult<Command> {
        Err(format!("{} does not synchronise", self.name()).into())
    }

    /// Where the server keeps the directory of a synchronisation.
    fn synced(&self, name: &str, place: &BenchDirectories) -> PathBuf {
        place.root().join("incoming").join(name)
    }

    /// Removes that directory, for a server that keeps an account of its files.
    fn forget_synced(&self, _name: &str) -> Option<Command> {
        None
    }

    /// Removes an upload, for a server that keeps an account of its files.
    fn forget(&self, _item: BenchLoad) -> Option<Command> {
        None
    }
}

/// The constructor of a peer and the programs that it needs, each with its Debian package.
pub(crate) struct PeerKind {
    pub(crate) name: &'static str,
    needs: &'static [(&'static str, &'static str)],
    prepare: fn(&BenchDirectories) -> PeersResult<Box<dyn BenchPeer>>,
}

pub(crate) const KINDS: &[PeerKind] = &[
    PeerKind {
        name: "haul",
        needs: &[],
        prepare: haul::prepare,
    },
    PeerKind {
        name: "nginx",
        needs: &[("nginx", "nginx-light"), ("curl", "curl")],
        prepare: nginx::prepare,
    },
    PeerKind {
        name: "vsftpd",
        needs: &[("vsftpd", "vsftpd"), ("lftp", "lftp"), ("curl", "curl")],
        prepare: vsftpd::prepare,
    },
    PeerKind {
        name: "rsync",
        needs: &[("rsync", "rsync")],
        prepare: rsync::prepare,
    },
    PeerKind {
        name: "sftp",
        needs: &[
            ("sshd", "openssh-server"),
            ("sftp", "openssh-client"),
            ("ssh-keygen", "openssh-client"),
        ],
        prepare: openssh::prepare,
    },
];

impl PeerKind {
    /// What is missing on this machine, as a sentence; nothing if it can be measured.
    pub(crate) fn missing(&self) -> Option<String> {
        let missing = |(name, _): &&(&str, &str)| program(name).is_none();
        let list: Vec<_> = self
            .needs
            .iter()
            .filter(missing)
            .map(|(name, package)| format!("{name} (Debian package {package})"))
            .collect();
        (!list.is_empty()).then(|| format!("{} is left out: no {}", self.name, list.join(", no ")))
    }

    /// Writes the server's configuration into a place.
    pub(crate) fn prepare(&self, place: &BenchDirectories) -> PeersResult<Box<dyn BenchPeer>> {
        (self.prepare)(place)
    }

    /// Starts the server in a place.
    pub(crate) async fn start(&self, place: &BenchDirectories) -> PeersResult<RunningPeer> {
        let peer = self.prepare(place)?;
        let process =
            BenchProcess::start(peer.server(), &place.room(self.name)?.join("server.log"))?;
        let mut running = RunningPeer {
            peer,
            process,
            at_rest: 1,
        };
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, running.peer.ports()[0])).is_err() {
            if !running.process.runs() || begun.elapsed() > START {
                let why = running.process.stderr_tail();
                return Err(format!("{} does not start: {why}", self.name).into());
            }
            sleep(Duration::from_millis(10)).await;
        }
        // Long enough for workers to be there, and for the process of that connection to be gone.
        sleep(Duration::from_millis(200)).await;
        running.at_rest = processes(running.process.id());
        Ok(running)
    }
}

/// A peer whose server runs, until this is dropped.
pub(crate) struct RunningPeer {
    pub(crate) peer: Box<dyn BenchPeer>,
    pub(crate) process: BenchProcess,
    /// How many processes the server has without sessions.
    pub(crate) at_rest: usize,
}
