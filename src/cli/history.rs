//! `haul history`

use std::num::NonZeroU32;

use clap::Args;

use crate::cli::message_format::Style;
use crate::cli::output::safe;
use crate::cli::remote_session::RemoteSession;
use crate::client::{Client, ClientError};
use crate::protocol::Message;

/// Show earlier messages with a user or in a room
///
/// The name of a room begins with `#`, so it needs quotes in most shells: '#ops'. Only members of a
/// room can read its messages; see `join`.
#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// A user, or a room such as '#ops'
    with: String,
    /// The number of messages to show
    #[arg(long, short = 'n', default_value = "100", value_name = "N")]
    limit: NonZeroU32,
    /// Show only messages before this number, which `--json` prints as `seq`
    #[arg(long, value_name = "SEQ")]
    before: Option<u64>,
}

impl HistoryArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let client = &remote.client;
        let me = client.whoami().await?.user;
        let said = last(client, &self.with, self.before, self.limit).await?;
        let style = Style::new(remote.output, &me);
        if let (Some(first), true) = (said.messages.first(), said.more) {
            let (with, before) = (safe(&self.with), first.seq);
            remote.output.note(&format!(
                "for earlier messages, run `haul history '{with}' --before {before}`"
            ));
        }
        remote.output.results(&said.messages, |message| {
            style.message(message, Some(&self.with))
        })
    }
}

/// The last messages before `before`.
pub(super) struct Said {
    /// In the order in which they were said.
    pub(super) messages: Vec<Message>,
    /// There are more before them.
    pub(super) more: bool,
}

/// Page after page, for a server gives only so much at a time.
pub(super) async fn last(
    client: &Client,
    with: &str,
    mut before: Option<u64>,
    limit: NonZeroU32,
) -> Result<Said, ClientError> {
    let mut pages = Vec::new();
    let mut left = Some(limit);
    let mut more = true;
    while let (Some(limit), true) = (left, more) {
        let page = client.history(with, before, Some(limit)).await?;
        let got = u32::try_from(page.messages.len()).unwrap_or(u32::MAX);
        left = NonZeroU32::new(limit.get().saturating_sub(got));
        // A page that brings nothing would come again for ever.
        more = page.more && got > 0;
        before = page.messages.first().map(|first| first.seq);
        pages.push(page.messages);
    }
    Ok(Said {
        messages: pages.into_iter().rev().flatten().collect(),
        more,
    })
}
