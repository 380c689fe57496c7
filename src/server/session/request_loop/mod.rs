//! Takes the frames of a logged-in member, one after the other.
//!
//! Requests are begun in the order they arrive. Most are also finished before the next one is
//! looked at; those that may take long run beside the later ones, a bounded number of them: then
//! the session stops reading until one is done.

mod pending_uploads;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::io::AsyncRead;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tracing::Instrument;

use crate::connection::ReceiveError;
use crate::messages::Subscription;
use crate::protocol::{
    BadRequest, Call, Cancel, End as PutEnd, Frame, Get, GoodbyeReason, Logs, Nothing, Put,
    Request, Say, encode_ok,
};
use crate::server::authority::AuthorityState;
use crate::server::commands;
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::idle::Idle;
use crate::server::session::member::Member;
use crate::server::session::registry::Registration;
use crate::server::session::request_log::RequestLog;
use crate::server::session::request_loop::pending_uploads::SmallUploads;
use crate::server::session::responder::{ReplyOrder, Responder};
use crate::server::session::state::{CloseReason, Dialect, SessionState};
use crate::server::session::unauthenticated::Admitted;
use crate::server::transfer::download::{DownloadQueue, DownloadSource, PendingDownload};
use crate::server::transfer::progress::{Direction, TransferSubject};
use crate::server::transfer::registry::{TransferGuard, TransferRegistry};
use crate::server::transfer::small_upload;

/// Requests of a session at once that follow the log.
const MAX_FOLLOWERS: usize = 4;

/// The time limit for the goodbye to a session that the server cuts off.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(50);

/// The loop of a session whose user is known.
pub(crate) struct RequestLoop<'a, R> {
    session: &'a mut SessionState<R>,
    member: Member,
    /// Operators see it as long as it lasts.
    present: Registration,
    transfers: TransferRegistry,
    /// Created with the first small upload.
    uploads: Option<Box<SmallUploads>>,
    /// Created with the first download.
    downloads: Option<Arc<DownloadQueue>>,
    batches: Batches,
    /// Bounds the requests that are begun and not answered.
    unfinished: Arc<Semaphore>,
    /// Bounds the gets that send at once.
    sending: Arc<Semaphore>,
    /// Changes of what its user may do.
    changes: watch::Receiver<AuthorityState>,
    phase: SessionPhase,
    idle: Idle,
    /// Its user is connected as long as it lasts.
    attendance: Arc<Subscription>,
}

/// Whether the session begins new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SessionPhase {
    /// It begins every request.
    Serving,
    /// The server drains: requests that run may end, new ones are refused.
    Draining,
}

/// Whether a queue has items that the session has not offered to a worker since it added them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum BatchState {
    /// A worker has every item, or will take it.
    #[default]
    Claimed,
    /// The next pause of the client, or a request of another kind, starts a worker.
    Unclaimed,
}

/// The states of the session's two queues.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    pub(crate) uploads: BatchState,
    pub(crate) downloads: BatchState,
}

/// The next thing that the session reacts to.
enum LoopEvent {
    Frame(Result<Option<Frame>, ReceiveError>),
    /// Nothing has come of another frame.
    Pause,
    Drain,
    Drained,
    Idle,
    Stop,
    /// The user may not be here any more.
    Closed,
    Disconnected,
}

impl<'a, R: AsyncRead + Unpin + Send> RequestLoop<'a, R> {
    pub(crate) fn new(session: &'a mut SessionState<R>, admitted: Admitted) -> Self {
        let Admitted {
            member,
            since,
            inbox,
        } = admitted;
        let framed = session.dialect == Dialect::Framed;
        let lane = framed.then(|| session.outbox.events().clone());
        let messages = &session.shared.messages;
        let attendance = messages.subscribe(&member.party(), lane, inbox, since);
        let attendance = Arc::new(attendance);
        member.authority.add_subscription(&attendance);
        let config = session.shared.config();
        let limits = &config.limits;
        let unfinished = Arc::new(Semaphore::new(limits.requests));
        let transfers = TransferRegistry::new(unfinished.clone());
        let present = session.register(&member, transfers.running());
        Self {
            present,
            transfers,
            uploads: None,
            downloads: None,
            batches: Batches::default(),
            unfinished,
            sending: Arc::new(Semaphore::new(limits.transfers)),
            changes: member.authority.changes(),
            phase: SessionPhase::Serving,
            attendance,
            idle: Idle::new(limits.idle_timeout),
            session,
            member,
        }
    }

