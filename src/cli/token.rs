//! `haul token`: passwords made for one program, which can be taken back one by one.

use std::str::FromStr;

use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::Serialize;

use crate::accounts;
use crate::accounts::{Accounts, UserName};
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
    label: Label,
    /// When it stops working: after a time such as 90d or "6 months", or at one such as
    /// 2027-01-31T00:00Z. Without this, never.
    #[arg(long, value_name = "WHEN")]
    expires: Option<Expiry>,
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

/// Text that can be shown in a list.
#[derive(Debug, Clone)]
struct Label(String);

impl FromStr for Label {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if text.chars().any(char::is_control) {
            return Err("it holds a control character");
        }
        Ok(Self(text.into()))
    }
}

/// A point in time that is still to come.
#[derive(Debug, Clone, Copy)]
struct Expiry(Timestamp);

impl FromStr for Expiry {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let now = Timestamp::now();
        let after = |span: Span| now.to_zoned(TimeZone::UTC).checked_add(span).ok();
        let time = match text.parse::<Span>() {
            Ok(span) => after(span).map(|time| time.timestamp()),
            Err(_) => text.parse().ok(),
        };
        match time {
            Some(time) if time > now => Ok(Self(time)),
            Some(_) => Err("that is not in the future"),
            None => Err("expected a time from now such as 90d, or one such as 2027-01-31T00:00Z"),
        }
    }
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
        let expires = self.expires.map(|Expiry(time)| time);
        let token = accounts
            .add_token(&self.name, &self.label.0, expires)
            .await?;
        output.note(&format!(
            "this token logs in as {}; it is not shown again",
            self.name
        ));
        let (user, token) = (&self.name, token.expose());
        output.result(&NewObject { user, token }, |new| new.token.to_owned())?;
        audit.note("token add", changed(&self.name, None))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_expires_after_a_time_or_at_one_to_come() {
        for text in ["90d", "6 months", "1h 30m", "P1Y", "2999-01-31T00:00Z"] {
            let Expiry(time) = text.parse().expect(text);
            assert!(time > Timestamp::now(), "{text}");
        }
        for text in ["", "0s", "-1d", "soon", "2001-01-31T00:00Z", "99999 years"] {
            assert!(text.parse::<Expiry>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_label_that_could_drive_a_terminal_is_refused() {
        assert!("backup of the büro".parse::<Label>().is_ok());
        for text in ["a\nb", "\x1b[2J", "\u{9b}"] {
            assert!(text.parse::<Label>().is_err(), "{text:?}");
        }
    }
}
