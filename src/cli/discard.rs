//! `haul discard`

use clap::Args;
use serde::Serialize;

use crate::cli::output::print_json;
use crate::cli::remote_session::RemoteSession;

/// Delete interrupted uploads
#[derive(Debug, Args)]
pub(super) struct DiscardArgs {
    /// The uploads; `uploads` lists them
    #[arg(required = true, value_name = "UPLOAD")]
    uploads: Vec<String>,
}

#[derive(Serialize)]
struct Discarded<'a> {
    upload: &'a str,
}

impl DiscardArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        for upload in &self.uploads {
            remote.client.discard(upload).await?;
            if remote.output.is_json() {
                print_json(&Discarded { upload })?;
            }
        }
        Ok(())
    }
}
