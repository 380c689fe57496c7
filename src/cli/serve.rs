//! `haul serve`: the daemon.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{field, info, warn};

use crate::accounts::Accounts;
use crate::cli::first_start::{FirstPassword, first_admin, greet, terminal_shows_secrets};
use crate::cli::listeners::Listeners;
use crate::cli::output::Output;
use crate::cli::reload::{Reloader, warn_if_degraded};
use crate::cli::report;
use crate::cli::serve_args::ServeArgs;
use crate::cli::service::ServiceManager;
use crate::cli::signals;
use crate::cli::signals::{SignalLogs, Signals};
use crate::config;
use crate::config::{Config, LogFormat};
use crate::messages::Messages;
use crate::ops;
use crate::server;
use crate::server::{SERVER_THREADS, Server, Shutdown};
use crate::storage;
use crate::storage::Store;
use crate::telemetry;
use crate::telemetry::{AuditPermits, LogLevelHandle, Tail};
use crate::tls::Fingerprint;

impl ServeArgs {
    /// Runs the daemon on its own runtime. If the daemon cannot start, one line on standard error says
    /// why and what to do, in the format of the log if it may be mixed with the log.
    pub(super) fn run(self) -> ExitCode {
        let config = self.load();
        let format = config
            .as_ref()
            .map_or(LogFormat::Auto, |config| config.log.format);
        let in_json = telemetry::stderr_is_json(format);
        let outcome = config
            .map_err(anyhow::Error::from)
            .and_then(|config| self.run_with_log(config, in_json));
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => refuse_in(in_json, &error),
        }
    }

    fn run_with_log(self, config: Config, in_json: bool) -> anyhow::Result<()> {
        let telemetry = telemetry::start(&config.log)?;
        if in_json {
            telemetry::log_panics();
        }
        let (level, tail) = (telemetry.level(), telemetry.tail());
        let audit = telemetry.audit_permits();
        let logs = SignalLogs::new(telemetry);
        let outcome = self.run_logged(config, (level, tail, audit), &logs);
        logs.finish();
        outcome
    }

    fn run_logged(
        self,
        config: Config,
        log: (LogLevelHandle, Tail, AuditPermits),
        logs: &SignalLogs,
    ) -> anyhow::Result<()> {
        raise_descriptor_limit();
        let service = ServiceManager::find()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .max_blocking_threads(SERVER_THREADS)
            .build()
            .context("cannot start the server's threads")?;
        let outcome = runtime.block_on(self.serve(config, log, logs.clone(), service.clone()));
        service.finish(&outcome);
        // Dropping the runtime would drop tasks that still wait for a disk, and these would delete
        // uploads that the next start can resume.
        std::mem::forget(runtime);
        outcome
    }

    async fn serve(
        self,
        config: Config,
        (level, tail, audit): (LogLevelHandle, Tail, AuditPermits),
        logs: SignalLogs,
        service: ServiceManager,
    ) -> anyhow::Result<()> {
        warn_of_unknown_variables();
        let shutdown = Shutdown::default();
        let running = Arc::new(OnceLock::new());
        // Before the first operation that may take long.
        let reload = handle_signals(&config, logs.clone(), &shutdown, &running)?;
        let data = &config.server.data;
        if config.server.require_mount {
            storage::check_mounted(data)?;
        }
        let Listeners {
            clients,
            address,
            datagrams,
            operators,
            ops,
        } = Listeners::bind(&config).await?;
        // From now until the end of the process, so that operators can see why it does not serve.
        let (server_created, _stop_operators) = start_operators(operators, address, logs);
        let (server, accounts) = create_server(&config).await?;
        let (reload_sender, reload_requests) = mpsc::channel(1);
        let mut server = server
            .with_log(tail, level.clone(), audit)
            .with_reload(reload_sender);
        if let Some(socket) = datagrams {
            server = server.with_datagrams(socket);
        }
        let server = running.get_or_init(|| server);
        let certificate = server.reload_tls().await?;
        let first = first_admin(&accounts, data, terminal_shows_secrets()).await?;
        let _ = server_created.send(server.clone());
        announce(
            (address, ops),
            data,
            certificate.fingerprint,
            first.as_ref(),
        );
        let reloader = Reloader {
            serve: self,
            server: server.clone(),
            level,
            service: service.clone(),
        };
        service.ready(address);
        tokio::spawn(service.watch(server.clone(), address, shutdown.drain.clone()));
        tokio::spawn(reloader.run(reload, reload_requests));
        server.run_until(clients, shutdown).await;
        warn_if_degraded(server);
        info!(name: "stopped", "stopped");
        Ok(())
    }
}

