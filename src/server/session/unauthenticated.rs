//! A session before its login: what a visitor may ask, and how one becomes a [`Member`].

use tokio::io::AsyncRead;
use tokio::time::{sleep_until, timeout_at};
use tracing::Span;

use crate::accounts::AccountsError;
use crate::protocol::{Call, Frame, GoodbyeReason, Login, Request, WireError, encode_ok};
use crate::server::commands;
use crate::server::error::CommandError;
use crate::server::metrics::logins::LoginMethod;
use crate::server::session::close_reason::CloseReason;
use crate::server::session::member::Member;
use crate::server::session::request_log::RequestLog;
use crate::server::session::state::SessionState;
use crate::server::transfer::registry::StrayData;

/// A member who has just logged in.
pub(crate) struct Admitted {
    pub(crate) member: Member,
    /// The last event of this server that the client says it has; 0 if it has none of them.
    pub(crate) since: Option<u64>,
    /// The session is to be sent messages and offers.
    pub(crate) inbox: bool,
}

impl<R: AsyncRead + Unpin + Send> SessionState<R> {
    /// Answers requests until one of them is a login that succeeds.
    pub(crate) async fn admit(&mut self) -> Result<Admitted, CloseReason> {
        let most = {
            let config = self.shared.config();
            let (limits, auth) = (&config.limits, &config.auth);
            (limits.frames_before_login, auth.attempts_per_connection)
        };
        let (mut frames, mut failures) = (0, 0);
        loop {
            let drain = self.shutdown.drain.clone();
            let frame = tokio::select! {
                biased;
                () = drain.cancelled() => {
                    self.say_goodbye(GoodbyeReason::ShuttingDown).await?;
                    return Err(CloseReason::Goodbye(GoodbyeReason::ShuttingDown));
                }
                () = sleep_until(self.login_deadline) => {
                    return Err(too_late());
                }
                frame = self.receiver.next() => frame,
            };
            let json = match frame? {
                None => return Err(CloseReason::Disconnected),
                Some(Frame::Data { stream, .. }) => return Err(StrayData::NoPut(stream).into()),
                Some(Frame::Control(json)) => json,
            };
            frames += 1;
            if frames > most.0 {
                return Err(CloseReason::TooManyFrames(most.0));
            }
            match Request::parse(&json) {
                Ok((id, Request::Login(login))) => {
                    // Not even a login that waits for its turn outlasts the deadline.
                    let deadline = self.login_deadline;
                    match timeout_at(deadline, self.log_in(id, login)).await {
                        Ok(Ok(Attempt::Right(admitted))) => return Ok(*admitted),
                        Ok(Ok(Attempt::Wrong)) => failures += 1,
                        Ok(Ok(Attempt::Unknown)) => {}
                        Ok(Err(end)) => return Err(end),
                        Err(_) => return Err(too_late()),
                    }
                    if failures >= most.1 {
                        return Err(CloseReason::TooManyFailures(failures));
                    }
                }
                Ok((id, request)) => {
                    let lines = self.shared.request_lines.for_unauthenticated();
                    let job =
                        RequestLog::new(&self.shared.metrics, lines, id, request.command(), None);
                    let quits = matches!(request, Request::Quit(_));
                    let reply = commands::visit(id, &request, &self.shared, &self.peer);
                    job.finish(&self.outbox, reply.into()).await?;
                    if quits {
                        return Err(CloseReason::Quit);
                    }
                }
                Err(bad) => {
                    let lines = self.shared.request_lines.for_unauthenticated();
                    RequestLog::refuse(&self.shared.metrics, lines, &self.outbox, bad).await?;
                }
            }
        }
    }

    async fn log_in(&mut self, id: u32, login: Login) -> Result<Attempt, CloseReason> {
        let how = LoginMethod::from_request(&login);
        self.shared.wait_for_audit().await;
        let lines = self.shared.request_lines.for_unauthenticated();
        let job = RequestLog::new(&self.shared.metrics, lines, id, &Login::COMMAND, None)
            .with_user(login.user.as_deref())
            .with_proof(how.as_str());
        let mut admitted = None;
        let messages = &self.shared.messages;
        let resumed = login
            .since
            .map(|since| messages.has_issued(since, login.epoch.as_deref()));
        // A `since` of another server's history counts as 0.
        let since = login.since.map(|since| match resumed {
            Some(true) => since,
            _ => 0,
        });
        let inbox = login.inbox.unwrap_or(true);
        let work = async {
            // Boxed: it is the larger part of what a login needs.
            let logging_in = commands::log_in(login, &self.shared, &self.peer);
            let (account, credential) = Box::pin(logging_in).await?;
            Span::current().record("user", account.name.as_str());
            let most = self.shared.config().limits.sessions_per_user;
            let user = account.id;
            let (session, gone) = (self.id.clone(), self.gone.child_token());
            let (shared, block) = (self.shared.clone(), self.peer.block());
            let name = account.name.as_str();
            let member = Member::admit(shared, credential, name, session, block, gone).await?;
            self.seat.assign_user(user, most)?;
            let reply = encode_ok(id, &commands::welcome(&member, resumed));
            admitted = Some(Admitted {
                member,
                since,
                inbox,
            });
            Ok(reply)
        };
        let outcome = job.guard(work).await;
        let failure = outcome.reply.as_ref().err().map(WireError::from);
        let code = failure.map(|failure| failure.code);
        self.shared.metrics.record_login(how, code);
        if admitted.is_some() {
            let frame_timeout = self.shared.config().limits.frame_timeout;
            self.receiver.lift_limits(frame_timeout);
        }
        let wrong = matches!(
            outcome.reply,
            Err(CommandError::Accounts(AccountsError::LoginFailed)
                | CommandError::TooManyAttempts(_))
        );
        job.finish(&self.outbox, outcome).await?;
        Ok(match admitted {
            Some(admitted) => Attempt::Right(Box::new(admitted)),
            None if wrong => Attempt::Wrong,
            None => Attempt::Unknown,
        })
    }
}

/// How a login went.
enum Attempt {
    Right(Box<Admitted>),
    /// It counts against the connection.
    Wrong,
    /// It was not looked at, or could not be.
    Unknown,
}

fn too_late() -> CloseReason {
    CloseReason::TimedOut("no login within the time for it".into())
}
