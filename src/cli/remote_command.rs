//! The commands that the command line and the shell send to a server.

use clap::Subcommand;

use crate::cli::events::EventDisplay;
use crate::cli::exit;
use crate::cli::remote_session::RemoteSession;
use crate::cli::{
    accept, admin, cat, chat, cp, decline, df, discard, du, find, get, hash, history, join, leave,
    ls, mkdir, mv, offers, passwd, ping, put, rm, say, send, stat, sync, tree, uploads, watch, who,
    whoami, withdraw,
};
use crate::client::RetryPolicy;

/// A command that is sent to a server, from the command line or the shell.
#[derive(Debug, Subcommand)]
pub(super) enum RemoteCommand {
    Ls(ls::LsArgs),
    Cat(cat::CatArgs),
    Stat(stat::StatArgs),
    Find(find::FindArgs),
    Tree(tree::TreeArgs),
    Du(du::DuArgs),
    Mkdir(mkdir::MkdirArgs),
    Rm(rm::RmArgs),
    Mv(mv::MvArgs),
    Cp(cp::CpArgs),
    Hash(hash::HashArgs),
    Df(df::DfArgs),
    Get(get::GetArgs),
    Put(put::PutArgs),
    Sync(Box<sync::SyncArgs>),
    Passwd(passwd::PasswdArgs),
    Uploads(uploads::UploadsArgs),
    Discard(discard::DiscardArgs),
    Ping(ping::PingArgs),
    Whoami(whoami::WhoamiArgs),
    Who(who::WhoArgs),
    Say(say::SayArgs),
    History(history::HistoryArgs),
    Join(join::JoinArgs),
    Leave(leave::LeaveArgs),
    Chat(chat::ChatArgs),
    Send(send::SendArgs),
    Offers(offers::OffersArgs),
    Accept(accept::AcceptArgs),
    Decline(decline::DeclineArgs),
    Withdraw(withdraw::WithdrawArgs),
    Watch(watch::WatchArgs),
    Admin(admin::AdminArgs),
}

impl RemoteCommand {
    /// The events that the command wants.
    pub(super) fn hears(&self) -> EventDisplay {
        match self {
            Self::Chat(_) => EventDisplay::Everything,
            Self::Watch(_) => EventDisplay::Changes,
            Self::Sync(sync) if sync.watches() => EventDisplay::Changes,
            _ => EventDisplay::Nothing,
        }
    }

    /// What is done if the connection is lost.
    pub(super) fn retry_policy(&self) -> RetryPolicy {
        match self {
            Self::Get(get) => get.retry_policy(),
            Self::Put(put) => put.retry_policy(),
            Self::Sync(sync) => sync.retry_policy(),
            Self::Chat(_) | Self::Watch(_) => RetryPolicy::FOR_EVER,
            Self::Admin(admin) => admin.retry_policy(),
            // Too short to be worth it, or not to be done twice.
            _ => RetryPolicy::NEVER,
        }
    }

    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        match self {
            Self::Ls(command) => command.run(remote).await,
            Self::Cat(command) => command.run(remote).await,
            Self::Stat(command) => command.run(remote).await,
            Self::Find(command) => command.run(remote).await,
            Self::Tree(command) => command.run(remote).await,
            Self::Du(command) => command.run(remote).await,
            Self::Mkdir(command) => command.run(remote).await.map_err(exit::unfinished),
            Self::Rm(command) => command.run(remote).await.map_err(exit::unfinished),
            Self::Mv(command) => command.run(remote).await.map_err(exit::unfinished),
            Self::Cp(command) => command.run(remote).await.map_err(exit::unfinished),
            Self::Hash(command) => command.run(remote).await,
            Self::Df(command) => command.run(remote).await,
            Self::Get(command) => command.run(remote).await,
            Self::Put(command) => command.run(remote).await,
            Self::Sync(command) => Box::pin(command.run(remote)).await,
            Self::Passwd(command) => command.run(remote).await,
            Self::Uploads(command) => command.run(remote).await,
            Self::Discard(command) => command.run(remote).await.map_err(exit::unfinished),
            Self::Ping(command) => command.run(remote).await,
            Self::Whoami(command) => command.run(remote).await,
            Self::Who(command) => command.run(remote).await,
            Self::Say(command) => command.run(remote).await,
            Self::History(command) => command.run(remote).await,
            Self::Join(command) => command.run(remote).await,
            Self::Leave(command) => command.run(remote).await,
            Self::Chat(command) => command.run(remote).await,
            Self::Send(command) => command.run(remote).await,
            Self::Offers(command) => command.run(remote).await,
            Self::Accept(command) => command.run(remote).await,
            Self::Decline(command) => command.run(remote).await,
            Self::Withdraw(command) => command.run(remote).await.map_err(exit::unfinished),
            Self::Watch(command) => command.run(remote).await,
            Self::Admin(command) => command.run(remote).await,
        }
    }
}