fn warn_of_unknown_variables() {
    for variable in config::unknown_variables(config::environment()) {
        warn!(
            name: "unknown_variable",
            variable,
            "this environment variable is not a setting, so it is ignored"
        );
    }
}

/// Opens the data directory.
async fn create_server(config: &Config) -> anyhow::Result<(Server, Accounts)> {
    let data = &config.server.data;
    // Before anything in the data directory is changed.
    let settings = config.clone();
    spawn_blocking(move || server::check_certificate(&settings)).await??;
    Accounts::check(data).await?;
    Messages::check(data).await?;
    let locked = Store::lock(data)?;
    let accounts = Accounts::open(data)
        .await?
        .with_hashing_slots(config.auth.hashing_slots);
    let messages = Messages::open(data).await?;
    // Last, because it deletes leftovers: a refused start deletes nothing.
    let store = locked.open()?;
    let server = Server::new(accounts.clone(), store, messages, config.clone());
    Ok((server, accounts))
}

/// Serves the operators' address until `stop`. It starts before the server exists.
/// Starts to serve the operators' address, if there is one, until the guard is dropped. The server is
/// sent once it exists.
fn start_operators(
    operators: Option<TcpListener>,
    address: SocketAddr,
    logs: SignalLogs,
) -> (oneshot::Sender<Server>, DropGuard) {
    let (created, server) = oneshot::channel();
    let stop = CancellationToken::new();
    if let Some(operators) = operators {
        tokio::spawn(serve_operators(
            operators,
            address,
            server,
            logs,
            stop.clone(),
        ));
    }
    (created, stop.drop_guard())
}

async fn serve_operators(
    listener: TcpListener,
    address: SocketAddr,
    created: oneshot::Receiver<Server>,
    logs: SignalLogs,
    stop: CancellationToken,
) {
    let server = async {
        match created.await {
            Ok(server) => server,
            // The server could not start; the process ends.
            Err(_) => std::future::pending().await,
        }
    };
    let lost_lines = move || logs.lost_lines().unwrap_or_default();
    ops::run(listener, address, server, lost_lines, stop).await;
}

/// Says on standard error and in the log where the server listens.
fn announce(
    (address, ops): (SocketAddr, Option<SocketAddr>),
    data: &Path,
    fingerprint: Fingerprint,
    first: Option<&FirstPassword>,
) {
    let shows_secrets = terminal_shows_secrets();
    greet(address, ops, data, fingerprint, first, shows_secrets);
    info!(
        name: "listening",
        %address,
        ops = ops.map(field::display),
        data = %data.display(),
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
}

/// Reports why the daemon does not start, before the configuration is known, and returns the exit code.
pub(super) fn refuse(error: &anyhow::Error) -> ExitCode {
    refuse_in(telemetry::stderr_is_json(LogFormat::Auto), error)
}

fn refuse_in(json: bool, error: &anyhow::Error) -> ExitCode {
    if json {
        report::report_in_log("can_not_start", error)
    } else {
        report::report(Output::TEXT, "serve", error)
    }
}

/// Handles signals from now on. The result is notified when the configuration is to be read again, even
/// before anybody waits for it.
fn handle_signals(
    config: &Config,
    logs: SignalLogs,
    shutdown: &Shutdown,
    running: &Arc<OnceLock<Server>>,
) -> anyhow::Result<Arc<Notify>> {
    let signals = Signals::watch()?;
    let at_start = config.limits.drain_timeout;
    let running = Arc::clone(running);
    let drain_timeout = move || {
        let server = running.get();
        server.map_or(at_start, Server::drain_timeout)
    };
    let reload = Arc::new(Notify::new());
    let handling = signals::handle(
        signals,
        shutdown.clone(),
        logs,
        drain_timeout,
        reload.clone(),
    );
    tokio::spawn(handling);
    Ok(reload)
}

/// Raises the soft limit of file descriptors to the hard limit. Each session needs a descriptor, and each
/// file that it transfers another.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(name: "open_files_not_raised", %error, "cannot raise the limit of open files");
    }
}
