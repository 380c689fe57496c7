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
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::connection::{Outbox, ReceiveError};
use crate::messages::Subscription;
use crate::protocol::{
    BadRequest, Cancel, End as PutEnd, Frame, Get, GoodbyeReason, Logs, Nothing, Put, Request, Say,
    encode_ok,
};
use crate::server::authority::AuthorityState;
use crate::server::commands;
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::idle::Idle;
use crate::server::session::member::Member;
use crate::server::session::registry::Registration;
use crate::server::session::request_log::RequestLog;
use crate::server::session::request_loop::pending_uploads::SmallPut;
use crate::server::session::state::{CloseReason, Dialect, SessionState};
use crate::server::session::unauthenticated::Admitted;
use crate::server::transfer::coalescer;
use crate::server::transfer::download::{
    DownloadCoalescer, DownloadSource, PendingDownload, Responder,
};
use crate::server::transfer::progress::{Direction, TransferSubject};
use crate::server::transfer::registry::{TransferGuard, TransferRegistry};

/// Requests of a session at once that follow the log.
const MAX_FOLLOWERS: usize = 4;

/// For a session that is cut off to be told why.
const GOODBYE_REPLY_TIMEOUT: Duration = Duration::from_millis(50);

/// The loop of a session whose user is known.
pub(crate) struct RequestLoop<'a, R> {
    session: &'a mut SessionState<R>,
    member: Member,
    /// Operators see it as long as it lasts.
    present: Registration,
    transfers: TransferRegistry,
    /// Made when the first small put comes.
    small: Option<Box<SmallPut>>,
    /// Made when the first get comes.
    gets: Option<Arc<DownloadCoalescer>>,
    /// Some may have gathered there of which nobody has told a worker.
    asked: bool,
    /// Bounds the requests that are begun and not answered.
    unfinished: Arc<Semaphore>,
    /// Bounds the gets that send at once.
    sending: Arc<Semaphore>,
    /// Changes of what its user may do.
    changes: watch::Receiver<AuthorityState>,
    draining: bool,
    idle: Idle,
    /// Its user is connected as long as it lasts.
    attendance: Arc<Subscription>,
}

