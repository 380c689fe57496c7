//! The dispatch of requests: the check against the table of commands, and one line for each command.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::protocol::{
    BadRequest, Call, Cancel, CommandInfo, CopyRange, End, Nothing, Put, Request, encode_ok,
};
use crate::server::commands;
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::close_reason::CloseReason;
use crate::server::session::request_log::RequestLog;
use crate::server::session::request_loop::state::{RequestLoop, SessionPhase};
use crate::server::session::responder::ReplyOrder;
use crate::server::session::state::SessionState;
use crate::server::transfer::session_transfers::StrayData;

impl<R: AsyncRead + Unpin + Send> RequestLoop<'_, R> {
    /// Logs a request and runs it, if its row in the table of commands allows that now.
    pub(super) async fn start_request(
        &mut self,
        id: u32,
        request: Request,
    ) -> Result<(), CloseReason> {
        match &request {
            Request::End(end) if self.is_collecting(id) => {
                return self.queue_upload(end).await;
            }
            // A request of the same kind does not end the current batch.
            Request::Put(_) => self.stream_collected().await?,
            Request::Get(_) => self.start_uploads().await?,
            _ => self.start_batches().await?,
        }
        let log = self.open_log(id, &request);
        self.session.shared.wait_for_audit(request.command()).await;
        if let Err(error) = self.admit_command(request.command()) {
            if matches!(request, Request::Put(_)) {
                self.discard_put(id)?;
            }
            return self.finish(log, Err(error)).await;
        }
        self.dispatch(log, id, request).await
    }

    /// The one check of what the table of commands says about a command of a logged-in user.
    fn admit_command(&self, command: &CommandInfo) -> Result<(), CommandError> {
        self.member.authorize(command)?;
        if self.phase == SessionPhase::Draining && !command.works_while_draining {
            return Err(CommandError::ShuttingDown);
        }
        Ok(())
    }

    async fn dispatch(
        &mut self,
        log: RequestLog,
        id: u32,
        request: Request,
    ) -> Result<(), CloseReason> {
        match request {
            Request::Hello(_) | Request::Help(_) => {
                let SessionState { shared, peer, .. } = &*self.session;
                let reply = commands::answer_without_user(id, &request, shared, peer);
                self.finish(log, reply).await
            }
            Request::Login(_) => {
                let user = self.member.authority.name().to_owned();
                self.finish(log, Err(CommandError::LoggedIn(user))).await
            }
            Request::Quit(_) => self.quit(log, id).await,
            Request::End(end) => self.end(log, id, end).await,
            Request::CopyRange(copy) => self.copy(log, id, copy).await,
            Request::Cancel(cancel) => self.cancel(log, id, &cancel).await,
            Request::Put(put) => self.put(log, id, put).await,
            Request::Get(get) => self.get(log, id, get).await,
            Request::Chunks(chunks) => self.chunks(log, id, chunks).await,
            Request::Logs(logs) => self.logs(log, id, logs).await,
            Request::Say(say) => self.say(log, id, say).await,
            Request::Watch(watch) => self.watch(log, id, watch).await,
            Request::Unwatch(unwatch) => self.unwatch(log, id, &unwatch).await,
            Request::Ticket(_) => self.ticket(log, id).await,
            Request::Drain(drain) => self.drain(log, id, &drain).await,
            Request::Passwd(command) => {
                self.execute(log, id, command).await?;
                self.member.end_if_guessing()
            }
            Request::Hash(command) => self.execute(log, id, command).await,
            Request::Cp(command) => self.execute(log, id, command).await,
            Request::Rm(command) => self.execute(log, id, command).await,
            Request::Whoami(command) => self.execute(log, id, command).await,
            Request::Ping(command) => self.execute(log, id, command).await,
            Request::Tokens(command) => self.execute(log, id, command).await,
            Request::TokenAdd(command) => self.execute(log, id, command).await,
            Request::TokenRemove(command) => self.execute(log, id, command).await,
            Request::Pwd(command) => self.execute(log, id, command).await,
            Request::Cd(command) => self.execute(log, id, command).await,
            Request::Ls(ls) if ls.recursive => self.list_tree(log, id, ls).await,
            Request::Ls(command) => self.execute(log, id, command).await,
            Request::Stat(command) => self.execute(log, id, command).await,
            Request::SetStat(command) => self.execute(log, id, command).await,
            Request::Mkdir(command) => self.execute(log, id, command).await,
            Request::Mv(command) => self.execute(log, id, command).await,
            Request::Uploads(command) => self.execute(log, id, command).await,
            Request::Discard(command) => self.execute(log, id, command).await,
            Request::Df(command) => self.execute(log, id, command).await,
            Request::Who(command) => self.execute(log, id, command).await,
            Request::History(command) => self.execute(log, id, command).await,
            Request::Join(command) => self.execute(log, id, command).await,
            Request::Leave(command) => self.execute(log, id, command).await,
            Request::SendTo(command) => self.execute(log, id, command).await,
            Request::Offers(command) => self.execute(log, id, command).await,
            Request::Accept(command) => self.execute(log, id, command).await,
            Request::Decline(command) => self.execute(log, id, command).await,
            Request::Users(command) => self.execute(log, id, command).await,
            Request::UserAdd(command) => self.execute(log, id, command).await,
            Request::UserSet(command) => self.execute(log, id, command).await,
            Request::UserPasswd(command) => self.execute(log, id, command).await,
            Request::UserRemove(command) => self.execute(log, id, command).await,
            Request::Folders(command) => self.execute(log, id, command).await,
            Request::FolderAdd(command) => self.execute(log, id, command).await,
            Request::FolderGrant(command) => self.execute(log, id, command).await,
            Request::FolderRevoke(command) => self.execute(log, id, command).await,
            Request::FolderRemove(command) => self.execute(log, id, command).await,
            Request::Kick(command) => self.execute(log, id, command).await,
            Request::ReloadSettings(command) => self.execute(log, id, command).await,
            Request::SetLogLevel(command) => self.execute(log, id, command).await,
            Request::Sessions(command) => self.execute(log, id, command).await,
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
            let work = pin!(async {
                // The rights may have changed during the wait for the permit.
                member.authorize(&C::COMMAND)?;
                commands::run(id, command, &mut member).await
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

    /// Answers a malformed request.
    pub(super) async fn refuse(&mut self, mut bad: BadRequest) -> Result<(), CloseReason> {
        Box::pin(self.start_batches()).await?;
        match bad.cmd {
            Some(Put::CMD) => self.discard_put(bad.id)?,
            // A malformed `end` or `copy` ends its put, whose final reply is the refusal.
            Some(End::CMD) if self.transfers.end(bad.id, Err(bad.clone())).await => return Ok(()),
            Some(CopyRange::CMD) if self.transfers.fail(bad.id, bad.clone()).await => return Ok(()),
            _ => {}
        }
        // With the id of an unfinished transfer the refusal would look like the final reply of that.
        if self.transfers.running().contains(bad.id) {
            bad.id = 0;
        }
        let SessionState { shared, outbox, .. } = &*self.session;
        let lines = Arc::clone(&self.member.lines);
        // The fields of a command are no business of users that may not run it.
        let is_named = |command: &&CommandInfo| bad.cmd == Some(command.name);
        if let Some(command) = Request::COMMANDS.iter().find(is_named)
            && command.is_admin_only
            && let Err(error) = self.member.authorize(command)
        {
            let log = RequestLog::new(&shared.metrics, lines, bad.id, command, None);
            return self.finish(log, Err(error)).await;
        }
        Ok(RequestLog::refuse(&shared.metrics, lines, outbox, bad).await?)
    }

    /// Discards the data of a put that is refused: its client may send it before it has the reply.
    fn discard_put(&mut self, id: u32) -> Result<(), StrayData> {
        self.transfers.check_upload_id(id)?;
        self.transfers.discard_upload(id);
        Ok(())
    }

    pub(super) fn open_log(&self, id: u32, request: &Request) -> RequestLog {
        let path = request.path().map(|path| self.absolute(path));
        let to = request.to().map(|path| self.absolute(path));
        let metrics = &self.session.shared.metrics;
        let lines = Arc::clone(&self.member.lines);
        RequestLog::new(metrics, lines, id, request.command(), path).with_to(to)
    }

    /// A path for the log: absolute if it can be resolved, else as the client wrote it.
    pub(super) fn absolute(&self, path: &str) -> String {
        match self.member.cwd.resolve(path) {
            Ok(path) => path.to_string(),
            Err(_) => path.chars().take(200).collect(),
        }
    }
}
