//! `haul demo`

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Args;
use data_encoding::HEXLOWER;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use walkdir::WalkDir;

use crate::accounts::{Accounts, NewUser, UserName};
use crate::cli::output::{Output, count, size};
use crate::cli::progress::Bar;
use crate::client::{Client, FileOptions, Progress, ServerUrl, TreeEvent, Trust};
use crate::config::Config;
use crate::messages::Messages;
use crate::protocol::{Algorithm, Digest, Secret};
use crate::server::Server;
use crate::storage::{SpaceLimits, Store};

const USERS: [&str; 2] = ["alice", "bob"];

/// Run a server and two users on temporary data
///
/// The command starts a server on a free port, lets two users upload a directory and download it
/// again in several sessions at the same time, and compares every file. It leaves no files.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The directory to transfer; without it, a directory with random files
    directory: Option<PathBuf>,
    /// The sessions of each user
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=50))]
    sessions: u32,
}

impl DemoArgs {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<()> {
        let place = tempfile::tempdir().context("cannot make a temporary directory")?;
        let original = if let Some(directory) = self.directory {
            directory
        } else {
            let directory = place.path().join("original");
            make_up(&directory).context("cannot make the files of the demo")?;
            directory
        };
        let expected = digests(&original).await?;
        let bytes = expected.values().map(|(size, _)| size).sum();
        let files = count(expected.len() as u64, "file");
        say(output, &format!("a directory of {files}, {}", size(bytes)))?;
        let server = DemoServer::start(&place.path().join("data")).await?;
        let users = USERS.join(" and ");
        say(
            output,
            &format!("a server at {}, with users {users}", server.url),
        )?;

        let began = Instant::now();
        let progress = Progress::new();
        let bar = Bar::new(output, &progress);
        let mut visits = JoinSet::new();
        for user in USERS {
            for number in 1..=self.sessions {
                let visit = Visit {
                    trust: server.trust.clone(),
                    user,
                    number,
                    original: original.clone(),
                    back: place.path().join(format!("back-{user}-{number}")),
                    progress: progress.clone(),
                };
                visits.spawn(visit.make(server.url.clone(), server.password(), expected.clone()));
            }
        }
        bar.during(async {
            while let Some(visit) = visits.join_next().await {
                say(output, &visit??)?;
            }
            anyhow::Ok(())
        })
        .await?;
        let sessions = count(u64::from(self.sessions) * USERS.len() as u64, "session");
        let moved = size(progress.bytes());
        let seconds = began.elapsed().as_secs_f64();
        server.stop().await?;
        say(
            output,
            &format!("{sessions} moved {moved} in {seconds:.1} s; every digest agreed"),
        )
    }
}

/// The demo's lines are its result.
fn say(output: Output, text: &str) -> anyhow::Result<()> {
    output.result(&BTreeMap::from([("did", text)]), |_| text.to_owned())
}

