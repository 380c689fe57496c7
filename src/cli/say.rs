//! `haul say`

use clap::Args;

use crate::cli::output::{print_json, safe};
use crate::cli::remote_session::RemoteSession;
use crate::client::Client;
use crate::protocol::SayReply;

/// Send a message to a user or a room
///
/// The server has stored the message when the command ends. A user who is away receives it in the
/// next `chat` or `shell`. The name of a room begins with `#`, so it needs quotes in most shells: '#ops'.
/// Only members of a room can send messages to it; see `join`.
#[derive(Debug, Args)]
pub(super) struct SayArgs {
    /// Send a short message by datagram
    #[arg(long)]
    udp: bool,
    /// A user, or a room such as '#ops'
    to: String,
    /// The text of the message
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    text: Vec<String>,
}

impl SayArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let text = self.text.join(" ");
        let said = if self.udp {
            remote
                .client
                .datagrams()
                .await?
                .say(&self.to, &text)
                .await?
        } else {
            remote.client.say(&self.to, &text).await?
        };
        if remote.output.is_json() {
            print_json(&said)?;
        } else if let Some(note) = undelivered(&remote.client, &self.to, said).await {
            remote.output.note(&note);
        }
        Ok(())
    }
}

/// A note about a message that no session has received yet.
pub(super) async fn undelivered(client: &Client, to: &str, said: SayReply) -> Option<String> {
    if said.delivered > 0 {
        return None;
    }
    let name = safe(to);
    if !to.starts_with('#') {
        return Some(format!("{name} is not connected, and gets it later"));
    }
    // Joining a room again only lists its members.
    let members = client.join(to).await.unwrap_or_default();
    Some(if members.len() == 1 {
        format!("you are the only one in {name}")
    } else {
        format!("nobody else in {name} is connected; they get it later")
    })
}
