//! Commands about events of the session: messages, watches, tickets, and the drain of the server.

use std::pin::pin;
use std::sync::Arc;

use tokio::io::AsyncRead;

use crate::protocol::{Call, Drain, Say, Unwatch, Watch, encode_ok};
use crate::server::commands;
use crate::server::session::close_reason::CloseReason;
use crate::server::session::request_log::RequestLog;
use crate::server::session::request_loop::state::RequestLoop;
use crate::server::session::responder::ReplyOrder;

impl<R: AsyncRead + Unpin + Send> RequestLoop<'_, R> {
    /// Sends a message. Messages of a session keep their order, but do not wait for each other to be
    /// stored.
    pub(super) async fn say(
        &mut self,
        log: RequestLog,
        id: u32,
        say: Say,
    ) -> Result<(), CloseReason> {
        let permit = self.permit().await;
        let begun = async {
            // The rights may have changed during the wait for the permit.
            self.member.authorize(&Say::COMMAND)?;
            commands::say(say, &self.member).await
        };
        let message = match begun.await {
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

    pub(super) async fn watch(
        &mut self,
        log: RequestLog,
        id: u32,
        watch: Watch,
    ) -> Result<(), CloseReason> {
        let work = commands::watch(id, watch, &self.member, &self.subscription);
        let outcome = log.guard(work).await;
        Ok(log.finish(&self.session.outbox, outcome).await?)
    }

    pub(super) async fn unwatch(
        &mut self,
        log: RequestLog,
        id: u32,
        unwatch: &Unwatch,
    ) -> Result<(), CloseReason> {
        let reply = commands::unwatch(id, unwatch, &self.subscription).await;
        self.finish(log, reply).await
    }

    pub(super) async fn ticket(&mut self, log: RequestLog, id: u32) -> Result<(), CloseReason> {
        let (peer, events) = (&self.session.peer, self.session.outbox.events());
        let reply = commands::ticket(id, &self.member, peer, events);
        self.finish(log, reply).await
    }

    pub(super) async fn drain(
        &mut self,
        log: RequestLog,
        id: u32,
        drain: &Drain,
    ) -> Result<(), CloseReason> {
        let reply = commands::drain(id, drain, &self.member, &self.session.shutdown);
        self.finish(log, Ok(reply)).await
    }
}
