//! The commands whose reply is one line or a listing.

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;

use crate::protocol::{CommandInfo, Login, Ls, Nothing, Secret, ServerMessage, encode_ok};
use crate::server::classic::close::ClassicClose;
use crate::server::classic::commands::ClassicCommand;
use crate::server::classic::in_process_session::InProcessSession;
use crate::server::classic::{ClassicConversation, SessionReply, commands, text, unreadable};
use crate::server::commands::register::register;
use crate::server::session::request_log::RequestLog;

/// The most bytes of a listing; further entries are left out.
const MAX_LISTING_BYTES: usize = 1024 * 1024;

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> ClassicConversation<R, W> {
    /// Executes a command whose reply is one line or listing.
    pub(super) async fn execute(
        &mut self,
        command: ClassicCommand,
    ) -> Result<String, ClassicClose> {
        Ok(match command {
            ClassicCommand::Login(login) => self.log_in(login).await?,
            ClassicCommand::Register { user, password } => self.register(user, password).await?,
            ClassicCommand::Pwd(pwd) => reply_text(self.call(&pwd).await?, |reply| {
                text::escape_for_terminal(&reply.cwd)
            }),
            ClassicCommand::Cd(cd) => reply_text(self.call(&cd).await?, |reply| {
                text::escape_for_terminal(&reply.cwd)
            }),
            ClassicCommand::Ls(ls) => self.list(ls).await?,
            ClassicCommand::Mkdir(mkdir) => reply_text(self.call(&mkdir).await?, |reply| {
                format!("created {}", text::escape_for_terminal(&reply.path))
            }),
            ClassicCommand::Rm(rm) => reply_text(self.call(&rm).await?, text::removed),
            ClassicCommand::Mv(mv) => reply_text(self.call(&mv).await?, |reply| {
                format!("moved to {}", text::escape_for_terminal(&reply.path))
            }),
            ClassicCommand::Hash(hash) => {
                reply_text(self.call(&hash).await?, |reply| text::hex(&reply.digest))
            }
            ClassicCommand::Df(df) => reply_text(self.call(&df).await?, text::usage),
            ClassicCommand::Who => {
                let answer = self.call_json(json!({"cmd": "who"})).await?;
                reply_text(answer, |reply| text::users(&reply))
            }
            ClassicCommand::Say { to, text } => {
                let say = json!({"cmd": "say", "to": to, "text": text});
                reply_text(self.call_json(say).await?, |reply| text::history(&reply))
            }
            ClassicCommand::Help => {
                self.count_request().await?;
                commands::help()
            }
            ClassicCommand::Quit(quit) => reply_text(self.call(&quit).await?, |_| "goodbye".into()),
            ClassicCommand::Get(_) | ClassicCommand::Put(_) => {
                "`get` and `put` are handled elsewhere".into()
            }
        })
    }

    async fn log_in(&mut self, login: Login) -> Result<String, ClassicClose> {
        let answer = self.call(&login).await?;
        self.logged_in |= answer.is_ok();
        Ok(reply_text(answer, |reply| {
            format!("logged in as {}; you are in {}", reply.user, reply.home)
        }))
    }

    /// Creates an account, unless the session ends before.
    async fn register(&mut self, user: String, password: Secret) -> Result<String, ClassicClose> {
        self.count_request().await?;
        let lines = self.shared.request_lines.for_unauthenticated();
        let log = RequestLog::new(&self.shared.metrics, lines, 0, &CommandInfo::REGISTER, None);
        let log = log.with_user(Some(&user));
        let work = async {
            self.shared.wait_for_audit(&CommandInfo::REGISTER).await;
            let registering = register(&user, &password, &self.shared, &self.peer);
            registering.await.map(|()| encode_ok(0, &Nothing {}))
        };
        let outcome = select! {
            biased;
            reason = wait_for_end(&mut self.session) => return Err(reason),
            outcome = log.guard(work) => outcome,
        };
        let answer = match ServerMessage::parse(&log.close(outcome)) {
            Ok(ServerMessage::Reply(_, answer)) => answer,
            _ => Err(unreadable()),
        };
        Ok(reply_text(answer, |_| {
            format!("created the account {user}; log in with: login {user} PASSWORD")
        }))
    }

    /// Lists a directory, page by page.
    async fn list(&mut self, mut ls: Ls) -> Result<String, ClassicClose> {
        let mut listing = String::new();
        loop {
            let page = match self.call(&ls).await? {
                Ok(page) => page,
                Err(error) => return Ok(text::failure(&error)),
            };
            for entry in &page.entries {
                text::add_entry(&mut listing, entry);
            }
            if page.cursor.is_none() {
                return Ok(text::finish_listing(listing));
            }
            if listing.len() > MAX_LISTING_BYTES {
                listing.push_str("(the listing is too long; further entries are left out)");
                return Ok(listing);
            }
            ls.cursor = page.cursor;
        }
    }
}

/// The text of a reply.
fn reply_text<T>(answer: SessionReply<T>, to_text: impl FnOnce(T) -> String) -> String {
    match answer {
        Ok(reply) => to_text(reply),
        Err(error) => text::failure(&error),
    }
}

/// Resolves once the session has ended.
async fn wait_for_end(session: &mut InProcessSession) -> ClassicClose {
    loop {
        if let Err(reason) = session.next_message().await {
            return reason;
        }
    }
}
