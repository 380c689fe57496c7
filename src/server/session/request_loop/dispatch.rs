//! The start and the end of a request: which commands run in order, and which run beside the later
//! ones.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::protocol::{BadRequest, Call, Cancel, End, Nothing, Put, Request, Say, encode_ok};
use crate::server::commands;
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::close_reason::CloseReason;
use crate::server::session::request_log::RequestLog;
use crate::server::session::request_loop::state::{RequestLoop, SessionPhase};
use crate::server::session::responder::ReplyOrder;
use crate::server::session::state::SessionState;

impl<R: AsyncRead + Unpin + Send> RequestLoop<'_, R> {
    pub(super) async fn start_request(
        &mut self,
        id: u32,
        request: Request,
    ) -> Result<(), CloseReason> {
        match &request {
            Request::End(end) if self.is_pending(id) => {
                return self.complete_upload(end.clone()).await;
            }
            // A request of the same kind does not end the current batch.
            Request::Put(_) => self.open_pending().await?,
            Request::Get(_) => self.start_uploads().await?,
            _ => self.start_batches().await?,
        }
        let log = self.open_log(id, &request);
        if log.is_audited() {
            self.session.shared.wait_for_audit().await;
        }
        if !request.command().is_unchecked
            && let Err(error) = self.member.check()
        {
            if matches!(request, Request::Put(_)) {
                self.transfers.check_put(id)?;
                self.transfers.ignore_put(id);
            }
            return self.finish(log, Err(error)).await;
        }
        match request {
            Request::End(end) => {
                log.withdraw();
                self.end(id, end).await
            }
            Request::Cancel(cancel) => self.cancel(log, id, &cancel).await,
            Request::Quit(_) => self.quit(log, id).await,
            Request::Put(_) if self.phase == SessionPhase::Draining => {
                self.transfers.check_put(id)?;
                self.transfers.ignore_put(id);
                self.finish(log, Err(CommandError::ShuttingDown)).await
            }
            _ if self.phase == SessionPhase::Draining => {
                self.finish(log, Err(CommandError::ShuttingDown)).await
            }
            Request::Put(put) => self.put(log, id, put).await,
            Request::Get(get) => self.get(log, id, get).await,
            Request::Hash(command) => self.execute(log, id, command).await,
            Request::Cp(command) => self.execute(log, id, command).await,
            Request::Rm(command) => self.execute(log, id, command).await,
            Request::Whoami(command) => self.execute(log, id, command).await,
            Request::Ping(command) => self.execute(log, id, command).await,
            Request::Passwd(command) => {
                self.execute(log, id, command).await?;
                self.member.stop_guessing()
            }
            Request::Pwd(command) => self.execute(log, id, command).await,
            Request::Cd(command) => self.execute(log, id, command).await,
            Request::Ls(command) => self.execute(log, id, command).await,
            Request::Stat(command) => self.execute(log, id, command).await,
            Request::Mkdir(command) => self.execute(log, id, command).await,
            Request::Mv(command) => self.execute(log, id, command).await,
            Request::Uploads(command) => self.execute(log, id, command).await,
            Request::Discard(command) => self.execute(log, id, command).await,
            Request::Df(command) => self.execute(log, id, command).await,
            Request::Say(say) => self.say(log, id, say).await,
            Request::Watch(watch) => {
                let work = commands::watch(id, watch, &self.member, &self.attendance);
                let outcome = log.guard(work).await;
                Ok(log.finish(&self.session.outbox, outcome).await?)
            }
            Request::Unwatch(unwatch) => {
                let reply = commands::unwatch(id, &unwatch, &self.attendance).await;
                self.finish(log, reply).await
            }
            Request::Who(command) => self.execute(log, id, command).await,
            Request::History(command) => self.execute(log, id, command).await,
            Request::Join(command) => self.execute(log, id, command).await,
            Request::Leave(command) => self.execute(log, id, command).await,
            Request::SendTo(command) => self.execute(log, id, command).await,
            Request::Offers(command) => self.execute(log, id, command).await,
            Request::Accept(command) => self.execute(log, id, command).await,
            Request::Decline(command) => self.execute(log, id, command).await,
            Request::Users(command) => self.execute(log, id, command).await,
            Request::Kick(command) => self.execute(log, id, command).await,
            Request::ReloadSettings(command) => self.execute(log, id, command).await,
            Request::Drain(drain) => {
                let reply = commands::drain(id, &drain, &self.member, &self.session.shutdown);
                self.finish(log, reply).await
            }
            Request::SetLogLevel(command) => self.execute(log, id, command).await,
            Request::Logs(logs) => self.logs(log, id, logs).await,
            Request::Sessions(command) => self.execute(log, id, command).await,
            Request::Ticket(_) => {
                let (peer, events) = (&self.session.peer, self.session.outbox.events());
                let reply = commands::ticket(id, &self.member, peer, events);
                self.finish(log, reply).await
            }
            Request::Hello(_) | Request::Help(_) => {
                let reply = commands::visit(id, &request, &self.session.shared, &self.session.peer);
                self.finish(log, reply).await
            }
            Request::Login(_) => {
                let user = self.member.authority.name().to_owned();
                self.finish(log, Err(CommandError::LoggedIn(user))).await
            }
        }
    }

    /// Runs a command in order or concurrently, as the table of commands says.
    pub(super) async fn execute<C: Command>(
        &mut self,
        log: RequestLog,
        id: u32,
        command: C,
    ) -> Result<(), CloseReason> {
        if C::COMMAND.is_concurrent {
            self.run_concurrently(log, id, command).await
        } else {
            self.run_in_order(log, id, command).await
        }
    }

    /// Replies to a command before the session reads the next frame.
    pub(super) async fn run_in_order<C: Command>(
        &mut self,
        log: RequestLog,
        id: u32,
        command: C,
    ) -> Result<(), CloseReason> {
        let outcome = log
            .guard(commands::run(id, command, &mut self.member))
            .await;
        Ok(log.finish(&self.session.outbox, outcome).await?)
    }

    /// Runs a command in a task; the session reads later requests meanwhile.
    pub(super) async fn run_concurrently<C: Command>(
        &mut self,
        log: RequestLog,
        id: u32,
        command: C,
    ) -> Result<(), CloseReason> {
        let permit = self.permit().await;
        let mut member = self.member.clone();
        let responder = self.responder();
        self.spawn(async move {
            let work = pin!(commands::run(id, command, &mut member));
            let order = ReplyOrder::BeforeData;
            responder.complete(log, order, permit, work).await;
        });
        Ok(())
    }

    /// Messages of a session keep their order, but do not wait for each other to be stored.
    pub(super) async fn say(
        &mut self,
        log: RequestLog,
        id: u32,
        say: Say,
    ) -> Result<(), CloseReason> {
        let permit = self.permit().await;
        let begun = commands::say(say, &self.member).await;
        let message = match begun {
            Ok(message) => message,
            Err(error) => return self.finish(log, Err(error)).await,
        };
        let responder = self.responder();
        let shared = Arc::clone(&self.session.shared);
        self.spawn(async move {
            let work = pin!(async {
                let reply = message.stored().await?;
                shared.metrics.record_message(&reply);
                Ok(encode_ok(id, &reply))
            });
            let order = ReplyOrder::BeforeData;
            responder.complete(log, order, permit, work).await;
        });
        Ok(())
    }

    pub(super) async fn cancel(
        &mut self,
        log: RequestLog,
        id: u32,
        cancel: &Cancel,
    ) -> Result<(), CloseReason> {
        let reply = if self.transfers.cancel(cancel.target) {
            Ok(encode_ok(id, &Nothing {}))
        } else {
            Err(CommandError::NoTransfer(cancel.target))
        };
        self.finish(log, reply).await
    }

    pub(super) async fn finish(
        &self,
        log: RequestLog,
        reply: Result<Bytes, CommandError>,
    ) -> Result<(), CloseReason> {
        Ok(log.finish(&self.session.outbox, reply.into()).await?)
    }

    pub(super) async fn refuse(&mut self, bad: BadRequest) -> Result<(), CloseReason> {
        Box::pin(self.start_batches()).await?;
        match bad.cmd {
            Some(Put::CMD) => {
                self.transfers.check_put(bad.id)?;
                self.transfers.ignore_put(bad.id);
            }
            // A malformed `end` ends its put, whose final reply is the refusal.
            Some(End::CMD) if self.transfers.end(bad.id, Err(bad.clone())).await => return Ok(()),
            _ => {}
        }
        let SessionState { shared, outbox, .. } = &*self.session;
        let lines = Arc::clone(&self.member.lines);
        Ok(RequestLog::refuse(&shared.metrics, lines, outbox, bad).await?)
    }

    pub(super) fn open_log(&self, id: u32, request: &Request) -> RequestLog {
        let path = request.path().map(|path| self.absolute(path));
        let to = request.to().map(|path| self.absolute(path));
        let metrics = &self.session.shared.metrics;
        let lines = Arc::clone(&self.member.lines);
        RequestLog::new(metrics, lines, id, request.command(), path).with_to(to)
    }

    /// A path for the log: absolute where it can be resolved, as it came where not.
    pub(super) fn absolute(&self, path: &str) -> String {
        match self.member.cwd.resolve(path) {
            Ok(path) => path.to_string(),
            Err(_) => path.chars().take(200).collect(),
        }
    }
}
