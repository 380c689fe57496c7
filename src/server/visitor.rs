//! A session before its login: what a visitor may ask, and how one becomes a [`Member`].

use tokio::io::AsyncRead;
use tokio::sync::watch;
use tokio::time::sleep_until;
use tracing::Span;

use super::commands;
use super::job::Job;
use super::member::Member;
use super::session::{End, Session};
use super::transfers::StrayData;
use crate::protocol::{Frame, GoodbyeReason, Login, Request, encode_ok};

/// A member who has just logged in.
pub(super) struct Admitted {
    pub(super) member: Member,
    /// Changes of any account since before this one was read.
    pub(super) changes: watch::Receiver<u64>,
}

impl<R: AsyncRead + Unpin + Send> Session<R> {
    /// Answers requests until one of them is a login that succeeds.
    pub(super) async fn admit(&mut self) -> Result<Admitted, End> {
        loop {
            let drain = self.shutdown.drain.clone();
            let frame = tokio::select! {
                biased;
                () = drain.cancelled() => {
                    self.say_goodbye(GoodbyeReason::ShuttingDown).await?;
                    return Err(End::Goodbye(GoodbyeReason::ShuttingDown));
                }
                () = sleep_until(self.login_deadline) => {
                    return Err(End::TimedOut("no login within the time for it".into()));
                }
                frame = self.receiver.next() => frame,
            };
            let json = match frame? {
                None => return Err(End::Disconnected),
                Some(Frame::Data { stream, .. }) => return Err(StrayData::NoPut(stream).into()),
                Some(Frame::Control(json)) => json,
            };
            match Request::parse(&json) {
                Ok((id, Request::Login(login))) => {
                    if let Some(admitted) = self.log_in(id, login).await? {
                        return Ok(admitted);
                    }
                }
                Ok((id, request)) => {
                    let job = Job::new(id, request.cmd(), None);
                    let quits = matches!(request, Request::Quit(_));
                    let reply = commands::visit(id, &request, &self.peer);
                    job.finish(&self.outbox, reply.into()).await?;
                    if quits {
                        return Err(End::Quit);
                    }
                }
                Err(bad) => Job::refuse(&self.outbox, bad).await?,
            }
        }
    }

    async fn log_in(&mut self, id: u32, login: Login) -> Result<Option<Admitted>, End> {
        let job = Job::new(id, "login", None).with_user(login.user.as_deref());
        let mut admitted = None;
        // Watched from before the account is read, so that no change of it is missed.
        let changes = self.shared.accounts.changes();
        let work = async {
            let account = commands::log_in(id, login, &self.shared, &self.peer).await?;
            Span::current().record("user", account.name.as_str());
            let (session, gone) = (self.id.clone(), self.gone.child_token());
            let member = Member::admit(self.shared.clone(), account, session, gone).await?;
            let reply = encode_ok(id, &commands::welcome(&member));
            admitted = Some(Admitted { member, changes });
            Ok(reply)
        };
        let outcome = job.guard(work).await;
        if admitted.is_some() {
            let frame_timeout = self.shared.config().limits.frame_timeout;
            self.receiver.lift_limits(frame_timeout);
        }
        job.finish(&self.outbox, outcome).await?;
        Ok(admitted)
    }
}
