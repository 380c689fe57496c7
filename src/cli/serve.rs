//! `haul serve`: the daemon.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{field, info, warn};

use crate::accounts::Accounts;
use crate::cli::exit;
use crate::cli::first_start::{first_admin, is_watched, say_what_to_do_next};
use crate::cli::reload::{Reloading, warn_if_degraded};
use crate::cli::serve_args::ServeArgs;
use crate::cli::service::ServiceArgs;
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

impl ServeArgs {
    /// Runs the daemon on a runtime of its own, whose threads the configuration bounds. If it can
    /// not start, one line says what is wrong and what to do, in the shape of the log where it may
    /// be mixed with it.
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
        let service = ServiceArgs::find()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .max_blocking_threads(SERVER_THREADS)
            .build()
            .context("cannot start the threads of the server")?;
        let outcome = runtime.block_on(self.serve(config, log, logs.clone(), service.clone()));
        service.finish(&outcome);
        // The process ends, and so does all that still waits for a disk. Were it dropped first, it
        // would clean up after itself: uploads that the next start can go on with would be gone.
        std::mem::forget(runtime);
        outcome
    }

    async fn serve(
        self,
        config: Config,
        (level, tail, audit): (LogLevelHandle, Tail, AuditPermits),
        logs: SignalLogs,
        service: ServiceArgs,
    ) -> anyhow::Result<()> {
        let shutdown = Shutdown::default();
        let running = Arc::new(OnceLock::new());
        // From before the first thing that may take long.
        let reload = obey_signals(&config, logs.clone(), &shutdown, &running)?;
        let data = &config.server.data;
        if config.server.require_mount {
            storage::check_mounted(data)?;
        }
        // First of all, so that a taken port leaves nothing behind.
        let (listener, datagrams) = listen(&config.server).await?;
        let for_operators = listen_for_operators(&config.ops).await?;
        let ops = for_operators.as_ref().map(TcpListener::local_addr);
        let ops = ops
            .transpose()
            .context("cannot tell the port of ops.listen")?;
        // Until the end of the process, of which operators want to know why it does not serve.
        let (made, server_made) = oneshot::channel();
        let stop = CancellationToken::new();
        let _stop_ops = stop.clone().drop_guard();
        if let Some(listener) = for_operators {
            tokio::spawn(show(listener, server_made, logs, stop));
        }
        check(&config).await?;
        let locked = Store::lock(data)?;
        let accounts = Accounts::open(data)
            .await?
            .with_hashing_slots(config.auth.hashing_slots);
        let messages = Messages::open(data).await?;
        // Last: a start that is refused has deleted nothing.
        let store = locked.open()?;
        let server = Server::new(accounts.clone(), store, messages, config.clone());
        let (asking, asked) = mpsc::channel(1);
        let mut server = server
            .with_log(tail, level.clone(), audit)
            .with_reload(asking);
        if let Some(socket) = datagrams {
            server = server.with_datagrams(socket);
        }
        let server = running.get_or_init(|| server);
        let certificate = server.reload_tls().await?;
        let address = listener.local_addr().context("cannot tell the port")?;
        let watched = is_watched();
        let first = first_admin(&accounts, data, watched).await?;
        let _ = made.send(server.clone());
        say_what_to_do_next(
            address,
            data,
            certificate.fingerprint,
            first.as_ref(),
            watched,
        );
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
            service: service.clone(),
        };
        service.ready(address);
        tokio::spawn(service.watch(server.clone(), address, shutdown.drain.clone()));
        tokio::spawn(reloading.whenever(reload, asked));
        server.run_until(listener, shutdown).await;
        warn_if_degraded(server);
        info!(name: "stopped", "stopped");
        Ok(())
    }
}

/// Refuses what the server could not start with, before anything in the data directory is changed.
async fn check(config: &Config) -> anyhow::Result<()> {
    let settings = config.clone();
    spawn_blocking(move || server::check_certificate(&settings)).await??;
    Accounts::check(&config.server.data).await?;
    Messages::check(&config.server.data).await?;
    Ok(())
}

/// Shows operators what there is to see, from before there is a server until `stop`.
async fn show(
    listener: TcpListener,
    made: oneshot::Receiver<Server>,
    logs: SignalLogs,
    stop: CancellationToken,
) {
    let server = async {
        match made.await {
            Ok(server) => server,
            // It could not start; the process ends.
            Err(_) => std::future::pending().await,
        }
    };
    let lost_lines = move || logs.lost_lines().unwrap_or_default();
    ops::run(listener, server, lost_lines, stop).await;
}

/// Says why it does not start, before anything of the configuration is known, and returns the exit
/// code for it.
pub(super) fn refuse(error: &anyhow::Error) -> ExitCode {
    refuse_in(telemetry::stderr_is_json(LogFormat::Auto), error)
}

fn refuse_in(json: bool, error: &anyhow::Error) -> ExitCode {
    if json {
        exit::report_in_log("can_not_start", error)
    } else {
        exit::report("serve", error)
    }
}

/// Obeys signals from now on; what it returns is notified when the configuration is to be read
/// again, also before there is anybody to listen.
fn obey_signals(
    config: &Config,
    logs: SignalLogs,
    shutdown: &Shutdown,
    running: &Arc<OnceLock<Server>>,
) -> anyhow::Result<Arc<Notify>> {
    let signals = Signals::watch()?;
    let at_start = config.limits.drain_timeout;
    let running = Arc::clone(running);
    let patience = move || {
        let server = running.get();
        server.map_or(at_start, Server::drain_timeout)
    };
    let reload = Arc::new(Notify::new());
    let obeying = signals::obey(signals, shutdown.clone(), logs, patience, reload.clone());
    tokio::spawn(obeying);
    Ok(reload)
}

/// Takes all the file descriptors that the system grants: each session needs one, and each file
/// that it moves another. The soft limit that programs start with is made for other programs.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(name: "open_files_not_raised", %error, "cannot raise the limit of open files");
    }
}

/// Takes the port, for datagrams too where they are wanted.
async fn listen(
    settings: &config::ServerSettings,
) -> anyhow::Result<(TcpListener, Option<UdpSocket>)> {
    let address = settings.listen;
    server::bind(address, settings.datagrams)
        .await
        .with_context(|| {
            format!(
                "cannot listen on {address}; is another server running there? \
             choose another address with --listen or server.listen"
            )
        })
}

/// Takes the operators' port, where one is wanted.
async fn listen_for_operators(
    settings: &config::OpsSettings,
) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = settings.listen else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address} for operators; is another server running there? \
             choose another address with ops.listen, or \"\" for none"
        )
    })?;
    Ok(Some(listener))
}
