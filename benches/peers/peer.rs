//! What every peer tells about itself, and a peer whose server runs.

use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::Outcome;
use crate::place::Place;
use crate::process::{Process, processes, program};
use crate::rows::{Item, Row, Task};
use crate::{haul, nginx, openssh, rsync, vsftpd};

/// No server takes longer to start.
const START: Duration = Duration::from_secs(20);

/// A server with its client, prepared for one [`Place`].
pub(crate) trait Peer {
    fn name(&self) -> &'static str;

    /// Who compares what has arrived with what was sent.
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
    fn takes_part(&self, row: &Row) -> bool;

    /// The client that does a piece of work.
    fn client(&self, task: &Task) -> Outcome<Command>;

    /// What brings an item to the server before it can be downloaded, for a server that does not
    /// serve any directory as it is.
    fn stock(&self, _item: Item, _place: &Place) -> Option<Command> {
        None
    }

    /// Where the server keeps an upload.
    fn arrives(&self, item: Item, place: &Place) -> PathBuf {
        place.incoming(item)
    }

    /// What removes an upload, for a server that keeps books on its files.
    fn forget(&self, _item: Item) -> Option<Command> {
        None
    }
}

/// What a peer is made by, and what it needs: programs, each with the Debian package that brings it.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    needs: &'static [(&'static str, &'static str)],
    prepare: fn(&Place) -> Outcome<Box<dyn Peer>>,
}

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "haul",
        needs: &[],
        prepare: haul::prepare,
    },
    Kind {
        name: "nginx",
        needs: &[("nginx", "nginx-light"), ("curl", "curl")],
        prepare: nginx::prepare,
    },
    Kind {
        name: "vsftpd",
        needs: &[("vsftpd", "vsftpd"), ("lftp", "lftp"), ("curl", "curl")],
        prepare: vsftpd::prepare,
    },
    Kind {
        name: "rsync",
        needs: &[("rsync", "rsync")],
        prepare: rsync::prepare,
    },
    Kind {
        name: "sftp",
        needs: &[
            ("sshd", "openssh-server"),
            ("sftp", "openssh-client"),
            ("ssh-keygen", "openssh-client"),
        ],
        prepare: openssh::prepare,
    },
];

impl Kind {
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
    pub(crate) fn prepare(&self, place: &Place) -> Outcome<Box<dyn Peer>> {
        (self.prepare)(place)
    }

    /// Starts the server in a place.
    pub(crate) async fn start(&self, place: &Place) -> Outcome<Running> {
        let peer = self.prepare(place)?;
        let process = Process::start(peer.server(), &place.room(self.name)?.join("server.log"))?;
        let mut running = Running {
            peer,
            process,
            at_rest: 1,
        };
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, running.peer.ports()[0])).is_err() {
            if !running.process.runs() || begun.elapsed() > START {
                let why = running.process.last_words();
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
pub(crate) struct Running {
    pub(crate) peer: Box<dyn Peer>,
    pub(crate) process: Process,
    /// How many processes the server has without sessions.
    pub(crate) at_rest: usize,
}