/// What a session waits for.
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
            small: None,
            gets: None,
            asked: false,
            unfinished,
            sending: Arc::new(Semaphore::new(limits.transfers)),
            changes: member.authority.changes(),
            draining: false,
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
            let turn = if let Some(frame) = self.frame_at_hand() {
                LoopEvent::Frame(frame)
            } else {
                tokio::select! {
                    biased;
                    () = closed.cancelled() => LoopEvent::Closed,
                    never = &mut following => match never {},
                    turn = self.next_event() => turn,
                }
            };
            let is_frame = matches!(turn, LoopEvent::Frame(_));
            // Whatever a frame waits for, it does not outlive the connection or the right to be here.
            // Most wait for nothing, and are spared the queues of those who wait for the end.
            let taken = tokio::select! {
                biased;
                taken = self.handle(turn) => taken,
                () = stop.cancelled() => Err(self.cut()),
                () = closed.cancelled() => Err(CloseReason::Goodbye(GoodbyeReason::AccountClosed)),
                () = outbox.closed() => Err(CloseReason::Disconnected),
                never = &mut following => match never {},
            };
            if let Err(end) = taken {
                if let CloseReason::Goodbye(
                    reason @ (GoodbyeReason::Kicked | GoodbyeReason::AccountClosed),
                ) = end
                {
                    self.session.cut.cancel();
                    // Who reads nothing is not told.
                    let goodbye = self.session.say_goodbye(reason);
                    // Boxed: a session that idles for hours does not keep the room for it.
                    let _ = Box::pin(timeout(GOODBYE_REPLY_TIMEOUT, goodbye)).await;
                }
                return end;
            }
            if is_frame {
                self.idle.life().touch();
            }
        }
    }

    /// Why the session is to end at once.
    fn cut(&self) -> CloseReason {
        CloseReason::Goodbye(if self.present.is_kicked() {
            GoodbyeReason::Kicked
        } else {
            GoodbyeReason::ShuttingDown
        })
    }

    async fn next_event(&mut self) -> LoopEvent {
        let is_gathering = self.is_gathering();
        let SessionState {
            receiver,
            outbox,
            tasks,
            shutdown,
            ..
        } = &mut *self.session;
        let received = async {
            if is_gathering {
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
            () = shutdown.drain.cancelled(), if !self.draining => LoopEvent::Drain,
            () = tasks.wait(), if self.draining => LoopEvent::Drained,
            turn = received => turn,
            () = self.idle.is_over(|| !tasks.is_empty()) => LoopEvent::Idle,
        }
    }

    /// The next frame if it is here already and nothing comes before it: of many requests in a row
    /// only the last waits for all that a session waits for.
    fn frame_at_hand(&mut self) -> Option<Result<Option<Frame>, ReceiveError>> {
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

    async fn handle(&mut self, turn: LoopEvent) -> Result<(), CloseReason> {
        match turn {
            LoopEvent::Frame(frame) => match frame? {
                None => self.disconnected().await,
                Some(Frame::Data { stream, chunk }) if self.holds(stream) => {
                    Box::pin(self.hold_data(chunk)).await
                }
                Some(Frame::Data { stream, chunk }) => {
                    if self.is_gathering() {
                        Box::pin(self.settle_small()).await?;
                    }
                    Ok(self.transfers.data(stream, chunk).await?)
                }
                Some(Frame::Control(json)) => match Request::parse(&json) {
                    // Boxed: only while it works does a session need room for that.
                    Ok((id, request)) => Box::pin(self.start_request(id, request)).await,
                    Err(bad) => self.refuse(bad).await,
                },
            },
            LoopEvent::Pause => Box::pin(self.settle_small()).await,
            LoopEvent::Drain => {
                Box::pin(self.settle_small()).await?;
                self.draining = true;
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
            LoopEvent::Stop => Err(self.cut()),
            LoopEvent::Closed => Err(CloseReason::Goodbye(GoodbyeReason::AccountClosed)),
            LoopEvent::Disconnected => Err(CloseReason::Disconnected),
        }
    }

    async fn start_request(&mut self, id: u32, request: Request) -> Result<(), CloseReason> {
        match &request {
            Request::End(end) if self.holds(id) => return self.complete(end.clone()).await,
            // What has gathered may gather on.
            Request::Put(_) => self.open_held().await?,
            Request::Get(_) => self.settle_puts().await?,
            _ => self.settle_small().await?,
        }
        let job = self.job(id, &request);
        if job.is_audited() {
            self.session.shared.wait_for_audit().await;
        }
        if !asks_for_nothing(&request)
            && let Err(error) = self.member.check()
        {
            if matches!(request, Request::Put(_)) {
                self.transfers.check_put(id)?;
                self.transfers.ignore_put(id);
            }
            return self.finish(job, Err(error)).await;
        }
        match request {
            Request::End(end) => {
                job.withdraw();
                self.end(id, end).await
            }
            Request::Cancel(cancel) => self.cancel(job, id, &cancel).await,
            Request::Quit(_) => self.quit(job, id).await,
            Request::Put(_) if self.draining => {
                self.transfers.check_put(id)?;
                self.transfers.ignore_put(id);
                self.finish(job, Err(CommandError::ShuttingDown)).await
            }
            _ if self.draining => self.finish(job, Err(CommandError::ShuttingDown)).await,
            Request::Put(put) => self.put(job, id, put).await,
            Request::Get(get) => self.get(job, id, get).await,
            Request::Hash(command) => self.spawn_command(job, id, command).await,
            Request::Cp(command) => self.spawn_command(job, id, command).await,
            Request::Rm(command) => self.spawn_command(job, id, command).await,
            Request::Whoami(command) => self.in_order(job, id, command).await,
            Request::Ping(command) => self.in_order(job, id, command).await,
            Request::Passwd(command) => {
                self.in_order(job, id, command).await?;
                self.member.stop_guessing()
            }
            Request::Pwd(command) => self.in_order(job, id, command).await,
            Request::Cd(command) => self.in_order(job, id, command).await,
            Request::Ls(command) => self.in_order(job, id, command).await,
            Request::Stat(command) => self.in_order(job, id, command).await,
            Request::Mkdir(command) => self.in_order(job, id, command).await,
            Request::Mv(command) => self.in_order(job, id, command).await,
            Request::Uploads(command) => self.in_order(job, id, command).await,
            Request::Discard(command) => self.in_order(job, id, command).await,
            Request::Df(command) => self.in_order(job, id, command).await,
            Request::Say(say) => self.send_message(job, id, say).await,
            Request::Watch(watch) => {
                let work = commands::watch(id, watch, &self.member, &self.attendance);
                let outcome = job.guard(work).await;
                Ok(job.finish(&self.session.outbox, outcome).await?)
            }
            Request::Unwatch(unwatch) => {
                let reply = commands::unwatch(id, &unwatch, &self.attendance).await;
                self.finish(job, reply).await
            }
            Request::Who(command) => self.in_order(job, id, command).await,
            Request::History(command) => self.in_order(job, id, command).await,
            Request::Join(command) => self.in_order(job, id, command).await,
            Request::Leave(command) => self.in_order(job, id, command).await,
            Request::SendTo(command) => self.spawn_command(job, id, command).await,
            Request::Offers(command) => self.in_order(job, id, command).await,
            Request::Accept(command) => self.spawn_command(job, id, command).await,
            Request::Decline(command) => self.in_order(job, id, command).await,
            Request::Users(command) => self.in_order(job, id, command).await,
            Request::Kick(command) => self.in_order(job, id, command).await,
            Request::ReloadSettings(command) => self.in_order(job, id, command).await,
            Request::Drain(drain) => {
                let reply = commands::drain(id, &drain, &self.member, &self.session.shutdown);
                self.finish(job, reply).await
            }
            Request::SetLogLevel(command) => self.in_order(job, id, command).await,
            Request::Logs(logs) => self.logs(job, id, logs).await,
            Request::Sessions(command) => self.in_order(job, id, command).await,
            Request::Ticket(_) => {
                let (peer, events) = (&self.session.peer, self.session.outbox.events());
                let reply = commands::ticket(id, &self.member, peer, events);
                self.finish(job, reply).await
            }
            Request::Hello(_) | Request::Help(_) => {
                let reply = commands::visit(id, &request, &self.session.shared, &self.session.peer);
                self.finish(job, reply).await
            }
            Request::Login(_) => {
                let user = self.member.authority.name().to_owned();
                self.finish(job, Err(CommandError::LoggedIn(user))).await
            }
        }
    }

    /// Answers a command before the next frame is looked at.
    async fn in_order<C: Command>(
        &mut self,
        job: RequestLog,
        id: u32,
        command: C,
    ) -> Result<(), CloseReason> {
        let outcome = job
            .guard(commands::run(id, command, &mut self.member))
            .await;
        Ok(job.finish(&self.session.outbox, outcome).await?)
    }

    /// Runs a command beside the later ones.
    async fn spawn_command<C: Command>(
        &mut self,
        job: RequestLog,
        id: u32,
        command: C,
    ) -> Result<(), CloseReason> {
        let permit = self.permit().await;
        let mut member = self.member.clone();
        let (outbox, gone) = self.way_out();
        self.spawn(async move {
            let outcome = job.guard(commands::run(id, command, &mut member)).await;
            let reply = job.close(outcome);
            gone.run_until_cancelled(outbox.send(reply)).await;
            drop(permit);
        });
        Ok(())
    }

    /// Messages of a session keep their order, but do not wait for each other to be stored.
    async fn send_message(
        &mut self,
        job: RequestLog,
        id: u32,
        say: Say,
    ) -> Result<(), CloseReason> {
        let permit = self.permit().await;
        let begun = commands::say(say, &self.member).await;
        let (outbox, gone) = self.way_out();
        let said = match begun {
            Ok(said) => said,
            Err(error) => return self.finish(job, Err(error)).await,
        };
        let shared = Arc::clone(&self.session.shared);
        self.spawn(async move {
            let work = async {
                let reply = said.stored().await?;
                shared.metrics.record_message(&reply);
                Ok(encode_ok(id, &reply))
            };
            let outcome = job.guard(work).await;
            let reply = job.close(outcome);
            gone.run_until_cancelled(outbox.send(reply)).await;
            drop(permit);
        });
        Ok(())
    }

    async fn get(&mut self, job: RequestLog, id: u32, get: Get) -> Result<(), CloseReason> {
        let Some(underway) = self.start(&job, id, Direction::Get, None) else {
            return self.finish(job, Err(id_taken(id, "get").into())).await;
        };
        let path = match self.member.resolve(&get.path) {
            Ok(path) => path,
            Err(error) => {
                drop(underway);
                return self.finish(job, Err(error)).await;
            }
        };
        let permit = if let Ok(permit) = self.unfinished.clone().try_acquire_owned() {
            Some(permit)
        } else {
            // What is waited for may be among those that gather.
            self.begin_gets();
            self.permit().await
        };
        let asked = PendingDownload {
            id,
            get,
            job,
            underway,
            permit,
        };
        if self.member.is_paced() {
            self.spawn(send_alone(asked, self.member.clone(), self.get_out()));
            return Ok(());
        }
        let view = self.member.view();
        let gets = self.gets.get_or_insert_default();
        gets.add(asked, DownloadSource { view, path });
        self.asked = true;
        Ok(())
    }

    /// Has the disk begin with the gets that have gathered, unless it is at work: then it goes on
    /// with them.
    fn begin_gets(&mut self) {
        self.asked = false;
        let Some(gets) = self.gets.as_ref().filter(|gets| gets.wants_worker()) else {
            return;
        };
        let gets = Arc::clone(gets);
        let (member, out) = (self.member.clone(), self.get_out());
        let tasks = self.session.tasks.clone();
        let life = self.idle.life();
        self.spawn(async move {
            let (one, others) = (member.clone(), out.clone());
            gets.work(member, out, |asked| {
                let sending = send_alone(asked, one.clone(), others.clone());
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

    fn get_out(&self) -> Responder {
        let (outbox, gone) = self.way_out();
        let sending = self.sending.clone();
        Responder {
            outbox,
            gone,
            sending,
        }
    }

    /// Sends lines of the log beside all else, for as long as they are wanted.
    async fn logs(&mut self, job: RequestLog, id: u32, logs: Logs) -> Result<(), CloseReason> {
        if logs.follow && self.transfers.followers() >= MAX_FOLLOWERS {
            let refused = CommandError::TooManyFollowers(MAX_FOLLOWERS);
            return self.finish(job, Err(refused)).await;
        }
        let Some(underway) = self.start(&job, id, Direction::Logs, None) else {
            return self.finish(job, Err(id_taken(id, "logs").into())).await;
        };
        // One that never ends by itself takes no place of those that do.
        let permit = if logs.follow {
            None
        } else {
            self.permit().await
        };
        let member = self.member.clone();
        let (outbox, gone) = self.way_out();
        let drain = self.session.shutdown.drain.clone();
        self.spawn(async move {
            let work = commands::logs(id, logs, &member, &outbox, &underway, &drain);
            let outcome = job.guard(work).await;
            let reply = job.close(outcome);
            drop(underway);
            gone.run_until_cancelled(outbox.send_after_data(reply))
                .await;
            drop(permit);
        });
        Ok(())
    }

    async fn put(&mut self, job: RequestLog, id: u32, put: Put) -> Result<(), CloseReason> {
        self.transfers.check_put(id)?;
        let Some(underway) = self.start(&job, id, Direction::Put, put.size) else {
            self.transfers.ignore_put(id);
            return self.finish(job, Err(id_taken(id, "put").into())).await;
        };
        if self.session.dialect == Dialect::Classic {
            // What is kept could not be resumed, and would only take up the quota.
            self.transfers.reject(id);
        } else if coalescer::is_small(&put) && !self.member.is_paced() {
            self.hold(job, id, put, underway);
            return Ok(());
        }
        self.open_put(job, id, put, underway).await
    }

    /// Enters a transfer; `None` if its id is taken.
    fn start(
        &self,
        job: &RequestLog,
        id: u32,
        direction: Direction,
        size: Option<u64>,
    ) -> Option<TransferGuard> {
        let what = TransferSubject {
            direction,
            path: job.path().unwrap_or_default().to_owned(),
            size,
            traffic: Arc::clone(&self.session.shared.traffic),
        };
        self.transfers.start(id, &self.session.gone, what)
    }

    /// Has a task take the data of a put as it comes.
    async fn open_put(
        &mut self,
        job: RequestLog,
        id: u32,
        put: Put,
        underway: TransferGuard,
    ) -> Result<(), CloseReason> {
        let incoming = match self.transfers.open_put(id, put.size) {
            Ok(incoming) => incoming,
            Err(error) => {
                drop(underway);
                return self.finish(job, Err(error)).await;
            }
        };
        let member = self.member.clone();
        let (outbox, gone) = self.way_out();
        self.spawn(async move {
            let work = commands::put(id, put, &member, &outbox, incoming, &underway);
            let outcome = job.guard(work).await;
            let reply = job.close(outcome);
            drop(underway);
            gone.run_until_cancelled(outbox.send(reply)).await;
        });
        Ok(())
    }

    async fn end(&mut self, id: u32, end: PutEnd) -> Result<(), CloseReason> {
        if self.transfers.end(id, end).await {
            return Ok(());
        }
        let message = format!("there is no put with id {id} that waits for its end");
        self.refuse(BadRequest::of_field(id, "end", "id", message))
            .await
    }

    async fn cancel(
        &mut self,
        job: RequestLog,
        id: u32,
        cancel: &Cancel,
    ) -> Result<(), CloseReason> {
        let reply = if self.transfers.cancel(cancel.target) {
            Ok(encode_ok(id, &Nothing {}))
        } else {
            Err(CommandError::NoTransfer(cancel.target))
        };
        self.finish(job, reply).await
    }

    /// The peer sends nothing more, but may still read: transfers whose bytes are all here or go
    /// its way may end. What nobody may be waiting for any more is given up.
    async fn disconnected(&mut self) -> Result<(), CloseReason> {
        self.member.gone.cancel();
        Box::pin(self.settle_small()).await?;
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
    async fn quit(&mut self, job: RequestLog, id: u32) -> Result<(), CloseReason> {
        self.wait_for_tasks().await;
        // Who is told that the session has ended can rely on it.
        self.session
            .shared
            .datagrams
            .revoke_tickets(&self.session.id);
        // What was not written by now comes at the next login: nothing comes behind the reply.
        self.session.outbox.events().close();
        let reply = job.close(Ok(encode_ok(id, &Nothing {})).into());
        self.session.outbox.send_after_data(reply).await?;
        Err(CloseReason::Quit)
    }

    async fn finish(
        &self,
        job: RequestLog,
        reply: Result<Bytes, CommandError>,
    ) -> Result<(), CloseReason> {
        Ok(job.finish(&self.session.outbox, reply.into()).await?)
    }

    async fn refuse(&mut self, bad: BadRequest) -> Result<(), CloseReason> {
        Box::pin(self.settle_small()).await?;
        if bad.cmd == Some("put") {
            self.transfers.check_put(bad.id)?;
            self.transfers.ignore_put(bad.id);
        }
        let SessionState { shared, outbox, .. } = &*self.session;
        let lines = Arc::clone(&self.member.lines);
        Ok(RequestLog::refuse(&shared.metrics, lines, outbox, bad).await?)
    }

    fn job(&self, id: u32, request: &Request) -> RequestLog {
        let path = request.path().map(|path| self.absolute(path));
        let to = request.to().map(|path| self.absolute(path));
        let metrics = &self.session.shared.metrics;
        let lines = Arc::clone(&self.member.lines);
        RequestLog::new(metrics, lines, id, request.cmd(), path).with_to(to)
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

    /// Where a task that runs beside sends its reply, and until when.
    fn way_out(&self) -> (Outbox, CancellationToken) {
        (self.session.outbox.clone(), self.session.gone.clone())
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

/// Sends one file bit by bit.
async fn send_alone(asked: PendingDownload, member: Member, out: Responder) {
    let PendingDownload {
        id,
        get,
        job,
        underway,
        permit,
    } = asked;
    let Responder {
        outbox,
        gone,
        sending,
    } = out;
    let work = commands::get(id, get, &member, &outbox, &sending, &underway);
    let outcome = job.guard(work).await;
    let reply = job.close(outcome);
    drop(underway);
    gone.run_until_cancelled(outbox.send_after_data(reply))
        .await;
    drop(permit);
}

/// Whether a request is answered although nobody knows what its user may do.
fn asks_for_nothing(request: &Request) -> bool {
    matches!(
        request,
        // The data of a put was let in when it began; what becomes of it is decided there.
        Request::End(_)
            | Request::Ping(_)
            | Request::Cancel(_)
            | Request::Help(_)
            | Request::Hello(_)
            | Request::Quit(_)
    )
}

fn id_taken(id: u32, cmd: &'static str) -> BadRequest {
    let message = format!("id {id} is that of an unfinished get, put or logs");
    BadRequest::of_field(id, cmd, "id", message)
}