/// A server for one run.
struct DemoServer {
    url: ServerUrl,
    trust: Trust,
    password: Secret,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl DemoServer {
    async fn start(data: &Path) -> anyhow::Result<Self> {
        fs::create_dir(data)?;
        let accounts = Accounts::open(data).await?;
        let mut random = [0; 16];
        getrandom::fill(&mut random).context("cannot get random bytes for a password")?;
        let password = Secret::new(HEXLOWER.encode(&random));
        for user in USERS {
            let name: UserName = user.parse()?;
            let new = NewUser {
                admin: false,
                limits: SpaceLimits::default(),
            };
            accounts.add_user(&name, &password, new).await?;
        }
        let mut config = Config::default();
        // All of them are this process, which asks for as many sessions as it is told to.
        config.limits.sessions_per_address = 0;
        config.auth.waiting_logins = 1000;
        config.server.data = data.to_owned();
        let server = Server::new(
            accounts,
            Store::open(data)?,
            Messages::open(data).await?,
            config,
        );
        let trust = Trust::default().with_only(server.reload_tls().await?.fingerprint);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("haul://{}", listener.local_addr()?).parse()?;
        let shutdown = CancellationToken::new();
        let until = shutdown.clone();
        let running = tokio::spawn(async move { server.run(listener, until).await });
        Ok(Self {
            url,
            trust,
            password,
            shutdown,
            running,
        })
    }

    fn password(&self) -> Secret {
        self.password.clone()
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.running.await.context("the server panicked")
    }
}

/// One session of one user: the directory up, and down again.
struct Visit {
    trust: Trust,
    user: &'static str,
    number: u32,
    original: PathBuf,
    back: PathBuf,
    progress: Progress,
}

impl Visit {
    async fn make(
        self,
        url: ServerUrl,
        password: Secret,
        expected: BTreeMap<String, (u64, Digest)>,
    ) -> anyhow::Result<String> {
        let Self { user, number, .. } = self;
        let client = Client::connect(&url, &self.trust).await?;
        client.login(user, &password).await?;
        let remote = format!("/copy-{number}");
        let options = FileOptions::default();
        let (sender, notes) = mpsc::channel(16);
        let roots = vec![(self.original.clone(), remote.clone())];
        let up = client.put_trees(roots, options, &self.progress, sender);
        let (up, failures) = tokio::join!(up, failures(notes));
        let up = up?;
        if let Some(failure) = failures {
            bail!("{user} cannot upload everything: {failure}");
        }
        let (sender, notes) = mpsc::channel(16);
        let roots = vec![(remote.clone(), self.back.clone())];
        let down = client.get_trees(roots, options, &self.progress, sender);
        let (down, failures) = tokio::join!(down, crate::cli::demo::failures(notes));
        let down = down?;
        if let Some(failure) = failures {
            bail!("{user} cannot download everything: {failure}");
        }
        let back = digests(&self.back).await?;
        ensure!(
            back == expected,
            "the files that {user} downloaded differ from the files that {user} uploaded"
        );
        for (path, (_, digest)) in &expected {
            let reply = client
                .hash(&format!("{remote}/{path}"), Algorithm::Blake3)
                .await?;
            ensure!(
                reply.digest == *digest,
                "the server's digest of {remote}/{path} differs"
            );
        }
        client.quit().await?;
        Ok(format!(
            "{user}, session {number}: {} up and {} down, each the same here, there and back",
            count(up.files, "file"),
            count(down.files, "file"),
        ))
    }
}

/// Listens until the end, and returns the first thing that went wrong.
async fn failures(mut notes: mpsc::Receiver<TreeEvent>) -> Option<String> {
    let mut first = None;
    while let Some(note) = notes.recv().await {
        if let TreeEvent::Failed { path, error } = note {
            first.get_or_insert(format!("{path}: {error}"));
        }
    }
    first
}

/// Size and digest of every file in a directory, by path within it.
async fn digests(directory: &Path) -> anyhow::Result<BTreeMap<String, (u64, Digest)>> {
    let directory = directory.to_owned();
    let name = directory.display().to_string();
    spawn_blocking(move || {
        let mut found = BTreeMap::new();
        for entry in WalkDir::new(&directory).follow_links(true) {
            let entry = match entry {
                // Links that lead nowhere, or back, are not put.
                Err(error) if error.depth() > 0 && leads_nowhere(&error) => continue,
                entry => entry?,
            };
            if entry.file_type().is_file() {
                let content = fs::read(entry.path())?;
                let path = entry.path().strip_prefix(&directory)?.display().to_string();
                let digest = Digest::compute(Algorithm::Blake3, &content);
                found.insert(path, (content.len() as u64, digest));
            }
        }
        anyhow::Ok(found)
    })
    .await?
    .with_context(|| format!("cannot read {name}"))
}

fn leads_nowhere(error: &walkdir::Error) -> bool {
    let kind = error.io_error().map(std::io::Error::kind);
    error.loop_ancestor().is_some() || kind == Some(std::io::ErrorKind::NotFound)
}

/// A few large files, many small ones, an empty one and an empty directory.
fn make_up(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory.join("empty"))?;
    fs::create_dir_all(directory.join("small"))?;
    fs::write(directory.join("nothing"), "")?;
    for number in 1..=100_usize {
        let text = format!("file {number}\n").repeat(number * number);
        fs::write(directory.join(format!("small/{number:03}.txt")), text)?;
    }
    for (name, mebibytes) in [("large.bin", 32), ("middling.bin", 5)] {
        let mut content = vec![0; mebibytes << 20];
        getrandom::fill(&mut content)?;
        fs::write(directory.join(name), content)?;
    }
    Ok(())
}
