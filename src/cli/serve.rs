//! `haul serve`: the daemon.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};
use data_encoding::BASE32_NOPAD;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{field, info, warn};

use super::reload::{Reloading, warn_if_degraded};
use super::signals::{self, Logs, Signals};
use crate::accounts::{Accounts, NewUser, UserName};
use crate::config::{self, Config, ConfigError};
use crate::messages::Messages;
use crate::ops;
use crate::protocol::Secret;
use crate::server::{self, Server, Shutdown};
use crate::storage::{self, Limits, Store};
use crate::telemetry::{self, Level, Tail};
use crate::tls::Fingerprint;

/// Serves files until it is told to stop
///
/// With nothing given it works at once: it makes its data directory, a certificate and an `admin`
/// account, and says the password and what to type next.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Serve {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "HAUL_CONFIG")]
    config: Option<PathBuf>,
    /// The data directory
    #[arg(long, value_name = "DIR", env = "HAUL_DATA")]
    data: Option<PathBuf>,
    /// The address and port to listen on
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

impl Serve {
    /// Runs the daemon on a runtime of its own, whose threads the configuration bounds.
    ///
    /// # Errors
    /// If it can not start: one line that says what and what to do.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = self.load()?;
        let telemetry = telemetry::start(&config.log)?;
        let (level, tail) = (telemetry.level(), telemetry.tail());
        let logs = Logs::new(telemetry);
        let outcome = self.run_logged(config, (level, tail), &logs);
        logs.finish();
        outcome
    }

    /// The configuration as the file, the environment and the flags say now.
    pub(super) fn load(&self) -> Result<Config, ConfigError> {
        let mut config = Config::load(self.config.as_deref(), config::environment())?;
        if let Some(data) = &self.data {
            config.server.data.clone_from(data);
        }
        if let Some(listen) = self.listen {
            config.server.listen = listen;
        }
        Ok(config)
    }

    fn run_logged(self, config: Config, log: (Level, Tail), logs: &Logs) -> anyhow::Result<()> {
        raise_descriptor_limit(config.limits.sessions);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .max_blocking_threads(config.limits.disk_threads)
            .build()
            .context("can not start the threads of the server")?;
        let outcome = runtime.block_on(self.serve(config, log, logs.clone()));
        // The process ends, and so does all that still waits for a disk. Were it dropped first, it
        // would clean up after itself: uploads that the next start can go on with would be gone.
        std::mem::forget(runtime);
        outcome
    }

    async fn serve(
        self,
        config: Config,
        (level, tail): (Level, Tail),
        logs: Logs,
    ) -> anyhow::Result<()> {
        let shutdown = Shutdown::default();
        let running = Arc::new(OnceLock::new());
        // From before the first thing that may take long.
        let reload = obey_signals(&config, logs, &shutdown, &running)?;
        let data = &config.server.data;
        if config.server.require_mount {
            storage::check_mounted(data)?;
        }
        // First of all, so that a taken port leaves nothing behind.
        let (listener, datagrams) = listen(&config.server).await?;
        let for_operators = listen_for_operators(&config.ops).await?;
        let store = Store::open(data)?;
        let accounts = Accounts::open(data)
            .await?
            .with_hashing_slots(config.auth.hashing_slots);
        let messages = Messages::open(data).await?;
        let server = Server::new(accounts.clone(), store, messages, config.clone());
        let mut server = server.with_log(tail, level.clone());
        if let Some(socket) = datagrams {
            server = server.with_datagrams(socket);
        }
        let server = running.get_or_init(|| server);
        let certificate = server.reload_tls().await?;
        let address = listener.local_addr().context("can not tell the port")?;
        let first = first_admin(&accounts).await?;
        say_what_to_do_next(address, data, certificate.fingerprint, first.as_ref());
        let ops = for_operators.as_ref().map(TcpListener::local_addr);
        let ops = ops
            .transpose()
            .context("can not tell the port of ops.listen")?;
        info!(
            name: "listening",
            %address,
            ops = ops.map(field::display),
            data = %data.display(),
            version = env!("CARGO_PKG_VERSION"),
            "listening"
        );
        let reloading = Reloading {
            serve: self,
            server: server.clone(),
            level,
        };
        tokio::spawn(reloading.whenever(reload));
        let stop = CancellationToken::new();
        let _stop_ops = stop.clone().drop_guard();
        if let Some(listener) = for_operators {
            tokio::spawn(ops::run(listener, server.clone(), stop));
        }
        server.run_until(listener, shutdown).await;
        warn_if_degraded(server);
        info!(name: "stopped", "stopped");
        Ok(())
    }
}

