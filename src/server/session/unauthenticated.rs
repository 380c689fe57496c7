//! A session before its login: it answers the few commands that need no user, until a login makes a
//! [`Member`].

use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::time::{sleep_until, timeout_at};
use tracing::Span;

use crate::accounts::AccountsError;
use crate::protocol::{
    Call, CommandInfo, Frame, GoodbyeReason, Login, Request, WireError, encode_ok,
};
use crate::server::commands;
use crate::server::error::CommandError;
use crate::server::metrics::logins::LoginMethod;
use crate::server::session::close_reason::CloseReason;
use crate::server::session::member::Member;
use crate::server::session::request_log::RequestLog;
use crate::server::session::state::SessionState;
use crate::server::transfer::session_transfers::StrayData;

/// A member who has just logged in.
pub(crate) struct Admitted {
    pub(crate) member: Member,
    /// The last event of this server that the client says it has; 0 if it has none of them.
    pub(crate) since: Option<u64>,
    /// Whether the session gets messages and offers.
    pub(crate) inbox: bool,
}

impl<R: AsyncRead + Unpin + Send> SessionState<R> {
    /// Answers requests until one of them is a login that succeeds.
    pub(crate) async fn admit(&mut self) -> Result<Box<Admitted>, CloseReason> {
        let (max_frames, max_failures) = {
            let config = self.shared.config();
            let (limits, auth) = (&config.limits, &config.auth);
            (limits.frames_before_login, auth.attempts_per_connection)
        };
        let (mut frames, mut failures) = (0, 0);
        loop {
            let json = self.next_control_frame().await?;
            frames += 1;
            if frames > max_frames {
                return Err(CloseReason::TooManyFrames(max_frames));
            }
            match self.answer_unauthenticated(&json).await? {
                LoginProgress::Admitted(admitted) => return Ok(admitted),
                LoginProgress::Failed => failures += 1,
                LoginProgress::NoAttempt => {}
            }
            if failures >= max_failures {
                return Err(CloseReason::TooManyFailures(failures));
            }
        }
    }

    async fn next_control_frame(&mut self) -> Result<Bytes, CloseReason> {
        let drain = self.shutdown.drain.clone();
        let frame = tokio::select! {
            biased;
            () = drain.cancelled() => {
                self.say_goodbye(GoodbyeReason::ShuttingDown).await?;
                return Err(CloseReason::Goodbye(GoodbyeReason::ShuttingDown));
            }
            () = sleep_until(self.login_deadline) => return Err(too_late()),
            frame = self.receiver.next() => frame,
        };
        match frame? {
            None => Err(CloseReason::Disconnected),
            Some(Frame::Data { stream, .. }) => Err(StrayData::NoPut(stream).into()),
            Some(Frame::Control(json)) => Ok(json),
        }
    }

    /// Answers one request. The table of commands says which commands need no login; the fields of
    /// any other command are not even read.
    async fn answer_unauthenticated(&mut self, json: &[u8]) -> Result<LoginProgress, CloseReason> {
        let parsed = match Request::parse_head(json) {
            Ok(head) if !head.command.works_before_login => {
                let error = CommandError::NotLoggedIn(head.command.name);
                let log = self.open_log(head.id, head.command);
                log.finish(&self.outbox, Err(error).into()).await?;
                return Ok(LoginProgress::NoAttempt);
            }
            Ok(head) => Request::parse_fields(head).map(|request| (head.id, request)),
            Err(bad) => Err(bad),
        };
        match parsed {
            Ok((id, Request::Login(login))) => {
                // The deadline also covers a login that waits for its password hash.
                let deadline = self.login_deadline;
                let logging_in = timeout_at(deadline, self.log_in(id, login));
                logging_in.await.unwrap_or_else(|_| Err(too_late()))
            }
            Ok((id, request)) => {
                let log = self.open_log(id, request.command());
                let reply = commands::answer_without_user(id, &request, &self.shared, &self.peer);
                log.finish(&self.outbox, reply.into()).await?;
                if matches!(request, Request::Quit(_)) {
                    return Err(CloseReason::Quit);
                }
                Ok(LoginProgress::NoAttempt)
            }
            Err(bad) => {
                let lines = self.shared.request_lines.for_unauthenticated();
                RequestLog::refuse(&self.shared.metrics, lines, &self.outbox, bad).await?;
                Ok(LoginProgress::NoAttempt)
            }
        }
    }

    fn open_log(&self, id: u32, command: &'static CommandInfo) -> RequestLog {
        let lines = self.shared.request_lines.for_unauthenticated();
        RequestLog::new(&self.shared.metrics, lines, id, command, None)
    }

    async fn log_in(&mut self, id: u32, login: Login) -> Result<LoginProgress, CloseReason> {
        let method = LoginMethod::from_request(&login);
        let log = self.open_log(id, &Login::COMMAND);
        let log = log
            .with_user(login.user.as_deref())
            .with_login_method(method.as_str());
        self.shared.wait_for_audit(&Login::COMMAND).await;
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
            let max_sessions = self.shared.config().limits.sessions_per_user;
            let user = account.id;
            let (session, peer_left) = (self.id.clone(), self.session_ended.child_token());
            let (shared, block) = (self.shared.clone(), self.peer.block());
            let name = account.name.as_str();
            let member = Member::admit(shared, credential, name, session, block, peer_left).await?;
            self.connection_permit.assign_user(user, max_sessions)?;
            let reply = encode_ok(id, &commands::welcome(&member, resumed));
            admitted = Some(Admitted {
                member,
                since,
                inbox,
            });
            Ok(reply)
        };
        let outcome = log.guard(work).await;
        let failure = outcome.reply.as_ref().err().map(WireError::from);
        let code = failure.map(|failure| failure.code);
        self.shared.metrics.record_login(method, code);
        if admitted.is_some() {
            let frame_timeout = self.shared.config().limits.frame_timeout;
            self.receiver.lift_limits(frame_timeout);
        }
        let counts_as_failure = matches!(
            outcome.reply,
            Err(CommandError::Accounts(AccountsError::LoginFailed)
                | CommandError::TooManyAttempts(_))
        );
        log.finish(&self.outbox, outcome).await?;
        Ok(match admitted {
            Some(admitted) => LoginProgress::Admitted(Box::new(admitted)),
            None if counts_as_failure => LoginProgress::Failed,
            None => LoginProgress::NoAttempt,
        })
    }
}

/// The effect of one request on the login of its session.
enum LoginProgress {
    Admitted(Box<Admitted>),
    /// The secret of a login was wrong, or it was not compared because too many have failed. It counts
    /// towards the failures of the connection.
    Failed,
    /// The request was no login, or the login failed for another reason than its secret.
    NoAttempt,
}

fn too_late() -> CloseReason {
    CloseReason::TimedOut("no login within the time for it".into())
}
