//! `haul token`: passwords made for one program, which can be taken back one by one.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use crate::accounts;
use crate::accounts::{Accounts, TokenExpiry, TokenLabel, UserName};
use crate::cli::audit::AuditedChange;
use crate::cli::data::DataDirArgs;
use crate::cli::output::Output;
use crate::cli::table::table;

/// Make, list and remove the tokens of users, whether the server runs or not.
///
/// A token logs in in place of a user and its password; it is meant for programs.
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

/// Make a token. It is printed once, as the last word on standard output, and kept nowhere.
#[derive(Debug, Args)]
struct TokenAddArgs {
    /// The user that it logs in as.
    name: UserName,
    /// Its purpose, to recognise it by.
    #[arg(long, default_value = "", hide_default_value = true)]
    label: TokenLabel,
    /// When it expires: after a time such as 90d or "6 months", at a time such as
    /// 2027-01-31T00:00Z, or "never". Without this, in 365 days.
    #[arg(long, value_name = "WHEN")]
    expires: Option<TokenExpiry>,
}

/// List a user's tokens: number and label, but not what they are.
#[derive(Debug, Args)]
struct TokenListArgs {
    /// The user.
    name: UserName,
}

/// Remove a token. Nobody can log in with it any more.
#[derive(Debug, Args)]
struct TokenRemoveArgs {
    /// The user.
    name: UserName,
    /// Its number, as `haul token list` shows it.
    id: i64,
}

/// A token as `--json` shows it.
#[derive(Debug, Serialize)]
struct TokenObject {
    id: i64,
    label: String,
    created: Timestamp,
    expires: Option<Timestamp>,
}

/// A new token as `--json` shows it.
#[derive(Debug, Serialize)]
struct NewObject<'a> {
    user: &'a UserName,
    token: &'a str,
}

impl TokenArgs {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<()> {
        match self.command {
            TokenCommand::Add(add) => add.run(&self.data, output).await,
            TokenCommand::List(TokenListArgs { name }) => {
                list(&self.data.open().await?, &name, output).await
            }
            TokenCommand::Remove(TokenRemoveArgs { name, id }) => {
                let (audit, accounts) = (self.data.audit(output)?, self.data.open().await?);
                accounts.remove_token(&name, id).await?;
                audit.note("token remove", changed(&name, Some(id)))?;
                output.note(&format!("removed token {id} of user {name}"));
                Ok(())
            }
        }
    }
}

impl TokenAddArgs {
    async fn run(self, data: &DataDirArgs, output: Output) -> anyhow::Result<()> {
        let (audit, accounts) = (data.audit(output)?, data.open().await?);
        let expiry = self.expires.unwrap_or_default();
        let issued = accounts.issue_token((&self.name).into(), &self.label, expiry);
        let issued = issued.await?;
        output.note(&format!(
            "this token logs in as {}; it is not shown again",
            self.name
        ));
        let (user, token) = (&self.name, issued.token.expose());
        output.result(&NewObject { user, token }, |new| new.token.to_owned())?;
        audit.note("token add", changed(&self.name, Some(issued.id)))?;
        Ok(())
    }
}

fn changed(name: &UserName, token: Option<i64>) -> AuditedChange<'_> {
    AuditedChange {
        user: Some(name.as_str()),
        token,
        ..AuditedChange::default()
    }
}

async fn list(accounts: &Accounts, name: &UserName, output: Output) -> anyhow::Result<()> {
    let tokens = accounts.tokens(name).await?;
    let objects: Vec<_> = tokens.iter().map(TokenObject::from).collect();
    output.list(&objects, || {
        let rows: Vec<_> = tokens.iter().map(row).collect();
        table(["ID", "CREATED", "EXPIRES", "LABEL"], &rows)
    })?;
    Ok(())
}

fn row(token: &accounts::Token) -> [String; 4] {
    let expires = match token.expires {
        None => "never".into(),
        Some(time) if time <= Timestamp::now() => format!("{time} (expired)"),
        Some(time) => time.to_string(),
    };
    let (id, created) = (token.id.to_string(), token.created.to_string());
    [id, created, expires, token.label.clone()]
}

impl From<&accounts::Token> for TokenObject {
    fn from(token: &accounts::Token) -> Self {
        Self {
            id: token.id,
            label: token.label.clone(),
            created: token.created,
            expires: token.expires,
        }
    }
}