    /// Runs until the session ends, and says why it did.
    pub(crate) async fn run(mut self) -> CloseReason {
        let stop = self.present.stop().clone();
        let closed = self.member.authority.closed.clone();
        let outbox = self.session.outbox.clone();
        let mut following = pin!(commands::follow_access(
            self.member.clone(),
            Arc::clone(&self.attendance),
        ));
        loop {
            let event = if let Some(frame) = self.buffered_frame() {
                LoopEvent::Frame(frame)
            } else {
                tokio::select! {
                    biased;
                    () = closed.cancelled() => LoopEvent::Closed,
                    never = &mut following => match never {},
                    event = self.next_event() => event,
                }
            };
            let is_frame = matches!(event, LoopEvent::Frame(_));
            // Whatever a frame waits for, it does not outlive the connection or the right to be here.
            // Most wait for nothing, and are spared the queues of those who wait for the end.
            let handled = tokio::select! {
                biased;
                handled = self.handle(event) => handled,
                () = stop.cancelled() => Err(self.stop_reason()),
                () = closed.cancelled() => Err(CloseReason::Goodbye(GoodbyeReason::AccountClosed)),
                () = outbox.closed() => Err(CloseReason::Disconnected),
                never = &mut following => match never {},
            };
            if let Err(end) = handled {
                if let CloseReason::Goodbye(
                    reason @ (GoodbyeReason::Kicked | GoodbyeReason::AccountClosed),
                ) = end
                {
                    self.session.cut.cancel();
                    // Who reads nothing is not told.
                    let goodbye = self.session.say_goodbye(reason);
                    // Boxed: a session that idles for hours does not keep the room for it.
                    let _ = Box::pin(timeout(GOODBYE_TIMEOUT, goodbye)).await;
                }
                return end;
            }
            if is_frame {
                self.idle.life().touch();
            }
        }
    }

    /// Why the session is to end at once.
    fn stop_reason(&self) -> CloseReason {
        CloseReason::Goodbye(if self.present.is_kicked() {
            GoodbyeReason::Kicked
        } else {
            GoodbyeReason::ShuttingDown
        })
    }

    async fn next_event(&mut self) -> LoopEvent {
        let has_unclaimed_batch = self.has_unclaimed_batch();
        let SessionState {
            receiver,
            outbox,
            tasks,
            shutdown,
            ..
        } = &mut *self.session;
        let received = async {
            if has_unclaimed_batch {
                let frame = receiver.next_if_started().await;
                frame.map_or(LoopEvent::Pause, LoopEvent::Frame)
            } else {
                LoopEvent::Frame(receiver.next().await)
            }
        };
        tokio::select! {
            biased;
            () = self.present.stop().cancelled() => LoopEvent::Stop,
            () = outbox.closed() => LoopEvent::Disconnected,
            () = shutdown.drain.cancelled(), if self.phase == SessionPhase::Serving => LoopEvent::Drain,
            () = tasks.wait(), if self.phase == SessionPhase::Draining => LoopEvent::Drained,
            event = received => event,
            () = self.idle.is_over(|| !tasks.is_empty()) => LoopEvent::Idle,
        }
    }

    /// The next frame if it is here already and nothing comes before it: of many requests in a row
    /// only the last waits for all that a session waits for.
    fn buffered_frame(&mut self) -> Option<Result<Option<Frame>, ReceiveError>> {
        let is_due = self.present.stop().is_cancelled()
            || self.session.shutdown.drain.is_cancelled()
            || self.member.authority.closed.is_cancelled();
        // What follows the change is looked at once before the next frame.
        let has_changed = self.changes.has_changed().is_ok_and(|changed| changed);
        if has_changed {
            self.changes.mark_unchanged();
        }
        if is_due || has_changed {
            return None;
        }
        self.session.receiver.next().now_or_never()
    }

