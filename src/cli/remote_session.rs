//! From the options to a logged-in client.

use std::fs;
use std::io::{Write, stderr, stdin};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::cli::events::EventDisplay;
use crate::cli::exit::{GivenBy, NoSession, usage};
use crate::cli::global_options::GlobalOptions;
use crate::cli::output::{Output, safe};
use crate::cli::saved_login::{DeviceToken, SavedLogin};
use crate::cli::selection::SelectedServer;
use crate::cli::terminal::is_terminal;
use crate::cli::trust;
use crate::client::{Client, ClientError, EventPosition, RetryPolicy, ServerUrl, Session, Trust};
use crate::io_error::describe_io_error;
use crate::protocol::{Login, LoginReply, Secret};

/// For the server's goodbye.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

/// A session, and its output.
#[derive(Debug, Clone)]
pub(crate) struct RemoteSession {
    /// The connection that the command begins with.
    pub(crate) client: Client,
    /// Its address, with the user.
    pub(crate) server: ServerUrl,
    /// The session, which survives its connections.
    pub(crate) session: Session,
    pub(crate) output: Output,
}

impl RemoteSession {
    /// For a session in the user's home.
    pub(crate) fn new(opened: OpenedSession, output: Output, policy: RetryPolicy) -> Self {
        let OpenedSession { client, way, .. } = opened;
        Self::within(client, (way, None), output, policy)
    }

    /// For a session of its own beside another, in this directory.
    pub(crate) async fn open_second(
        way: ConnectMethod,
        cwd: String,
        output: Output,
        policy: RetryPolicy,
    ) -> anyhow::Result<Self> {
        let client = way.connect(None).await.map_err(NoSession::from)?;
        client.cd(&cwd).await?;
        Ok(Self::within(client, (way, Some(cwd)), output, policy))
    }

    /// For a session whose connections are all made in this way, each in this directory.
    pub(crate) fn within(
        client: Client,
        again: (ConnectMethod, Option<String>),
        output: Output,
        policy: RetryPolicy,
    ) -> Self {
        let server = again.0.url.clone();
        let again = Arc::new(again);
        let connect = move |since| {
            let again = Arc::clone(&again);
            async move {
                let (way, cwd) = &*again;
                let client = way.connect(since).await?;
                if let Some(cwd) = cwd {
                    client.cd(cwd).await?;
                }
                Ok(client)
            }
        };
        Self {
            session: Session::with_events(client.clone(), policy, connect),
            client,
            server,
            output,
        }
    }
}

/// A session, and how it came about.
#[derive(Debug)]
pub(crate) struct OpenedSession {
    pub(crate) client: Client,
    pub(crate) way: ConnectMethod,
    pub(crate) reply: LoginReply,
}

/// How to come to a session.
#[derive(Debug, Clone)]
pub(crate) struct ConnectMethod {
    /// Where, and as whom.
    pub(crate) url: ServerUrl,
    pub(crate) login: SavedLogin,
    pub(crate) trust: Trust,
    pub(crate) hears: EventDisplay,
}

impl ConnectMethod {
    /// Goes it, asking nobody. Who hears messages and offers has had those up to `since`.
    pub(crate) async fn connect(
        &self,
        since: Option<EventPosition>,
    ) -> Result<Client, ClientError> {
        let client = Client::connect(&self.url, &self.trust).await?;
        log_in(&client, &self.url, &self.login, (&self.hears, since)).await?;
        Ok(client)
    }
}

impl OpenedSession {
    /// Refuses the session of another user than the one asked for, if one was.
    pub(crate) async fn of(self, asked: Option<String>) -> anyhow::Result<Self> {
        match asked {
            Some(asked) if asked != self.reply.user => {
                leave(&self.client).await;
                let whose = self.reply.user;
                Err(NoSession::AnotherUser { whose, asked }.into())
            }
            _ => Ok(self),
        }
    }
}

/// Connects and logs in as the options, the environment and the profiles say.
pub(crate) async fn open(
    global: &GlobalOptions,
    hears: EventDisplay,
) -> anyhow::Result<OpenedSession> {
    let SelectedServer { url, login, asked } = SelectedServer::find(global)?;
    open_with(global, url, login, hears).await?.of(asked).await
}

