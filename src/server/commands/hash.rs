//! `hash`: the digest of a file, read only for that where the server does not have it.

use super::Command;
use crate::protocol::{Hash, HashReply};
use crate::server::CommandError;
use crate::server::member::Member;

impl Command for Hash {
    async fn apply(self, member: &mut Member) -> Result<HashReply, CommandError> {
        let path = member.resolve(&self.path)?;
        let algorithm = self.digest.unwrap_or_default();
        let gone = member.gone.clone();
        let shared = member.shared.clone();
        let waiting = gone.run_until_cancelled(shared.digests.acquire());
        let _turn = waiting.await.ok_or(CommandError::Cancelled)?;
        let (digest, size) = member
            .disk(move |view| view.digest(&path, algorithm, &|| gone.is_cancelled()))
            .await?;
        Ok(HashReply { digest, size })
    }
}