    async fn handle(&mut self, event: LoopEvent) -> Result<(), CloseReason> {
        match event {
            LoopEvent::Frame(frame) => match frame? {
                None => self.disconnected().await,
                Some(Frame::Data { stream, chunk }) if self.is_pending(stream) => {
                    Box::pin(self.push_data(chunk)).await
                }
                Some(Frame::Data { stream, chunk }) => {
                    if self.has_unclaimed_batch() {
                        Box::pin(self.start_batches()).await?;
                    }
                    Ok(self.transfers.data(stream, chunk).await?)
                }
                Some(Frame::Control(json)) => match Request::parse(&json) {
                    // Boxed: only while it works does a session need room for that.
                    Ok((id, request)) => Box::pin(self.start_request(id, request)).await,
                    Err(bad) => self.refuse(bad).await,
                },
            },
            LoopEvent::Pause => Box::pin(self.start_batches()).await,
            LoopEvent::Drain => {
                Box::pin(self.start_batches()).await?;
                self.phase = SessionPhase::Draining;
                self.session.tasks.close();
                Ok(self
                    .session
                    .say_goodbye(GoodbyeReason::ShuttingDown)
                    .await?)
            }
            LoopEvent::Idle => {
                let reason = GoodbyeReason::Idle;
                self.session.say_goodbye(reason).await?;
                Err(CloseReason::Goodbye(reason))
            }
            LoopEvent::Drained => Err(CloseReason::Goodbye(GoodbyeReason::ShuttingDown)),
            LoopEvent::Stop => Err(self.stop_reason()),
            LoopEvent::Closed => Err(CloseReason::Goodbye(GoodbyeReason::AccountClosed)),
            LoopEvent::Disconnected => Err(CloseReason::Disconnected),
        }
    }