/// The same by a password or a certificate, for what a token may not do.
pub(crate) async fn open_without_token(global: &GlobalOptions) -> anyhow::Result<OpenedSession> {
    let SelectedServer { url, login, asked } = SelectedServer::find(global)?;
    let login = login.filter(|login| login.token().is_none());
    let opened = open_with(global, url, login, EventDisplay::Nothing).await?;
    opened.of(asked).await
}

/// Connects to `url`; `saved` is used if no option says how to log in.
pub(crate) async fn open_with(
    global: &GlobalOptions,
    url: ServerUrl,
    saved: Option<SavedLogin>,
    hears: EventDisplay,
) -> anyhow::Result<OpenedSession> {
    let (url, login) = choose_login(global, url, saved).await?;
    open_by(global, url, login, hears).await
}

/// The way to log in: as an option says, else `saved`, else by a password that is asked for.
pub(crate) async fn choose_login(
    global: &GlobalOptions,
    mut url: ServerUrl,
    saved: Option<SavedLogin>,
) -> anyhow::Result<(ServerUrl, (SavedLogin, GivenBy))> {
    let own = global.trust.own_certificate()?;
    let certificate = own.filter(|_| url.tls);
    let certificate = certificate.map(|own| (SavedLogin::Certificate(own), GivenBy::Certificate));
    let saved = saved.map(|login| (login, GivenBy::Remembered));
    let login = match given(global)?.or(certificate).or(saved) {
        // The user is asked for only together with a password.
        Some((login, given_by)) if !matches!(login, SavedLogin::Password(_)) => (login, given_by),
        password => ask_for_missing(global, &mut url, password).await?,
    };
    Ok((url, login))
}

/// Connects as the options, the environment and the profiles say, and asks nothing. `None` if they
/// have no way to log in.
pub(crate) async fn open_unattended(global: &GlobalOptions) -> anyhow::Result<Option<Client>> {
    let SelectedServer { url, login, .. } = SelectedServer::find(global)?;
    let own = global.trust.own_certificate()?;
    let certificate = own.clone().filter(|_| url.tls);
    let login = given(global)?
        .map(|(login, _)| login)
        .or(certificate.map(SavedLogin::Certificate))
        .or(login);
    let Some(login) = login else {
        return Ok(None);
    };
    let own = match &login {
        SavedLogin::Certificate(own) => Some(own),
        _ => own.as_ref(),
    };
    let trust = global.trust.trust(&url, own)?;
    let way = ConnectMethod {
        url,
        login,
        trust,
        hears: EventDisplay::Nothing,
    };
    Ok(Some(way.connect(None).await?))
}

/// Connects to `url` and logs in in this way and no other.
pub(crate) async fn open_by(
    global: &GlobalOptions,
    mut url: ServerUrl,
    (login, given_by): (SavedLogin, GivenBy),
    hears: EventDisplay,
) -> anyhow::Result<OpenedSession> {
    let own = global.trust.own_certificate()?;
    let own = match &login {
        SavedLogin::Certificate(own) => Some(own),
        _ => own.as_ref(),
    };
    let (client, trust) = trust::connect(&global.trust, &url, own).await?;
    let reply = log_in(&client, &url, &login, (&hears, None))
        .await
        .map_err(|error| match error {
            ClientError::Login(_) => NoSession::Refused { error, given_by },
            _ => error.into(),
        })?;
    url.user = Some(reply.user.clone());
    Ok(OpenedSession {
        client,
        way: ConnectMethod {
            url,
            login,
            trust,
            hears,
        },
        reply,
    })
}

