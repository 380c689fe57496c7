//! `haul whoami`

use clap::Args;

use crate::cli::output::{safe, size};
use crate::cli::remote_session::RemoteSession;
use crate::protocol::WhoamiReply;

/// Show your account, your folders and your limits
#[derive(Debug, Args)]
pub(super) struct WhoamiArgs {}

impl WhoamiArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let whoami = remote.client.whoami().await?;
        remote.output.result(&whoami, describe)
    }
}

fn describe(whoami: &WhoamiReply) -> String {
    let admin = if whoami.admin { " (admin)" } else { "" };
    let limit = match (whoami.quota.limit, whoami.quota.files_limit) {
        (None, None) => "none".to_owned(),
        (bytes, files) => {
            let bytes = bytes.map(size);
            let files = files.map(|files| format!("{files} files"));
            let both: Vec<_> = bytes.into_iter().chain(files).collect();
            both.join(", ")
        }
    };
    let mut lines = vec![
        format!("user:    {}{admin}", safe(&whoami.user)),
        format!("cwd:     {}", safe(&whoami.cwd)),
        format!("limit:   {limit}"),
    ];
    for folder in &whoami.folders {
        let rights = folder.rights.join(" ");
        lines.push(format!(
            "folder:  /{} ({})",
            safe(&folder.name),
            safe(&rights)
        ));
    }
    if whoami.more {
        lines.push("folder:  and more; `haul ls /` lists them all".to_owned());
    }
    lines.push(format!("session: {}", safe(&whoami.session)));
    lines.join("\n")
}