    async fn start_request(&mut self, id: u32, request: Request) -> Result<(), CloseReason> {
        match &request {
            Request::End(end) if self.is_pending(id) => {
                return self.complete_upload(end.clone()).await;
            }
            // What has gathered may gather on.
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
    async fn execute<C: Command>(
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
    async fn run_in_order<C: Command>(
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
    async fn run_concurrently<C: Command>(
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
    async fn say(&mut self, log: RequestLog, id: u32, say: Say) -> Result<(), CloseReason> {
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

    async fn get(&mut self, log: RequestLog, id: u32, get: Get) -> Result<(), CloseReason> {
        let Some(transfer) = self.start(&log, id, Direction::Get, None) else {
            return self.finish(log, Err(duplicate_id(id))).await;
        };
        let path = match self.member.resolve(&get.path) {
            Ok(path) => path,
            Err(error) => {
                drop(transfer);
                return self.finish(log, Err(error)).await;
            }
        };
        let permit = if let Ok(permit) = self.unfinished.clone().try_acquire_owned() {
            Some(permit)
        } else {
            // What is waited for may be among those that gather.
            self.start_downloads();
            self.permit().await
        };
        let download = PendingDownload {
            id,
            get,
            log,
            transfer,
            permit,
        };
        if self.member.is_paced() {
            let sending = Arc::clone(&self.sending);
            let (member, responder) = (self.member.clone(), self.responder());
            self.spawn(send_large(download, member, responder, sending));
            return Ok(());
        }
        let view = self.member.view();
        let downloads = self.downloads.get_or_insert_default();
        downloads.add(download, DownloadSource { view, path });
        self.batches.downloads = BatchState::Unclaimed;
        Ok(())
    }

    /// Starts a worker for the downloads that wait, unless one runs: it takes them then.
    fn start_downloads(&mut self) {
        self.batches.downloads = BatchState::Claimed;
        let Some(queue) = self.downloads.as_ref().filter(|queue| queue.claim_worker()) else {
            return;
        };
        let queue = Arc::clone(queue);
        let (member, responder) = (self.member.clone(), self.responder());
        let sending = Arc::clone(&self.sending);
        let tasks = self.session.tasks.clone();
        let life = self.idle.life();
        self.spawn(async move {
            let (large_member, large_responder) = (member.clone(), responder.clone());
            queue
                .work(member, responder, |download| {
                    let member = large_member.clone();
                    let responder = large_responder.clone();
                    let sending = send_large(download, member, responder, Arc::clone(&sending));
                    let life = life.clone();
                    let work = async move {
                        sending.await;
                        life.touch();
                    };
                    tasks.spawn(work.in_current_span());
                })
                .await;
        });
    }

    /// Sends lines of the log beside all else, for as long as they are wanted.
    async fn logs(&mut self, log: RequestLog, id: u32, logs: Logs) -> Result<(), CloseReason> {
        if logs.follow && self.transfers.followers() >= MAX_FOLLOWERS {
            let refused = CommandError::TooManyFollowers(MAX_FOLLOWERS);
            return self.finish(log, Err(refused)).await;
        }
        let Some(transfer) = self.start(&log, id, Direction::Logs, None) else {
            return self.finish(log, Err(duplicate_id(id))).await;
        };
        // One that never ends by itself takes no place of those that do.
        let permit = if logs.follow {
            None
        } else {
            self.permit().await
        };
        let member = self.member.clone();
        let responder = self.responder();
        let drain = self.session.shutdown.drain.clone();
        self.spawn(async move {
            let outbox = &responder.outbox;
            let work = pin!(async move {
                commands::logs(id, logs, &member, outbox, &transfer, &drain).await
            });
            let order = ReplyOrder::AfterData;
            responder.complete(log, order, permit, work).await;
        });
        Ok(())
    }

    async fn put(&mut self, log: RequestLog, id: u32, put: Put) -> Result<(), CloseReason> {
        self.transfers.check_put(id)?;
        let Some(transfer) = self.start(&log, id, Direction::Put, put.size) else {
            self.transfers.ignore_put(id);
            return self.finish(log, Err(duplicate_id(id))).await;
        };
        if self.session.dialect == Dialect::Classic {
            // What is kept could not be resumed, and would only take up the quota.
            self.transfers.reject(id);
        } else if small_upload::is_small(&put) && !self.member.is_paced() {
            self.collect(log, id, put, transfer);
            return Ok(());
        }
        self.open_put(log, id, put, transfer).await
    }

    /// Enters a transfer; `None` if its id is taken.
    fn start(
        &self,
        log: &RequestLog,
        id: u32,
        direction: Direction,
        size: Option<u64>,
    ) -> Option<TransferGuard> {
        let what = TransferSubject {
            direction,
            path: log.path().unwrap_or_default().to_owned(),
            size,
            traffic: Arc::clone(&self.session.shared.traffic),
        };
        self.transfers.start(id, &self.session.gone, what)
    }

    /// Has a task take the data of a put as it comes.
    async fn open_put(
        &mut self,
        log: RequestLog,
        id: u32,
        put: Put,
        transfer: TransferGuard,
    ) -> Result<(), CloseReason> {
        let incoming = match self.transfers.open_put(id, put.size) {
            Ok(incoming) => incoming,
            Err(error) => {
                drop(transfer);
                return self.finish(log, Err(error)).await;
            }
        };
        let member = self.member.clone();
        let responder = self.responder();
        self.spawn(async move {
            let outbox = &responder.outbox;
            let work = pin!(async move {
                commands::put(id, put, &member, outbox, incoming, &transfer).await
            });
            let order = ReplyOrder::BeforeData;
            responder.complete(log, order, None, work).await;
        });
        Ok(())
    }

    async fn end(&mut self, id: u32, end: PutEnd) -> Result<(), CloseReason> {
        if self.transfers.end(id, end).await {
            return Ok(());
        }
        let message = format!("there is no put with id {id} that waits for its end");
        let metrics = &self.session.shared.metrics;
        let lines = Arc::clone(&self.member.lines);
        let log = RequestLog::new(metrics, lines, id, &PutEnd::COMMAND, None);
        self.finish(log, Err(CommandError::invalid_field("id", message)))
            .await
    }

    async fn cancel(
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

    /// The peer sends nothing more, but may still read: transfers whose bytes are all here or go
    /// its way may end. What nobody may be waiting for any more is given up.
    async fn disconnected(&mut self) -> Result<(), CloseReason> {
        self.member.gone.cancel();
        Box::pin(self.start_batches()).await?;
        self.wait_for_tasks().await;
        Err(CloseReason::Disconnected)
    }

    /// Waits until all that was asked before is answered.
    async fn wait_for_tasks(&mut self) {
        self.transfers.close_inputs();
        self.transfers.end_logs();
        self.session.tasks.close();
        self.session.tasks.wait().await;
    }

    /// Answers once all that was asked before is answered.
    async fn quit(&mut self, log: RequestLog, id: u32) -> Result<(), CloseReason> {
        self.wait_for_tasks().await;
        // Who is told that the session has ended can rely on it.
        self.session
            .shared
            .datagrams
            .revoke_tickets(&self.session.id);
        // What was not written by now comes at the next login: nothing comes behind the reply.
        self.session.outbox.events().close();
        let reply = log.close(Ok(encode_ok(id, &Nothing {})).into());
        self.session.outbox.send_after_data(reply).await?;
        Err(CloseReason::Quit)
    }

    async fn finish(
        &self,
        log: RequestLog,
        reply: Result<Bytes, CommandError>,
    ) -> Result<(), CloseReason> {
        Ok(log.finish(&self.session.outbox, reply.into()).await?)
    }

    async fn refuse(&mut self, bad: BadRequest) -> Result<(), CloseReason> {
        Box::pin(self.start_batches()).await?;
        if bad.cmd == Some("put") {
            self.transfers.check_put(bad.id)?;
            self.transfers.ignore_put(bad.id);
        }
        let SessionState { shared, outbox, .. } = &*self.session;
        let lines = Arc::clone(&self.member.lines);
        Ok(RequestLog::refuse(&shared.metrics, lines, outbox, bad).await?)
    }

    fn open_log(&self, id: u32, request: &Request) -> RequestLog {
        let path = request.path().map(|path| self.absolute(path));
        let to = request.to().map(|path| self.absolute(path));
        let metrics = &self.session.shared.metrics;
        let lines = Arc::clone(&self.member.lines);
        RequestLog::new(metrics, lines, id, request.command(), path).with_to(to)
    }

    /// A path for the log: absolute where it can be resolved, as it came where not.
    fn absolute(&self, path: &str) -> String {
        match self.member.cwd.resolve(path) {
            Ok(path) => path.to_string(),
            Err(_) => path.chars().take(200).collect(),
        }
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.unfinished.clone().acquire_owned().await.ok()
    }

    /// Completes the requests of this session's tasks.
    fn responder(&self) -> Responder {
        Responder {
            outbox: self.session.outbox.clone(),
            gone: self.session.gone.clone(),
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let life = self.idle.life();
        let work = async move {
            work.await;
            life.touch();
        };
        self.session.tasks.spawn(work.in_current_span());
    }
}

/// Sends one file in chunks, once `sending` has a permit.
async fn send_large(
    download: PendingDownload,
    member: Member,
    responder: Responder,
    sending: Arc<Semaphore>,
) {
    let PendingDownload {
        id,
        get,
        log,
        transfer,
        permit,
    } = download;
    let outbox = &responder.outbox;
    let work =
        pin!(async move { commands::get(id, get, &member, outbox, &sending, &transfer).await });
    let order = ReplyOrder::AfterData;
    responder.complete(log, order, permit, work).await;
}

fn duplicate_id(id: u32) -> CommandError {
    let message = format!("id {id} is that of an unfinished get, put or logs");
    CommandError::invalid_field("id", message)
}