/// Obeys signals from now on; what it returns is notified when the configuration is to be read
/// again, also before there is anybody to listen.
fn obey_signals(
    config: &Config,
    logs: Logs,
    shutdown: &Shutdown,
    running: &Arc<OnceLock<Server>>,
) -> anyhow::Result<Arc<Notify>> {
    let signals = Signals::watch()?;
    let at_start = config.limits.drain_timeout;
    let running = Arc::clone(running);
    let patience = move || {
        let server = running.get();
        server.map_or(at_start, |server| server.config().limits.drain_timeout)
    };
    let reload = Arc::new(Notify::new());
    let obeying = signals::obey(signals, shutdown.clone(), logs, patience, reload.clone());
    tokio::spawn(obeying);
    Ok(reload)
}

/// Takes all the file descriptors that the system grants: each session needs one, and each file
/// that it moves another. The soft limit that programs start with is made for other programs.
fn raise_descriptor_limit(sessions: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(name: "open_files_not_raised", %error, "can not raise the limit of open files");
    }
    if limit.maximum.is_some_and(|most| most < sessions as u64) {
        warn!(
            name: "open_files_few",
            most = limit.maximum,
            sessions,
            "the system grants fewer open files than limits.sessions"
        );
    }
}

/// Takes the port, for datagrams too where they are wanted.
async fn listen(settings: &config::Server) -> anyhow::Result<(TcpListener, Option<UdpSocket>)> {
    let address = settings.listen;
    server::bind(address, settings.datagrams)
        .await
        .with_context(|| {
            format!(
                "can not listen on {address}; is another server running there? \
             choose another address with --listen or server.listen"
            )
        })
}

/// Takes the operators' port, where one is wanted.
async fn listen_for_operators(settings: &config::Ops) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = settings.listen else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "can not listen on {address} for operators; is another server running there? \
             choose another address with ops.listen, or \"\" for none"
        )
    })?;
    Ok(Some(listener))
}

/// A password that has to be shown once, or where it came from.
enum FirstPassword {
    Made(Secret),
    FromFile(PathBuf),
}

/// Makes the `admin` account if there is no account at all.
async fn first_admin(accounts: &Accounts) -> anyhow::Result<Option<FirstPassword>> {
    if !accounts.users().await?.is_empty() {
        return Ok(None);
    }
    let (password, first) = if let Some(file) = std::env::var_os("HAUL_ADMIN_PASSWORD_FILE") {
        let file = PathBuf::from(file);
        (password_from(&file)?, FirstPassword::FromFile(file))
    } else {
        let password = random_password()?;
        (password.clone(), FirstPassword::Made(password))
    };
    let admin: UserName = "admin".parse().context("`admin` is a user name")?;
    let new = NewUser {
        admin: true,
        limits: Limits::default(),
    };
    accounts.add_user(&admin, &password, new).await?;
    Ok(Some(first))
}

fn password_from(file: &Path) -> anyhow::Result<Secret> {
    let text = std::fs::read_to_string(file).with_context(|| {
        format!(
            "can not read HAUL_ADMIN_PASSWORD_FILE, which is {}",
            file.display()
        )
    })?;
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() {
        bail!(
            "the first line of {} is empty; write the admin's password there",
            file.display()
        );
    }
    Ok(Secret::new(password.to_owned()))
}

/// 100 random bits, in letters and digits that are hard to mistake for each other.
fn random_password() -> anyhow::Result<Secret> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).context("the system gives no random bytes")?;
    let text = BASE32_NOPAD.encode(&bytes).to_lowercase();
    Ok(Secret::new(text[..20].to_owned()))
}

/// Tells the person who started the server how to reach it; a log reader needs none of it.
fn say_what_to_do_next(
    address: SocketAddr,
    data: &Path,
    fingerprint: Fingerprint,
    first: Option<&FirstPassword>,
) {
    let host = match address.ip() {
        ip if !ip.is_unspecified() => SocketAddr::new(ip, address.port()),
        ip if ip.is_ipv4() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        _ => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
    };
    let mut lines = format!(
        "haul listens on {address} and keeps its data in {}\n\
         Its certificate has the fingerprint {fingerprint}\n",
        data.display()
    );
    if let Some(first) = first {
        let password = match first {
            FirstPassword::Made(password) => format!(", shown this once: {}", password.expose()),
            FirstPassword::FromFile(file) => format!(" is the one in {}", file.display()),
        };
        let _ = writeln!(
            lines,
            "\n  The account `admin` is new. Its password{password}\n  \
             Connect with: haul connect haul://admin@{host}\n"
        );
    }
    // Nobody reads the standard error of some daemons; that is no reason not to serve.
    let _ = std::io::stderr().lock().write_all(lines.as_bytes());
}
