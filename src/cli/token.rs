//! `haul token`: passwords for one program or device, which are revoked one by one.
//!
//! With the name of a user these commands work on a data directory of this machine, without one on
//! the user's own tokens at the server of the profile in use. `haul admin token` works on the tokens of
//! others at that server.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use crate::accounts::{TokenExpiry, TokenLabel, UserName};
use crate::cli::administration::{Administration, NewToken, TokenObject};
use crate::cli::data::DataDirArgs;
use crate::cli::events::EventDisplay;
use crate::cli::global_options::GlobalOptions;
use crate::cli::local_administration::{DataUse, LocalAdministration};
use crate::cli::output::{Output, local_time, safe};
use crate::cli::remote_administration::token_request;
use crate::cli::remote_session::{OpenedSession, leave, open, open_without_token};
use crate::cli::table::table;
use crate::protocol::TokenRemove;

/// Make, list and revoke tokens for programs and devices
///
/// A token logs in in place of a user and its password. Without NAME these commands are about your own
/// tokens. With NAME they work on the data directory of a server on this machine, which may run or not;
/// `haul admin token` does the same on a server elsewhere.
#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    #[command(flatten)]
    data: DataDirArgs,
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    Add(TokenAddArgs),
    List(TokenListArgs),
    Remove(TokenRemoveArgs),
}

/// Make a token
///
/// The token is printed once, as the last word on standard output. Your own tokens need your password: a token does not make another one.
#[derive(Debug, Args)]
struct TokenAddArgs {
    /// The user that it logs in as, on the server's machine; without it, you
    name: Option<UserName>,
    #[command(flatten)]
    options: NewTokenArgs,
}

/// The properties of a new token.
#[derive(Debug, Args)]
pub(super) struct NewTokenArgs {
    /// Its purpose, to recognise it by
    #[arg(long, default_value = "", hide_default_value = true)]
    label: TokenLabel,
    /// When it expires: after a time such as 90d or "6 months", at a time such as
    /// 2027-01-31T00:00Z, or "never". Without this, in 365 days
    #[arg(long, value_name = "WHEN")]
    expires: Option<TokenExpiry>,
}

/// List tokens by number and label
#[derive(Debug, Args)]
struct TokenListArgs {
    /// The user, on the server's machine; without it, you
    name: Option<UserName>,
}

/// Revoke a token, and end the sessions that it opened
#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
struct TokenRemoveArgs {
    /// The user, on the server's machine; without it, you
    name: Option<UserName>,
    /// Its number, as `haul token list` shows it
    #[arg(required = true)]
    id: u64,
}

/// A new token as `--json` shows it.
#[derive(Debug, Serialize)]
struct NewObject<'a> {
    user: &'a str,
    id: u64,
    token: &'a str,
    expires: Option<Timestamp>,
}

impl TokenArgs {
    pub(super) async fn run(self, global: &GlobalOptions, output: Output) -> anyhow::Result<()> {
        match self.command {
            TokenCommand::Add(TokenAddArgs { name, options }) => match name {
                Some(name) => {
                    let local = open_local(&self.data, DataUse::Change, output).await?;
                    options.add(&local, &name, output).await
                }
                None => options.add_own(global, output).await,
            },
            TokenCommand::List(TokenListArgs { name }) => match name {
                Some(name) => {
                    let local = open_local(&self.data, DataUse::Read, output).await?;
                    list(&local, &name, output).await
                }
                None => list_own(global, output).await,
            },
            TokenCommand::Remove(TokenRemoveArgs { name, id }) => match name {
                Some(name) => {
                    let local = open_local(&self.data, DataUse::Change, output).await?;
                    remove(&local, &name, id, output).await
                }
                None => remove_own(global, id, output).await,
            },
        }
    }
}

async fn open_local(
    data: &DataDirArgs,
    data_use: DataUse,
    output: Output,
) -> anyhow::Result<LocalAdministration> {
    LocalAdministration::open(data, data_use, output).await
}

impl NewTokenArgs {
    /// Makes a token of `name`.
    pub(super) async fn add(
        self,
        target: &impl Administration,
        name: &UserName,
        output: Output,
    ) -> anyhow::Result<()> {
        let new = target.issue_token(name, &self.label, self.expires).await?;
        show(name.as_str(), &new, output)
    }

    async fn add_own(self, global: &GlobalOptions, output: Output) -> anyhow::Result<()> {
        let opened = open_without_token(global).await?;
        let request = token_request(None, &self.label, self.expires);
        let reply = opened.client.call(request).await;
        leave(&opened.client).await;
        let reply = reply?;
        let new = NewToken {
            id: reply.number,
            token: reply.token,
            expires: reply.expires,
        };
        show(&opened.reply.user, &new, output)
    }
}

fn show(user: &str, new: &NewToken, output: Output) -> anyhow::Result<()> {
    let until = match new.expires {
        Some(time) => format!("expires at {}", local_time(time)),
        None => "does not expire".into(),
    };
    output.note(&format!(
        "token {} logs in as {user} and {until}; it is not shown again",
        new.id
    ));
    let object = NewObject {
        user,
        id: new.id,
        token: new.token.expose(),
        expires: new.expires,
    };
    output.result(&object, |object| object.token.to_owned())
}

/// Lists the tokens of `name`.
pub(super) async fn list(
    target: &impl Administration,
    name: &UserName,
    output: Output,
) -> anyhow::Result<()> {
    show_list(&target.tokens(name).await?, output)
}

async fn list_own(global: &GlobalOptions, output: Output) -> anyhow::Result<()> {
    let OpenedSession { client, .. } = open(global, EventDisplay::Nothing).await?;
    let tokens = client.tokens(None).await;
    leave(&client).await;
    let tokens: Vec<_> = tokens?.into_iter().map(TokenObject::from).collect();
    show_list(&tokens, output)
}

fn show_list(tokens: &[TokenObject], output: Output) -> anyhow::Result<()> {
    output.list(tokens, || {
        let rows: Vec<_> = tokens.iter().map(row).collect();
        table(["ID", "CREATED", "EXPIRES", "LABEL"], &rows)
    })
}

fn row(token: &TokenObject) -> [String; 4] {
    let expires = match token.expires {
        None => "never".into(),
        Some(time) if time <= Timestamp::now() => format!("{time} (expired)"),
        Some(time) => time.to_string(),
    };
    let mut label = safe(&token.label).into_owned();
    if token.current {
        label.push_str(" (in use here)");
    }
    [
        token.id.to_string(),
        token.created.to_string(),
        expires,
        label.trim_start().to_owned(),
    ]
}

/// Revokes token `id` of `name`.
pub(super) async fn remove(
    target: &impl Administration,
    name: &UserName,
    id: u64,
    output: Output,
) -> anyhow::Result<()> {
    target.remove_token(name, id).await?;
    output.note(&format!("removed token {id} of user {name}"));
    Ok(())
}

async fn remove_own(global: &GlobalOptions, id: u64, output: Output) -> anyhow::Result<()> {
    let OpenedSession { client, reply, .. } = open(global, EventDisplay::Nothing).await?;
    let request = TokenRemove {
        number: id,
        user: None,
    };
    let removed = client.call(request).await;
    leave(&client).await;
    removed?;
    output.note(&format!("removed token {id} of user {}", reply.user));
    Ok(())
}
