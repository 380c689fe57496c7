//! `say`: a message to a user or a room.

use tokio::time::Instant;

use crate::accounts::UserName;
use crate::messages::{PendingMessage, Recipient, RoomName, UserRef};
use crate::protocol::Say;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

/// Gives a message its number among the others. The pending message resolves once it is stored.
pub(crate) async fn say(say: Say, member: &Member) -> Result<PendingMessage, CommandError> {
    check_rate(member)?;
    let to = receiver(member, "to", &say.to).await?;
    let messages = &member.shared.messages;
    Ok(messages.say(member.user_ref(), to, say.text).await?)
}

/// Counts a request that stores a message, an offer or a membership towards the rate of its user.
pub(crate) fn check_rate(member: &Member) -> Result<(), CommandError> {
    let shared = &member.shared;
    let rate = shared.config().limits.messages_per_user;
    let user = member.authority.id;
    let allowed = shared.message_rate.allow(user, rate, Instant::now());
    allowed.map_err(CommandError::TooManyMessages)
}

/// The user or room that `field` names.
pub(crate) async fn receiver(
    member: &Member,
    field: &'static str,
    text: &str,
) -> Result<Recipient, CommandError> {
    if RoomName::is_room(text) {
        return Ok(Recipient::Room(room(field, text)?));
    }
    if let Some(connected) = member.shared.authorities.connected(text) {
        return Ok(Recipient::User(connected));
    }
    Ok(Recipient::User(user(member, text).await?))
}

/// The user of that name.
pub(crate) async fn user(member: &Member, text: &str) -> Result<UserRef, CommandError> {
    let name: Option<UserName> = text.parse().ok();
    let account = match &name {
        Some(name) => member.shared.accounts.account(name).await?,
        None => None,
    };
    // No name is longer, and a longer text is not repeated whole.
    let shown = || text.chars().take(64).collect();
    let account = account.ok_or_else(|| CommandError::NoSuchUser(shown()))?;
    Ok(UserRef {
        id: account.id,
        name: account.name.as_str().into(),
    })
}

/// The room that `field` names.
pub(crate) fn room(field: &'static str, text: &str) -> Result<RoomName, CommandError> {
    let room = text.parse::<RoomName>();
    room.map_err(|error| CommandError::invalid_field(field, error))
}
