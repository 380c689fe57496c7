//! `haul say`

use clap::Args;

use crate::cli::output::{print_json, safe};
use crate::cli::remote_session::RemoteSession;
use crate::protocol::SayReply;

/// Say something to a user, or in a room
///
/// Once it returns the message is stored. Who is away is told at the next `chat` or
/// `shell`. The name of
/// a room begins with `#`, which many shells take for a comment: write '#ops'. To be heard in a room
/// one has to be in it, see `join`.
#[derive(Debug, Args)]
pub(super) struct SayArgs {
    /// Say it by datagram; it has to be short
    #[arg(long)]
    udp: bool,
    /// A user, or a room such as '#ops'
    to: String,
    /// The text; several words are one text
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
        } else if remote.output.terminal
            && let Some(note) = unheard(&self.to, said)
        {
            remote.output.note(&note);
        }
        Ok(())
    }
}

/// A note about a message that nobody has read yet.
pub(super) fn unheard(to: &str, said: SayReply) -> Option<String> {
    (said.delivered == 0).then(|| {
        if to.starts_with('#') {
            format!(
                "nobody else in {} is connected; they get it later",
                safe(to)
            )
        } else {
            format!("{} is not connected, and gets it later", safe(to))
        }
    })
}