async fn log_in(
    client: &Client,
    url: &ServerUrl,
    login: &SavedLogin,
    (hears, since): (&EventDisplay, Option<EventPosition>),
) -> Result<LoginReply, ClientError> {
    let (since, epoch) = EventPosition::fields(hears.begin(client).or(since));
    let inbox = (!hears.has_inbox()).then_some(false);
    let mut request = Login {
        since,
        epoch,
        inbox,
        ..Login::default()
    };
    match login {
        SavedLogin::Certificate(_) => request.user.clone_from(&url.user),
        SavedLogin::Token(token) | SavedLogin::Device(DeviceToken { token, .. }) => {
            request.token = Some(token.clone());
        }
        SavedLogin::Password(password) => {
            request.user = Some(url.user.clone().unwrap_or_default());
            request.password = Some(password.clone());
        }
    }
    let reply = client.log_in(request).await?;
    hears.logged_in(client).await;
    Ok(reply)
}

/// Ends the session, so that the server knows that nothing broke. Whether it answers or not, this
/// is the end.
pub(crate) async fn leave(client: &Client) {
    let _ = timeout(QUIT_TIMEOUT, client.quit()).await;
}

/// Asks for the user, if `url` names none, and for the password, if there is none.
async fn ask_for_missing(
    global: &GlobalOptions,
    url: &mut ServerUrl,
    password: Option<(SavedLogin, GivenBy)>,
) -> anyhow::Result<(SavedLogin, GivenBy)> {
    if url.user.is_none() || password.is_none() {
        // Nobody types a password for a server that is not there. The connection is not kept: a
        // server does not wait for people.
        let own = global.trust.own_certificate()?;
        trust::connect(&global.trust, url, own.as_ref()).await?;
    }
    let user = if let Some(user) = &url.user {
        user.clone()
    } else {
        let otherwise = "name the user in the address: haul://USER@HOST:9000";
        ask("user", otherwise, ask_user).await?
    };
    let prompt = format!("Password for {} at {}: ", safe(&user), url.address());
    url.user = Some(user);
    if let Some(password) = password {
        return Ok(password);
    }
    let otherwise = "set HAUL_PASSWORD or add `--password-file FILE`";
    let password = ask("password", otherwise, move || ask_password(&prompt)).await?;
    Ok((SavedLogin::Password(password), GivenBy::Prompt))
}

/// The way to log in that the options or the environment give.
fn given(global: &GlobalOptions) -> anyhow::Result<Option<(SavedLogin, GivenBy)>> {
    if let Some(path) = &global.token_file {
        let token = SavedLogin::Token(first_line(path)?);
        return Ok(Some((token, GivenBy::TokenFile)));
    }
    if let Some(path) = &global.password_file {
        let password = SavedLogin::Password(first_line(path)?);
        return Ok(Some((password, GivenBy::PasswordFile)));
    }
    match std::env::var("HAUL_PASSWORD") {
        Ok(password) => {
            let password = SavedLogin::Password(Secret::new(password));
            Ok(Some((password, GivenBy::Environment)))
        }
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(usage("HAUL_PASSWORD is not UTF-8")),
    }
}

/// The password or token in the first line of a file.
pub(super) fn first_line(path: &Path) -> anyhow::Result<Secret> {
    let text = fs::read_to_string(path).map_err(|error| {
        usage(format!(
            "cannot read {}: {}",
            path.display(),
            describe_io_error(&error)
        ))
    })?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Secret::new(line.to_owned())),
        _ => Err(usage(format!(
            "the first line of {} is empty",
            path.display()
        ))),
    }
}

/// Asks the person at the terminal, if there is one.
async fn ask<T: Send + 'static>(
    what: &str,
    otherwise: &str,
    question: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    if !is_terminal() {
        return Err(usage(format!(
            "the {what} is missing, and there is no terminal to ask for it; {otherwise}"
        )));
    }
    spawn_blocking(question)
        .await?
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::Interrupted => crate::cli::exit::Interrupted { kept: false }.into(),
            _ => anyhow::Error::new(error),
        })
        .with_context(|| format!("cannot read the {what}"))
}

fn ask_user() -> std::io::Result<String> {
    write!(stderr(), "User: ")?;
    let mut line = String::new();
    stdin().read_line(&mut line)?;
    match line.trim() {
        "" => Err(std::io::ErrorKind::UnexpectedEof.into()),
        user => Ok(user.to_owned()),
    }
}

fn ask_password(prompt: &str) -> std::io::Result<Secret> {
    rpassword::prompt_password(prompt).map(Secret::new)
}
